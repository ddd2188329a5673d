"""What this process may use of its machine: cores and memory, where a container or a scheduler grants it fewer.

Linux keeps such limits in control groups, of version 1 or 2 or of both at once, as files below /sys/fs/cgroup:
https://docs.kernel.org/admin-guide/cgroup-v2.html. A group is held to the limits of all groups above it, too.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import psutil

ROOT = Path("/")
# Of version 2 and 1: files of the limit and of what is in use, both in bytes, and what `memory.stat` calls the cache of
# files that the system takes back when it needs the room.
MEMORY = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def cores(root: Path = ROOT) -> int:
    """How many cores this process can keep busy, at least 1; a quota of a core and a half counts as two."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shares = [_cores_of(folder) for folder in _groups("cpu", root)]
    return max(1, math.ceil(min([allowed, *shares])))


def free_memory(root: Path = ROOT) -> int:
    """Bytes of memory that this process can still get."""
    free = [_free_of(folder) for folder in _groups("memory", root)]
    return int(min([psutil.virtual_memory().available, *free]))


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """The folders of the groups of `controller` that hold this process, with those above them; none but on Linux."""
    try:
        memberships = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        mounts = (root / "proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    lines = [line.split(":", 2) for line in memberships]
    groups = {name: path for _, names, path in lines for name in names.split(",")}
    for mount in mounts:
        place, _, filesystem = mount.partition(" - ")
        top, point = place.split()[3:5]
        kind, _, options = filesystem.split(" ", 2)
        if kind == "cgroup2":
            yield from _upwards(root / point.lstrip("/"), _below(groups.get("", "/"), top))
        elif kind == "cgroup" and controller in options.split(","):
            yield from _upwards(root / point.lstrip("/"), _below(groups.get(controller, "/"), top))


def _below(group: str, top: str) -> str:
    """The path of a group from `top`, the one that is mounted; in a container that is often the group itself."""
    path = PurePosixPath(group)
    return str(path.relative_to(top)) if path.is_relative_to(top) else "."


def _upwards(mounted: Path, below: str) -> Iterator[Path]:
    for folder in [mounted / below, *(mounted / below).parents]:
        yield folder
        if folder == mounted:
            return


def _cores_of(folder: Path) -> float:
    quota, period = [*_words(folder / "cpu.max"), "", ""][:2]
    if not quota:
        quota, period = ("".join(_words(folder / f"cpu.cfs_{what}_us")) for what in ("quota", "period"))
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() and int(period) else math.inf


def _free_of(folder: Path) -> float:
    for limit, usage, cache in MEMORY:
        most, used = ("".join(_words(folder / name)) for name in (limit, usage))
        if most.isdecimal() and used.isdecimal():
            stat = _words(folder / "memory.stat")
            reclaimable = int(stat[stat.index(cache) + 1]) if cache in stat else 0
            return max(0, int(most) - int(used) + reclaimable)
    return math.inf


def _words(path: Path) -> list[str]:
    """The words in a file of a group; none where it is missing, as many are at the top."""
    try:
        return path.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return []
