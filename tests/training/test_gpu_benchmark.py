"""The checks for a graphics card run on the CPU at tiny size; without a card, the command says so in one line."""

import json
import os
import subprocess
import sys

import pytest
import torch

from benchmarks import gpu, gpu_checks
from benchmarks.gpu_checks import Row, Scale
from tests.conftest import PROJECT

CPU = torch.device("cpu")
TINY = Scale(
    batches=(8,),
    updates=2,
    modes=("eager",),
    sizes={"width": 4, "dim": 12, "depth": 1, "heads": 3, "batch_size": 4},
)


@pytest.mark.parametrize("name", ["waits", pytest.param("formats", marks=pytest.mark.slow), "maps"])
def test_a_check_is_met_on_the_cpu_itself(name):
    rows = list(gpu_checks.IN_PROCESS[name](CPU, TINY))
    assert rows
    for row in rows:
        assert row.is_met, row


def test_speed_is_measured_for_every_network_until_the_time_is_over():
    rows = list(gpu_checks.speed(CPU, TINY))
    assert [row.what.partition(",")[0] for row in rows[:4]] == ["resnet18", "resnet9", "fast", "vit"]
    assert all(float(row.value.replace(",", "")) > 0 for row in rows)
    assert [row.is_met for row in rows[4:]] == [False] * 3  # the goals are of a graphics card
    late = list(gpu_checks.speed(CPU, Scale(batches=(8,), modes=("eager",), until=0)))
    assert {row.value for row in late} == {"not measured: no time was left"}


def test_a_wait_for_the_device_is_reported_as_not_met(monkeypatch):
    def wait(where, forbidden):
        if forbidden:
            raise RuntimeError("called a synchronizing CUDA operation\nand more")

    monkeypatch.setattr(gpu_checks, "_forbid_waits", wait)
    assert [row[1:] for row in gpu_checks.waits(CPU, TINY)] == [
        ("called a synchronizing CUDA operation", "none", False)
    ] * 4


def test_the_table_and_the_json_have_every_row(tmp_path):
    rows = [Row("losses", "1e-3", "<= 1e-2", True), Row("waits", "a | b", "none", False), Row("speed", "3")]
    gpu.write(rows, tmp_path)
    assert (tmp_path / "gpu.md").read_text().splitlines()[4:] == [
        "| losses | 1e-3 | <= 1e-2 | yes |",
        "| waits | a / b | none | NO |",
        "| speed | 3 |  |  |",
    ]
    assert [Row(**row) for row in json.loads((tmp_path / "gpu.json").read_text())["rows"]] == rows


@pytest.mark.slow
def test_without_a_card_there_is_one_line_and_status_2():
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu"], cwd=PROJECT, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: no graphics card can be used: ")
    assert done.stdout == ""
