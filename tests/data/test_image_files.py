"""Files, folders and globs to predict: which images they name, in which order, and what is left out."""

import os

import numpy as np
import pytest
from PIL import Image

from pipeline.data import folders, image_files
from pipeline.data.decoder import INTERPOLATIONS, RESIZES, decode
from pipeline.text import shown
from tests.data.test_hostile import broken, honest, write_hostile


@pytest.fixture
def photos(tmp_path):
    """Photos in two folders, a link back to the folder above, and other files that are usual in such folders."""
    draw = np.random.default_rng(0)
    for name in ("a/0.jpg", "a/1.PNG", "a/deep/er/2.webp", "b/3.bmp", "b/[4].jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (*draw.integers(9, 40, 2), 3), dtype=np.uint8)).save(path)
    (tmp_path / "photos/a/back").symlink_to(tmp_path / "photos")
    (tmp_path / "photos/b/notes.txt").write_text("not an image")
    (tmp_path / "photos/b/.hidden.jpg").write_text("nor this")
    return tmp_path / "photos"


def names(found, root):
    return [os.path.relpath(path, root) for path in found.paths]


def test_a_folder_is_read_at_any_depth_and_each_folder_once(photos):
    (photos / "mlruns/0").mkdir(parents=True)
    (photos / "mlruns/0/gradcam.png").write_bytes(b"x")
    found = image_files.find([str(photos)])
    assert names(found, photos) == ["a/0.jpg", "a/1.PNG", "a/deep/er/2.webp", "b/3.bmp", "b/[4].jpg"]
    assert +found.skipped == {"hidden": 1, "not an image": 1, "MLflow's own": 1}
    assert [path for path, _ in found.left_out] == [f"{photos}/a/back"]


def test_photos_in_formats_that_are_not_read_are_counted_and_named_if_there_are_no_others(photos):
    (photos / "b/5.CR2").write_bytes(b"x")
    (photos / "c").mkdir()
    (photos / "c/6.dng").write_bytes(b"x")
    expected = {f".{suffix} (not read: convert them to JPEG)": 1 for suffix in ("cr2", "dng")}
    assert image_files.find([str(photos)]).unread == expected
    with pytest.raises(ValueError, match=r"c has no image but 1 \.dng \(not read: convert them to JPEG\)$"):
        image_files.find([str(photos), f"{photos}/c"])


def test_the_reason_why_a_folder_has_no_image_is_not_that_of_an_earlier_folder(photos):
    (photos / "c").mkdir()
    assert image_files.find([str(photos)]).left_out
    with pytest.raises(ValueError, match=r"c has no image$"):
        image_files.find([str(photos), f"{photos}/c"])


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a/*.jpg", ["a/0.jpg"]),
        ("?/*.[jb][pm][gp]", ["a/0.jpg", "b/3.bmp", "b/[4].jpg"]),
        ("**/*.webp", ["a/deep/er/2.webp"]),
        ("b*", ["b/3.bmp", "b/[4].jpg"]),  # a folder, as the shell would have given it
        ("a/deep/**", ["a/deep/er/2.webp"]),
        ("b/[4].jpg", ["b/[4].jpg"]),  # a file of that very name
    ],
)
def test_a_glob_finds_the_files_that_it_matches(photos, pattern, expected):
    assert names(image_files.find([f"{photos}/{pattern}"]), photos) == expected


def test_given_files_are_read_once_in_the_given_order_with_any_suffix(photos, tmp_path, monkeypatch):
    odd = tmp_path / "photo.unknown"
    odd.write_bytes((photos / "a/0.jpg").read_bytes())
    monkeypatch.setenv("HOME", str(tmp_path))
    asked = [str(odd), f"{photos}/b", "~/photos/b/3.bmp", str(odd)]
    assert names(image_files.find(asked), tmp_path) == ["photo.unknown", "photos/b/3.bmp", "photos/b/[4].jpg"]


def test_the_error_names_the_folder_that_was_searched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=rf"^images: {tmp_path}/photos: no such file or folder$"):
        image_files.find(["photos"])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gone.jpg", "no such file or folder"),
        ("*.gif", "no such file or folder"),
        ("x" * 5000, "File name too long"),
        ("a\0b", "null"),
        ("empty", "has no image"),
        ("empty.jpg", "empty"),
        ("pipe.jpg", "a pipe, socket or device"),
        ("loop.jpg", "symbolic links"),
        ("nowhere.jpg", "no such file or folder"),
        ("0.jpg/below", "Not a directory"),
    ],
)
def test_a_path_that_names_no_image_is_refused_with_the_reason(photos, name, reason, monkeypatch):
    monkeypatch.chdir(photos / "a")
    (photos / "a/empty").mkdir()
    (photos / "a/empty.jpg").touch()
    (photos / "a/loop.jpg").symlink_to("loop.jpg")
    (photos / "a/nowhere.jpg").symlink_to("gone.jpg")
    os.mkfifo(photos / "a/pipe.jpg")
    with pytest.raises(ValueError, match=reason):
        image_files.find([str(photos), name])


@pytest.mark.parametrize("copies", [1, 40])  # in this process, and in workers
def test_batches_hold_every_image_in_order_and_name_what_cannot_be_read(photos, tmp_path, copies):
    paths = []
    for copy in range(copies):
        for name in ("a/0.jpg", "b/3.bmp"):
            paths.append(str(photos / name))
        paths.append(str(tmp_path / f"broken{copy}.jpg"))
        (tmp_path / f"broken{copy}.jpg").write_bytes(b"no picture")
    batches = list(image_files.read(paths, 8, 20))
    readable = [path for path in paths if "broken" not in path]
    assert [path for batch in batches for path in batch.paths] == readable
    assert np.array_equal(np.concatenate([batch.images for batch in batches]), [decode(path, 8) for path in readable])
    assert [path for batch in batches for path, _ in batch.left_out] == [path for path in paths if "broken" in path]
    assert all(20 <= len(batch.images) < 20 + folders.FILES_IN_A_BLOCK for batch in batches[:-1])
    assert (len(batches) > 1) == (copies > 1)


def test_a_folder_of_hostile_files_is_read_and_every_broken_file_is_named(tmp_path):
    write_hostile(tmp_path)
    found = image_files.find([str(tmp_path)])
    batches = list(image_files.read(found.paths, 8, 64))
    assert {path for batch in batches for path in batch.paths} == {shown(f"{tmp_path}/{name}") for name in honest()}
    left_out = found.left_out + [each for batch in batches for each in batch.left_out]
    assert {path for path, _ in left_out} == {shown(f"{tmp_path}/bad/{name}") for name in broken()}
    assert all(reason and len(reason.splitlines()) == 1 for _, reason in left_out)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("resize", RESIZES)
def test_images_are_made_square_and_cut_as_those_of_a_training(photos, resize, interpolation):
    path = str(photos / "a/0.jpg")
    (batch,) = image_files.read([path], 8, 4, resize=resize, interpolation=interpolation, margin=2)
    assert np.array_equal(batch.images[0], decode(path, 12, resize, interpolation)[:, 2:10, 2:10])
