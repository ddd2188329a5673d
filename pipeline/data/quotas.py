"""Finds how many cores and how much memory this process may use: containers and schedulers may limit them.

Linux keeps such limits in control groups, as files below /sys/fs/cgroup:
https://docs.kernel.org/admin-guide/cgroup-v2.html. The groups have version 1, version 2, or both at once. The limits of
all groups above a group apply to it too.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import psutil

ROOT = Path("/")
# For version 2 and version 1: the files of the limit and of the used memory, both in bytes, and the entry in
# `memory.stat` for the file cache, which the system frees when it needs memory.
MEMORY = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def cores(root: Path = ROOT) -> int:
    """How many cores this process can keep busy, at least 1. Quotas are rounded up: 1.5 cores count as 2."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shares = [_cores_of(folder) for folder in _groups("cpu", root)]
    return max(1, math.ceil(min([allowed, *shares])))


def free_memory(root: Path = ROOT) -> int:
    """Bytes of memory that this process can still get."""
    free = [_free_of(folder) for folder in _groups("memory", root)]
    return int(min([psutil.virtual_memory().available, *free]))


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """The folders of the groups of `controller` that hold this process, and of the groups above; only on Linux."""
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
    """The path of `group` relative to the mounted group `top`. In a container, both are often the same group."""
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
    """The words in a file of a group. Empty if the file is missing: groups at the top lack many files."""
    try:
        return path.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return []
