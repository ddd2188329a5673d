"""Starts a training once for each of several devices of this machine, by torchrun's own launcher."""

import logging
import os
import signal
import sys
import uuid
from collections.abc import Mapping

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from pipeline import progress
from pipeline.data import quotas
from pipeline.training import device
from pipeline.training.events import Failure

RENDEZVOUS = "c10d"


def check(num_devices: int, name: str) -> None:
    """Raises ValueError if this machine has fewer devices like `name`. A CPU may have any number of ranks."""
    gpus = [each for each in device.available() if each.startswith("cuda:")]
    if name != "cpu" and gpus and num_devices > len(gpus):
        raise ValueError(f"devices={num_devices}: this machine has {len(gpus)} GPU{'s' if len(gpus) > 1 else ''}")
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"devices={num_devices} need device=auto, cuda or cpu, not {name}")


def start(step: str, flags: Mapping[str, str], num_devices: int) -> None:
    """Runs `step` in `num_devices` ranks until they end. Ends this process with the status of the first that failed."""
    logging.disable(logging.WARNING)  # a rank that fails says why, in one line
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, quotas.cores() // num_devices)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_devices,
        run_id=uuid.uuid4().hex,
        rdzv_backend=RENDEZVOUS,
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    words = [word for name, value in flags.items() for word in (f"--{name}", value)]
    if progress.is_quiet():
        words.append("--quiet=true")
    try:
        elastic_launch(config, sys.executable)("-m", "pipeline", step, *words)
    except ChildFailedError as error:
        number, first = min(error.failures.items(), key=lambda item: item[1].timestamp)
        if first.exitcode < 0:
            name = signal.Signals(-first.exitcode).name
            raise Failure(f"{name} ended rank {number} of the training; resume=auto continues it") from None
        raise SystemExit(first.exitcode) from None
    except SignalException as error:
        raise SystemExit(128 + int(error.sigval)) from None
    finally:
        logging.disable(logging.NOTSET)
