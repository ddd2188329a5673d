"""Each worker has its own GPU, and large tensors reuse the memory of earlier ones."""

import platform
import subprocess
import sys

import pytest
import torch

from benchmarks.synthetic import splits
from pipeline import models
from pipeline.data import quotas
from pipeline.params import LadderParams, TrainParams
from pipeline.training import device
from pipeline.training.range_test import climb
from pipeline.training.recipe import Recipe
from tests.conftest import PROJECT

# Prints page faults of using and freeing blocks of 64 MB, over and over.
USE = """
import resource, sys, torch
from pipeline.training import device
if sys.argv[1] == "kept":
    device.choose("cpu")
def use():
    for _ in range(20):
        torch.ones(2**24)
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str) -> int:
    words = [sys.executable, "-c", USE, how]
    done = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives large blocks back each time")
def test_on_the_cpu_large_tensors_reuse_memory():
    assert page_faults("kept") < 20 < page_faults("as it is")


@pytest.fixture
def three_gpus(monkeypatch):
    """Makes torch report three GPUs. Returns a list of those that became the current one."""
    current = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    return current


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ("auto", ["cuda:0", "cuda:1", "cuda:2", "cuda:0"]),
        ("cuda", ["cuda:0", "cuda:1", "cuda:2", "cuda:0"]),
        ("cuda:1", ["cuda:1"] * 4),
        ("cpu", ["cpu"] * 4),
    ],
)
def test_workers_have_a_gpu_each_in_turn(three_gpus, asked, given):
    assert [device.of_worker(asked, number) for number in range(4)] == given


@pytest.mark.parametrize("num_gpus", [0, 1])
def test_workers_of_one_device_share_it(monkeypatch, num_gpus):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: num_gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    assert [device.of_worker("auto", number) for number in range(3)] == ["auto"] * 3


def test_one_of_several_gpus_becomes_the_current_one(three_gpus):
    assert [device.choose(name) for name in ("auto", "cuda:2", "cpu")] == [
        torch.device(name) for name in ("cuda", "cuda:2", "cpu")
    ]
    assert three_gpus == [torch.device("cuda:2")]


def test_no_gpu_but_the_one_in_use_is_asked_for_its_random_state(monkeypatch):
    asked, put_back = [], []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(
        torch.cuda, "get_rng_state", lambda gpu: asked.append(gpu) or torch.zeros(16, dtype=torch.uint8)
    )
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, gpu: put_back.append(gpu))
    with device.random_state_kept(torch.device("cuda:1")):
        pass
    assert asked == put_back == [torch.device("cuda:1")]
    params = TrainParams(model="resnet9", width=4, batch_size=16)
    on_the_cpu = Recipe(params, splits(64), torch.device("cpu"), "fp32")
    climb(on_the_cpu.ladder(LadderParams(ladder_steps=20), 0), 20)
    assert len(asked) == 1


@pytest.mark.parametrize(("granted", "asked", "threads"), [(1, None, 1), (8, None, 2), (1, "2", 2)])
def test_no_more_threads_compute_than_cores_are_granted(monkeypatch, granted, asked, threads):
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS")
    if asked:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    monkeypatch.setattr(quotas, "cores", lambda: granted)
    torch.set_num_threads(2)
    try:
        device.choose("cpu")
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("name", "is_faster"),
    [("mobilenet_v2", True), ("timm/test_efficientnet", True), ("resnet9", False), ("timm/test_convnext", False)],
)
def test_a_cpu_trains_networks_of_depthwise_convolutions_and_batch_norms_in_fp32(name, is_faster):
    model = models.outline(name, num_classes=2, image_size=64)
    assert device.trains_faster_in_fp32(model, torch.device("cpu")) == is_faster
    assert not device.trains_faster_in_fp32(model, torch.device("cuda"))
