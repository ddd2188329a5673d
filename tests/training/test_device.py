"""Devices are chosen because they work; workers share them, and large tensors reuse the memory of earlier ones."""

import platform
import re
import subprocess
import sys

import pytest
import torch

from benchmarks.synthetic import splits
from pipeline import models
from pipeline.data import quotas
from pipeline.params import DeviceParams, LadderParams, TrainParams
from pipeline.training import device, range_test
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


@pytest.mark.slow
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
    monkeypatch.setattr(device, "why_unusable", lambda name: "")
    return current


def test_auto_takes_the_first_device_that_runs_a_kernel_and_says_why(three_gpus, monkeypatch):
    too_old = {"cuda": "no kernel image is available", "cuda:0": "no kernel image is available"}
    monkeypatch.setattr(device, "why_unusable", lambda name: too_old.get(name, ""))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda where: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda where: (7, 5))
    where = device.choose("auto")
    assert where == torch.device("cuda:1")
    assert device.chosen(DeviceParams(), where, "fp16") == (
        "device cuda:1 (Tesla T4), fp16: cuda cannot be used: no kernel image is available; capability 7.5 has fp16, "
        "not bf16"
    )
    slow = device.chosen(DeviceParams(device="cuda:1", precision="bf16"), where, "bf16")
    assert slow.endswith("bf16 was asked for, which this hardware does slowly (precision=fp16 is faster)")
    with pytest.raises(ValueError, match=r"device=cuda:0: cannot be used .no kernel image is available.; device=auto"):
        device.choose("cuda:0")


def test_on_a_mac_the_line_says_why_its_gpu_is_not_used_or_why_it_computes_in_fp32(monkeypatch):
    monkeypatch.setattr(device, "available", lambda: ["mps", "cpu"])
    line = device.chosen(DeviceParams(), torch.device("cpu"), "fp32")
    assert line.startswith("device cpu, fp32: mps cannot be used: ")
    line = device.chosen(DeviceParams(), torch.device("mps"), "fp32")
    assert line == "device mps, fp32: on mps, other number formats have not been tried"


def test_without_a_gpu_the_line_gives_the_reason_that_torch_gives():
    where = device.choose("auto")
    line = device.chosen(DeviceParams(), where, device.choose_precision("auto", where))
    assert re.fullmatch(r"device cpu, (bf16|fp32): no GPU \(\w[\w ]+\); this processor has (bf16|only fp32)", line), (
        line
    )


@pytest.mark.parametrize(
    ("capability", "precision"), [((6, 1), "fp32"), ((7, 5), "fp16"), ((8, 0), "bf16"), ((12, 0), "bf16")]
)
def test_the_automatic_precision_is_one_that_the_chosen_gpu_has_in_hardware(monkeypatch, capability, precision):
    capabilities = {torch.device("cuda:1"): capability}  # no other GPU is asked
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda where: capabilities[where])
    assert device.choose_precision("auto", torch.device("cuda:1")) == precision


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: out of memory",
        "MPS backend out of memory (MPS allocated: 17.9 GB, max allowed: 18.1 GB)",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "GET was unable to find an engine to execute this computation",
        "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory",
    ],
)
def test_the_out_of_memory_messages_of_every_device_are_recognised(message):
    assert device.is_out_of_memory(RuntimeError(message))
    assert not device.is_out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ("auto", ["cuda:0", "cuda:1", "cuda:2", "cuda:0"]),
        ("cuda", ["cuda:0", "cuda:1", "cuda:2", "cuda:0"]),
        ("cuda:1", ["cuda:1"] * 4),
        ("cpu", ["cpu"] * 4),
    ],
)
def test_workers_get_the_gpus_in_turn(three_gpus, asked, given):
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


def test_only_the_gpu_in_use_is_asked_for_its_random_state(monkeypatch):
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
    climb(range_test.training(on_the_cpu, LadderParams(ladder_steps=20), 0), 20)
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
