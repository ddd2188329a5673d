"""Limits of cores and memory by control groups of both versions, as Linux shows them in containers and outside."""

import os
from types import SimpleNamespace

import psutil
import pytest

from pipeline.data import quotas

GIB = 2**30
MEMORY_1 = "36 32 0:32 {top} /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory"
CPU_1 = "33 32 0:29 {top} /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct"
VERSION_2 = "31 23 0:27 {top} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
MIXED_2 = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw"
NONE_1 = {"memory/memory.limit_in_bytes": 9223372036854771712, "memory/memory.usage_in_bytes": GIB}


@pytest.fixture
def machine(tmp_path):
    """A function that writes a machine's files: lines of /proc/self/cgroup, lines of mountinfo, files of the groups."""

    def make(groups, mounts, files):
        for name, lines in {"cgroup": groups, "mountinfo": ["22 1 0:5 / /proc rw - proc proc rw", *mounts]}.items():
            path = tmp_path / "proc/self" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{line}\n" for line in lines))
        for name, content in files.items():
            path = tmp_path / "sys/fs/cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{content}\n")
        return tmp_path

    return make


@pytest.fixture(autouse=True)
def large_machine(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))


@pytest.mark.parametrize(
    ("groups", "mounts", "files", "cores"),
    [
        pytest.param(["0::/"], [VERSION_2.format(top="/")], {"cpu.max": "200000 100000"}, 2, id="2 in a container"),
        pytest.param(["0::/"], [VERSION_2.format(top="/")], {"cpu.max": "150000 100000"}, 2, id="a core and a half"),
        pytest.param(["0::/"], [VERSION_2.format(top="/")], {"cpu.max": "5000 100000"}, 1, id="a part of a core"),
        pytest.param(["0::/"], [VERSION_2.format(top="/")], {"cpu.max": "max 100000"}, 64, id="no limit"),
        pytest.param(
            ["0::/user.slice/job.scope"],
            [VERSION_2.format(top="/")],
            {"user.slice/cpu.max": "300000 100000", "user.slice/job.scope/cpu.max": "max 100000"},
            3,
            id="2, the limit above",
        ),
        pytest.param(
            ["5:cpu,cpuacct:/docker/abc"],
            [CPU_1.format(top="/docker/abc")],
            {"cpu,cpuacct/cpu.cfs_quota_us": 400000, "cpu,cpuacct/cpu.cfs_period_us": 100000},
            4,
            id="1 in a container",
        ),
        pytest.param(
            ["5:cpu,cpuacct:/docker/abc"],
            [CPU_1.format(top="/")],
            {"cpu,cpuacct/docker/abc/cpu.cfs_quota_us": 50000, "cpu,cpuacct/docker/abc/cpu.cfs_period_us": 10000},
            5,
            id="1 on the host",
        ),
        pytest.param(
            ["5:cpu,cpuacct:/", "0::/"],
            [CPU_1.format(top="/"), MIXED_2],
            {"cpu,cpuacct/cpu.cfs_quota_us": -1, "cpu,cpuacct/cpu.cfs_period_us": 100000},
            64,
            id="both, no limit",
        ),
        pytest.param(["0::/../.."], [VERSION_2.format(top="/")], {"cpu.max": "700000 100000"}, 7, id="outside"),
        pytest.param(["0::/gone"], [VERSION_2.format(top="/gone")], {"cpu.max": "not a number"}, 64, id="no numbers"),
    ],
)
def test_the_number_of_cores_follows_from_the_quota(machine, groups, mounts, files, cores):
    assert quotas.cores(machine(groups, mounts, files)) == cores


def test_the_affinity_counts_if_it_allows_fewer_cores_than_the_quota(machine, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5})
    assert quotas.cores(machine(["0::/"], [VERSION_2.format(top="/")], {"cpu.max": "200000 100000"})) == 1


@pytest.mark.parametrize(
    ("groups", "mounts", "files", "free"),
    [
        pytest.param(
            ["0::/"],
            [VERSION_2.format(top="/")],
            {"memory.max": 2 * GIB, "memory.current": GIB, "memory.stat": f"anon 5\ninactive_file {GIB // 4}\nfile 7"},
            GIB + GIB // 4,
            id="2, with files that can go",
        ),
        pytest.param(
            ["0::/job"],
            [VERSION_2.format(top="/")],
            {"memory.max": GIB, "memory.current": GIB // 2, "job/memory.max": "max", "job/memory.current": GIB // 4},
            GIB // 2,
            id="2, the limit above",
        ),
        pytest.param(
            ["4:memory:/docker/abc"],
            [MEMORY_1.format(top="/docker/abc")],
            {
                "memory/memory.limit_in_bytes": GIB,
                "memory/memory.usage_in_bytes": GIB // 2,
                "memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {GIB // 8}",
            },
            GIB // 2 + GIB // 8,
            id="1 in a container",
        ),
        pytest.param(
            ["0::/"], [VERSION_2.format(top="/")], {"memory.max": 5, "memory.current": 9}, 0, id="more than all"
        ),
    ],
)
def test_free_memory_is_what_the_strictest_limit_leaves(machine, groups, mounts, files, free):
    assert quotas.free_memory(machine(groups, mounts, files)) == free


@pytest.mark.parametrize("has_files", [False, True])
def test_without_a_limit_memory_and_cores_are_those_of_the_machine(machine, tmp_path, has_files, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=7 * GIB))
    root = machine(["4:memory:/", "0::/"], [MEMORY_1.format(top="/"), MIXED_2], NONE_1) if has_files else tmp_path
    assert quotas.free_memory(root) == 7 * GIB
    assert quotas.cores(root) == 64


def test_cores_and_free_memory_of_this_machine_are_plausible():
    assert 1 <= quotas.cores() <= 64
    assert 0 < quotas.free_memory() <= psutil.virtual_memory().total
