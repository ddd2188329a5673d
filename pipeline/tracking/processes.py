"""Which process does something, recorded so that a later one can see whether it still lives."""

import socket
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

NAMESPACE = "process.namespace"
NAMES = "process.host", "process.pid", NAMESPACE  # what tells one living process from another
SIGN_SECONDS, SILENT_SECONDS = 60, 300
UNSEEN = "mlflow."  # MLflow's UI shows no tag that begins so
PROGRESS = f"{UNSEEN}progress"  # tag of a run of several steps or trials: how many are done, of how many
REOPENED = f"{UNSEEN}reopened"  # tag: when a run was gone on with, in ns since 1970
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # of Linux alone
OWN_NAMESPACE = Path("/proc/self/ns/pid")  # of Linux alone: a container has one of its own


def this() -> dict[str, str]:
    """This process by host, number and start; by its start as well, since process numbers are used again."""
    process = psutil.Process()
    started = f"{boot} {_after_boot(process):.2f}" if (boot := _boot()) else str(process.create_time())
    described = {"process.host": socket.gethostname(), "process.pid": str(process.pid), "process.started": started}
    return described | ({NAMESPACE: namespace} if (namespace := _namespace()) else {})


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
    """Whether the number of a process, described by `this`, is one of those that this process sees.

    Only numbers of one start of one machine are, and of one container: two may have one host name. What an earlier
    version has not described counts as equal.
    """
    boot, _, _ = process.get("process.started", "").rpartition(" ")
    return (
        process.get("process.host") == socket.gethostname()
        and boot in ("", _boot())
        and process.get(NAMESPACE) in (None, _namespace())
    )


def is_dead(process: Mapping[str, str]) -> bool:
    """Whether a process, described by `this` or by tags, has ended; of one not here, after five silent minutes."""
    process = of_tags(process)
    if not is_here(process):
        seen = process.get("process.seen", "")
        return seen.isdecimal() and time.time() - int(seen) > SILENT_SECONDS
    try:
        now = psutil.Process(int(process["process.pid"]))
        if now.status() == psutil.STATUS_ZOMBIE:
            return True
        boot, _, started = process["process.started"].rpartition(" ")
        began = _after_boot(now) if boot else now.create_time()  # of an earlier version, or where boots have no ids
        return abs(began - float(started)) >= 1
    except psutil.AccessDenied:  # of another user, where one may not look
        return False
    except (psutil.NoSuchProcess, KeyError, ValueError):
        return True


def in_words(tags: Mapping[str, str]) -> str:
    """Which process has the run with these tags, and when that would count as dead where it cannot be seen."""
    process = of_tags(tags)
    named = f"process {process.get('process.pid')} on {process.get('process.host')}"
    seen = process.get("process.seen", "")
    if is_here(process) or not seen.isdecimal():
        return named
    return f"{named}, seen {max(0.0, time.time() - int(seen)):.0f} s ago; {SILENT_SECONDS} s without a sign end it"


def _boot() -> str:
    """The id of this start of the machine; empty where starts have none."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _namespace() -> str:
    """The id of the process numbers that this process sees; empty where there is one set of them alone."""
    try:
        return str(OWN_NAMESPACE.readlink())
    except OSError:
        return ""


def _after_boot(process: psutil.Process) -> float:
    """When a process started (s); unlike the time since 1970, no step of the clock moves it."""
    return process.create_time() - psutil.boot_time()
