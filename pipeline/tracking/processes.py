"""Which process does something, recorded so that a later one can see whether it still lives."""

import socket
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

SIGN_SECONDS, SILENT_SECONDS = 60, 300
UNSEEN = "mlflow."  # MLflow's UI shows no tag that begins so
PROGRESS = f"{UNSEEN}progress"  # tag of a run of several steps or trials: how many are done, of how many
REOPENED = f"{UNSEEN}reopened"  # tag: when a run was gone on with, in ns since 1970
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # of Linux alone


def this() -> dict[str, str]:
    """This process by host, number and start; by its start as well, since process numbers are used again."""
    process = psutil.Process()
    return {
        "process.host": socket.gethostname(),
        "process.pid": str(process.pid),
        "process.started": f"{boot} {_after_boot(process):.2f}" if (boot := _boot()) else str(process.create_time()),
    }


def sign_of_life() -> dict[str, str]:
    """What a process says from time to time, for other hosts, which cannot see whether it lives."""
    return {"process.seen": f"{time.time():.0f}"}


def as_tags(process: Mapping[str, str]) -> dict[str, str]:
    """What `this` or `sign_of_life` tells, as tags that programs read and people need not."""
    return {f"{UNSEEN}{name}": value for name, value in process.items()}


def of_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """A run's tags with those of its process as `this` names them."""
    return {name.removeprefix(UNSEEN): value for name, value in tags.items()}


def is_here(process: Mapping[str, str]) -> bool:
    """Whether a process that `this` describes runs on this host."""
    return process.get("process.host") == socket.gethostname()


def is_dead(process: Mapping[str, str]) -> bool:
    """Whether a process, described by `this` or by tags, has ended; of another host, after five silent minutes."""
    process = of_tags(process)
    if not is_here(process):
        seen = process.get("process.seen", "")
        return seen.isdecimal() and time.time() - int(seen) > SILENT_SECONDS
    try:
        now = psutil.Process(int(process["process.pid"]))
        if now.status() == psutil.STATUS_ZOMBIE:
            return True
        boot, _, started = process["process.started"].rpartition(" ")
        if boot:
            return boot != _boot() or abs(_after_boot(now) - float(started)) >= 1
        return abs(now.create_time() - float(started)) >= 1  # of an earlier version, or where boots have no ids
    except psutil.AccessDenied:  # of another user, where one may not look
        return False
    except (psutil.NoSuchProcess, KeyError, ValueError):
        return True


def _boot() -> str:
    """The id of this start of the machine; empty where starts have none."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _after_boot(process: psutil.Process) -> float:
    """When a process started (s); unlike the time since 1970, no step of the clock moves it."""
    return process.create_time() - psutil.boot_time()
