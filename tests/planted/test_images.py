"""Planted images, in the cache or in place of a named set, are not used, and no code in them runs."""

import json
import shutil
import urllib.error

import numpy as np
import pytest

from pipeline.data import cache
from tests.planted.ground import DEEP, TINY, Payload


def cache_entry(ground):
    """The folder of the cached images."""
    (found,) = (path for path in (ground.workplace.folder / "cache" / "classifier-pipeline").iterdir() if path.is_dir())
    return found


def object_array_file(ground, folder):
    """An .npy file of objects, which NumPy pickles."""

    np.save(folder / "objects.npy", np.array([Payload(ground.marker)] * 3, dtype=object), allow_pickle=True)
    return (folder / "objects.npy").read_bytes()


def npz_file(folder):
    """An archive of arrays, where a single array is expected."""
    np.savez(folder / "some.npz", images=np.zeros(3))
    return (folder / "some.npz").read_bytes()


def npy_header(shape, descr="|u1"):
    """The header of an .npy file without the array that it promises."""
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


@pytest.mark.parametrize("file", ["images.npy", "moments.npy", "set.json"])
def test_hostile_cached_images_are_not_used_but_decoded_again(ground, trained, capsys, tmp_path, file):
    path = cache_entry(ground) / file
    whole = path.read_bytes()
    hostile = [ground.pickle, object_array_file(ground, tmp_path), npz_file(tmp_path), DEEP, b"", b"{}", b"[]"]
    hostile += [
        npy_header((10**12, 3, 32, 32)),
        npy_header((1797, 2, 3), "<i8"),
        npy_header("(" * 3000),
        npy_header((-1,), "|O"),
    ]
    fields = json.loads((cache_entry(ground) / "set.json").read_text())
    for wrong in (
        {"labels": [10**9] * 1797},
        {"labels": [-1] * 1797},
        {"labels": [10**30] * 1797},
        {"parts": [7] * 1797},
        {"names": ["../../x"]},
        {"classes": 3},
        {"digest": None},
        {"corrupt": [1]},
        {"labels": fields["labels"][::-1]},
        {"classes": fields["classes"][::-1]},
        {"names": fields["names"][::-1]},
    ):
        hostile.append(json.dumps({**fields, **wrong}).encode())
    for content in hostile if file != "set.json" else [*hostile, b"\xff"]:
        path.write_bytes(content)
        with ground.untouched(), pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", ground.workplace.environment["XDG_CACHE_HOME"])
            assert cache.find(cache_entry(ground).name) is None
    capsys.readouterr()
    with ground.untouched():
        assert ground.workplace.run("evaluate", run_id=trained) == 0
    assert "decoding again" in capsys.readouterr().err
    assert path.read_bytes() == whole


@pytest.mark.parametrize("text", ["../../x", "/etc", "..", "", "a/b", "a\x00b", "é", "x" * 5000])
def test_a_cached_key_that_leads_elsewhere_is_ignored(ground, tmp_path, monkeypatch, text):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "deep" / "cache"))
    cache.folder().mkdir(parents=True)
    fields = {"labels": [0], "parts": [0], "names": ["a"], "classes": ["x"], "digest": "d", "corrupt": []}
    with cache.Writer("key", 8) as writer:
        writer.append(np.zeros((1, 3, 8, 8), dtype=np.uint8))
        writer.commit(fields)
    shutil.copytree(cache.folder() / "key", tmp_path / "deep" / "x")
    cache.remember("manifest", "key")
    assert cache.recall("manifest") is not None
    (cache.folder() / "manifest.key").write_text(text)
    assert cache.recall("manifest") is None


@pytest.mark.parametrize(
    ("dataset", "files"),
    [
        ("cifar10", ["cifar-10-batches-py/data_batch_1", "cifar-10-batches-py/batches.meta", "cifar-10-python.tar.gz"]),
        ("cifar100", ["cifar-100-python/train", "cifar-100-python/meta", "cifar-100-python.tar.gz"]),
        ("mnist", ["MNIST/processed/training.pt", "MNIST/processed/test.pt"]),
        (
            "fashion_mnist",
            [
                f"FashionMNIST/raw/{part}-ubyte"
                for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
            ],
        ),
        ("svhn", ["train_32x32.mat", "test_32x32.mat"]),
    ],
)
def test_a_named_set_whose_files_are_pickles_is_refused(ground, capsys, monkeypatch, dataset, files):
    def closed(*_, **__):
        raise urllib.error.URLError("network is unreachable")

    monkeypatch.setattr("urllib.request.urlopen", closed)
    for file in files:
        path = ground.workplace.folder / "sets" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(ground.pickle)
    line = ground.refused(capsys, "train", **TINY, dataset=dataset, data_dir="sets")
    assert "is not on this disk and cannot be fetched" in line
