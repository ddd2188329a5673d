"""What the machine does while a training runs, as MLflow measures it: processor, memory, graphics cards.

MLflow's own monitor asks and writes to the store from a thread of its own, and ends where the store is away. So only
its measurements are taken, between two updates, and they go the way of all that is logged.
"""

import logging
import time
from contextlib import suppress

from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.rocm_monitor import ROCMMonitor

# A card that cannot tell its power would say so at every look.
logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)

LOOK_SECONDS = 5
GROUP = "system/"  # which MLflow's UI shows on a page of its own


class SystemMetrics:
    """Averages of what was seen since they were last asked for."""

    def __init__(self) -> None:
        self._monitors: list[BaseMetricsMonitor] = []
        for kind in (CPUMonitor, GPUMonitor, ROCMMonitor):
            with suppress(Exception):  # what is not there, or may not be seen
                self._monitors.append(kind())
        self._see()
        self.averages()  # the processor's load is since the look before, and the first has none

    def look(self) -> None:
        """Measures, where the last time was 5 s ago or more."""
        if time.monotonic() - self._seen > LOOK_SECONDS:
            self._see()

    def averages(self) -> dict[str, float]:
        """The means of what was measured, and forgets it; empty where nothing was."""
        values = {
            f"{GROUP}{name}": value for each in self._monitors for name, value in each.aggregate_metrics().items()
        }
        for monitor in self._monitors:
            monitor.clear_metrics()
        return values

    def _see(self) -> None:
        self._seen = time.monotonic()
        for monitor in self._monitors:
            with suppress(Exception):  # a training does not end because a card cannot be read
                monitor.collect_metrics()
