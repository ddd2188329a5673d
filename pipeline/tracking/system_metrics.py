"""Measures processor, memory and graphics cards during a training, with MLflow's functions.

MLflow's own monitor writes to the store from its own thread, and ends if the store is away. So this module uses only
its measurements, takes them between two updates, and logs them like everything else.
"""

import logging
import os
import time
from collections.abc import Sequence
from contextlib import suppress

import pynvml
from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.rocm_monitor import ROCMMonitor

# Without this, a card that cannot measure its power would cause a message at every measurement.
logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)

VISIBLE = "CUDA_VISIBLE_DEVICES"  # the cards that this process may use, by number or by the start of their id
MEASURE_SECONDS = 5
GROUP = "system/"  # MLflow's UI shows these metrics on a page of their own


class _VisibleGPUMonitor(GPUMonitor):
    """Measures the cards that this process may use. MLflow's own class measures all cards of the machine."""

    def __init__(self) -> None:
        super().__init__()
        ids = [pynvml.nvmlDeviceGetUUID(handle) for handle in self.gpu_handles]
        self.gpu_handles = [self.gpu_handles[number] for number in visible(ids, os.environ.get(VISIBLE))]


def visible(ids: Sequence[str], allowed: str | None) -> list[int]:
    """The positions in `ids` of the cards that `allowed`, the value of CUDA_VISIBLE_DEVICES, lists, in its order.

    None allows all cards. Like CUDA, this stops at the first entry that names no card.
    """
    if allowed is None:
        return list(range(len(ids)))
    found = []
    for entry in (each.strip() for each in allowed.split(",")):
        by_id = [i for i, each in enumerate(ids) if entry.startswith("GPU-") and each.startswith(entry)]
        by_number = [i for i in range(len(ids)) if entry == str(i)]
        if len(by_id + by_number) != 1:
            break
        found += by_id + by_number
    return found


class SystemMetrics:
    """Averages of the measurements since the last call of `averages`."""

    def __init__(self) -> None:
        self._monitors: list[BaseMetricsMonitor] = []
        for kind in (CPUMonitor, _VisibleGPUMonitor, ROCMMonitor):
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
