"""Which process does something, told so that a later one can see whether it still lives."""

import socket
from collections.abc import Mapping

import psutil


def this() -> dict[str, str]:
    """This process by host, number and start; by its start as well, since process numbers are used again."""
    process = psutil.Process()
    return {
        "process.host": socket.gethostname(),
        "process.pid": str(process.pid),
        "process.started": str(process.create_time()),
    }


def is_dead(process: Mapping[str, str]) -> bool:
    """Whether a process told by `this` has ended; False for one of another host, which cannot be seen from here."""
    if process.get("process.host") != socket.gethostname():
        return False
    try:
        return abs(psutil.Process(int(process["process.pid"])).create_time() - float(process["process.started"])) >= 1
    except psutil.NoSuchProcess:
        return True
