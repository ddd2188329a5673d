"""Measures processor, memory and graphics cards during a training, with MLflow's functions.

MLflow's own monitor writes to the store from its own thread, and ends if the store is away. So this module uses only
its measurements, takes them between two updates, and logs them like everything else.
"""

import logging
import time
from contextlib import suppress

from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.rocm_monitor import ROCMMonitor

# Without this, a card that cannot measure its power would cause a message at every measurement.
logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)

MEASURE_SECONDS = 5
GROUP = "system/"  # MLflow's UI shows these metrics on a page of their own


class SystemMetrics:
    """Averages of the measurements since the last call of `averages`."""

    def __init__(self) -> None:
        self._monitors: list[BaseMetricsMonitor] = []
        for kind in (CPUMonitor, GPUMonitor, ROCMMonitor):
            with suppress(Exception):  # the device does not exist, or cannot be read
                self._monitors.append(kind())
        self._measure()
        self.averages()  # drops the first measurement: the processor's load is measured since the one before

    def measure_if_due(self) -> None:
        """Measures, if the last measurement is more than MEASURE_SECONDS old."""
        if time.monotonic() - self._measured_at > MEASURE_SECONDS:
            self._measure()

    def averages(self) -> dict[str, float]:
        """The means of the measurements, which are then dropped; empty if there are none."""
        values = {
            f"{GROUP}{name}": value for each in self._monitors for name, value in each.aggregate_metrics().items()
        }
        for monitor in self._monitors:
            monitor.clear_metrics()
        return values

    def _measure(self) -> None:
        self._measured_at = time.monotonic()
        for monitor in self._monitors:
            with suppress(Exception):  # an unreadable card must not end a training
                monitor.collect_metrics()
