"""Large tensors find the memory of those before them, without a visit to the kernel for every page."""

import platform
import subprocess
import sys

import pytest

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
