"""A process is looked up by its number if that is possible here; otherwise its signs of life decide if it is dead."""

import json
import shutil
import subprocess
import sys
import time

import psutil
import pytest

from pipeline.tracking import processes
from tests.conftest import PROJECT

OTHER = "pid:[1]"
UNSHARE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]


def described(seen, **changes):
    """This process, last seen `seen` seconds ago, with some values from another process."""
    return {**processes.this(), "process.seen": f"{time.time() - seen:.0f}", **changes}


def of_another_boot(process):
    return {"process.started": f"another-boot {process['process.started'].rpartition(' ')[2]}"}


@pytest.mark.parametrize("pid", ["0", "own"])
@pytest.mark.parametrize(
    "changes",
    [{"process.host": "elsewhere"}, of_another_boot(processes.this()), {processes.NAMESPACE: OTHER}],
    ids=["host", "boot", "namespace"],
)
def test_a_process_elsewhere_is_dead_once_it_is_silent(changes, pid):
    changes = changes | ({"process.pid": pid} if pid != "own" else {})
    assert not processes.is_here(described(0, **changes))
    assert not processes.is_dead(described(0, **changes))
    assert processes.is_dead(described(processes.SILENT_SECONDS + 1, **changes))
    assert "s without a sign" in processes.in_words(described(0, **changes))


@pytest.mark.parametrize("name", [processes.NAMESPACE, "process.started"])
def test_a_process_described_by_an_earlier_version_counts_as_one_here(name):
    process = described(processes.SILENT_SECONDS + 1)
    if name == processes.NAMESPACE:
        process.pop(processes.NAMESPACE, None)
    else:
        process["process.started"] = str(psutil.Process().create_time())
    assert processes.is_here(process)
    assert not processes.is_dead(process)
    assert processes.is_dead({**process, "process.pid": "0"})


def test_a_container_does_not_take_a_process_outside_for_dead():
    if (
        shutil.which("unshare") is None
        or subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("this machine does not allow new namespaces of process numbers")
    look = "import json, sys; from pipeline.tracking import processes; process = json.loads(sys.argv[1]); "
    look += "print(processes.is_here(process), processes.is_dead(process), processes.is_dead(processes.this()))"

    def within(seen):
        command = [*UNSHARE, sys.executable, "-c", look, json.dumps(described(seen))]
        return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout.split()

    assert within(0) == ["False", "False", "False"]
    assert within(processes.SILENT_SECONDS + 1) == ["False", "True", "False"]
