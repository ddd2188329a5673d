"""Sets with a name: scanned digits, and the sets that torchvision fetches."""

import gzip
import hashlib
import shutil
import struct
import time
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision

from pipeline.data import cache
from tests.data.photos import first_pixels, load


def test_digits_need_no_files(tmp_path: Path) -> None:
    splits = load(tmp_path, "digits", image_size=32, valid_fraction=0.1)
    assert (len(splits.train), len(splits.valid or ()), len(splits.test)) == (1294, 144, 359)
    assert splits.classes == tuple("0123456789") and not splits.flip
    image = splits.train.take(np.arange(100))
    assert image.shape == (100, 3, 32, 32) and image.min() == 0 and image.max() > 250
    assert splits.train.names[0].startswith("train/")
    small = load(tmp_path, "digits")
    assert {*np.unique(small.train.take(np.arange(500)))} == {round(level * 255 / 16) for level in range(17)}


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """A data_dir with the files that torchvision reads, which hold 40 train and 20 test images."""
    raw = tmp_path / "data/MNIST/raw"
    raw.mkdir(parents=True)
    for prefix, count in (("train", 40), ("t10k", 20)):
        images = np.repeat(np.arange(count, dtype=np.uint8), 28 * 28)
        header = struct.pack(">IIII", 0x803, count, 28, 28)
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        labels = (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + labels.tobytes())
    return tmp_path / "data"


def test_a_torchvision_set_on_this_disk_is_read_once_and_then_comes_from_the_cache(mnist: Path) -> None:
    first = load(mnist, "mnist", image_size=32)
    assert (len(first.train), len(first.test)) == (40, 20) and not first.flip
    assert first_pixels(first.test)["test/13"] == (13, 13, 13)
    assert first.test.labels.tolist() == [number % 10 for number in range(20)]
    shutil.rmtree(mnist)
    second = load(mnist, "mnist", image_size=32)
    assert second.digest == first.digest and first_pixels(second.train) == first_pixels(first.train)


@pytest.mark.slow
def test_two_first_starts_fetch_a_set_once(mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archives = {f"{raw.name}.gz": gzip.compress(raw.read_bytes()) for raw in (mnist / "MNIST/raw").iterdir()}
    asked: list[str] = []

    class Slow(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path.lstrip("/"))
            content = archives[asked[-1]]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with suppress(ConnectionError):  # torchvision first looks where an address leads, and reads nothing
                self.wfile.write(content[:20])
                time.sleep(0.1)
                self.wfile.write(content[20:])

        def log_message(self, *_: Any) -> None: ...

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    sums = [(name, hashlib.md5(content).hexdigest()) for name, content in archives.items()]
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", sums)
    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server, ThreadPoolExecutor(3) as pool:
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        pool.submit(server.serve_forever)
        alone = load(tmp_path / "alone", "mnist")
        asked_alone = sorted(asked)
        asked.clear()
        shutil.rmtree(cache.folder())
        both = pool.map(lambda _: load(tmp_path / "both", "mnist"), range(2))
        assert {each.digest for each in both} == {alone.digest}
        server.shutdown()
    assert {*asked_alone} == {*archives} and sorted(asked) == asked_alone


@pytest.mark.parametrize(
    ("name", "archive"),
    [("cifar10", "cifar-10-python.tar.gz"), ("mnist", "MNIST/raw"), ("svhn", "train_32x32.mat")],
)
def test_without_a_network_one_line_says_what_to_do(
    name: str, archive: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("network is unreachable")

    monkeypatch.setattr("urllib.request.urlopen", closed)
    with pytest.raises(ValueError, match="network is unreachable") as refusal:
        load(tmp_path, name)
    message = str(refusal.value)
    assert f"put {archive}" in message and str(tmp_path) in message and "\n" not in message
    assert "dataset=digits" in message and "dataset=folder" in message


def test_an_archive_with_another_checksum_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("network is unreachable")

    monkeypatch.setattr("urllib.request.urlopen", closed)
    monkeypatch.setattr("tarfile.open", pytest.fail)
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"anything")
    with pytest.raises(ValueError, match="cannot be fetched"):
        load(tmp_path, "cifar10")
