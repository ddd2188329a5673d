"""Describes a process, so that a later process can find out whether it is still alive."""

import socket
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

NAMESPACE = "process.namespace"
NAMES = "process.host", "process.pid", NAMESPACE  # together, they identify a living process
SIGN_SECONDS = 60  # between two signs of life
SILENT_SECONDS = 300  # a process of another host counts as dead after this time without a sign of life
HIDDEN_PREFIX = "mlflow."  # MLflow's UI hides tags that begin like this
PROGRESS = f"{HIDDEN_PREFIX}progress"  # tag of a run of several steps or trials: "done/total"
REOPENED = f"{HIDDEN_PREFIX}reopened"  # tag: when a run was resumed, in ns since 1970
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # only on Linux
OWN_NAMESPACE = Path("/proc/self/ns/pid")  # only on Linux; each container has its own


def this() -> dict[str, str]:
    """This process: its host, number and start time. The start time is needed because numbers are reused."""
    process = psutil.Process()
    started = f"{boot} {_after_boot(process):.2f}" if (boot := _boot()) else str(process.create_time())
    described = {"process.host": socket.gethostname(), "process.pid": str(process.pid), "process.started": started}
    return described | ({NAMESPACE: namespace} if (namespace := _namespace()) else {})


def sign_of_life() -> dict[str, str]:
    """The time now. A process writes it from time to time, for other hosts, which cannot see whether it is alive."""
    return {"process.seen": f"{time.time():.0f}"}


def as_tags(process: Mapping[str, str]) -> dict[str, str]:
    """The values of `this` or `sign_of_life` as tags that MLflow's UI hides."""
    return {f"{HIDDEN_PREFIX}{name}": value for name, value in process.items()}


def of_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """A run's tags, with the tags of its process under the names that `this` uses."""
    return {name.removeprefix(HIDDEN_PREFIX): value for name, value in tags.items()}


def is_here(process: Mapping[str, str]) -> bool:
    """Whether this process can look up the number of a process that `this` has described.

    It can if both have the same host name, the same start of the machine and the same container: two containers may
    have one host name. A value that an earlier version did not record counts as equal.
    """
    boot, _, _ = process.get("process.started", "").rpartition(" ")
    return (
        process.get("process.host") == socket.gethostname()
        and boot in ("", _boot())
        and process.get(NAMESPACE) in (None, _namespace())
    )


def is_dead(process: Mapping[str, str]) -> bool:
    """Whether a process, described by `this` or by tags, has ended.

    If it cannot be looked up here, it counts as dead after SILENT_SECONDS without a sign of life.
    """
    process = of_tags(process)
    if not is_here(process):
        seen = process.get("process.seen", "")
        return seen.isdecimal() and time.time() - int(seen) > SILENT_SECONDS
    try:
        now = psutil.Process(int(process["process.pid"]))
        if now.status() == psutil.STATUS_ZOMBIE:
            return True
        boot, _, started = process["process.started"].rpartition(" ")
        # Without a boot id, the process was described by an earlier version, or not on Linux.
        began = _after_boot(now) if boot else now.create_time()
        return abs(began - float(started)) >= 1
    except psutil.AccessDenied:  # it belongs to another user: it exists, so it is alive
        return False
    except (psutil.NoSuchProcess, KeyError, ValueError):
        return True


def in_words(tags: Mapping[str, str]) -> str:
    """The process that works on the run with these tags. If it cannot be looked up here: when it was last seen."""
    process = of_tags(tags)
    named = f"process {process.get('process.pid')} on {process.get('process.host')}"
    seen = process.get("process.seen", "")
    if is_here(process) or not seen.isdecimal():
        return named
    age = max(0.0, time.time() - int(seen))
    return f"{named}, seen {age:.0f} s ago; it counts as dead after {SILENT_SECONDS} s without a sign of life"


def _boot() -> str:
    """The id of this start of the machine; empty if the system has no such id."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _namespace() -> str:
    """The id of the namespace of process numbers; empty if the system has no namespaces."""
    try:
        return str(OWN_NAMESPACE.readlink())
    except OSError:
        return ""


def _after_boot(process: psutil.Process) -> float:
    """When a process started, in s after boot. Unlike the time since 1970, it does not change with the clock."""
    return process.create_time() - psutil.boot_time()
