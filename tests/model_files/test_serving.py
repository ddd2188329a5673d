"""The model in MLflow's own server: it answers every bad request with a reason and continues."""

import base64
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import requests
import torch
from PIL import Image

from pipeline import models
from pipeline.data.decoder import decode
from pipeline.model_files import checkpoint
from pipeline.model_files.serving import MAX_IMAGES
from pipeline.tracking import lifecycle
from tests.conftest import Workplace
from tests.data import heics
from tests.data.jpegs import jpeg

SIZE = 8
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 3, SIZE, SIZE)).tolist()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A small classifier, logged in MLflow as by a training."""
    folder = tmp_path_factory.mktemp("served")
    torch.manual_seed(0)
    described = {
        "network": {"name": "resnet18", "options": {"width": 4}},
        "image_size": SIZE,
        "resize": "squash",
        "interpolation": "bilinear",
        "margin": 1,
        "classes": ["a", "b", "c"],
    }
    state = models.build("resnet18", num_classes=3, image_size=SIZE, width=4).state_dict()
    checkpoint.save(folder / "w.safetensors", state, {**described, "mean": [0.5] * 3, "std": [0.25] * 3})
    place = Workplace(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", place.environment["XDG_STATE_HOME"])
        mlflow.set_tracking_uri(place.uri)
        with lifecycle.start("train", "served") as run:
            run.model(folder / "w.safetensors", np.array(IMAGES, dtype=np.uint8), epoch=1)
        mlflow.set_tracking_uri(None)
    (output,) = place.client.get_run(run.id).outputs.model_outputs
    return Path(place.client.get_logged_model(output.model_id).artifact_location)


@pytest.fixture(scope="module")
def server(saved, tmp_path_factory):
    """The address of a running `mlflow models serve` of the classifier."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("server")
    command = ["mlflow", "models", "serve", "-m", str(saved), "--env-manager", "local", "--port", str(port)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / command[0]), *command[1:], "--workers", "1"],
            env=Workplace(folder).environment,
            cwd=folder,
            stdout=log,
            stderr=log,
            process_group=0,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(url, process, folder / "log")
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def wait_for(url, process, log):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if requests.get(f"{url}/ping", timeout=5).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.3)
    raise AssertionError(log.read_text())


def post(server, body, content_type="application/json"):
    return requests.post(f"{server}/invocations", data=body, headers={"Content-Type": content_type}, timeout=60)


def is_answered(server):
    """Whether the server answers a good request, with one row per image."""
    answer = post(server, json.dumps({"inputs": IMAGES}))
    rows = answer.json()["predictions"]
    return answer.status_code == 200 and len(rows) == 2 and all(row["class"] in "abc" for row in rows)


def images_body(images):
    """The body of a request with the numbers of images."""
    return json.dumps({"inputs": images})


def with_pixel(value):
    """Good images, except for one pixel."""
    images = json.loads(json.dumps(IMAGES))
    images[0][0][0][0] = value
    return images_body(images)


def photo(suffix="jpg", height=30, width=40, **options):
    """The bytes of an image file."""
    draw = np.random.default_rng(height * width)
    file = io.BytesIO()
    Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(file, FORMATS[suffix], **options)
    return file.getvalue()


FORMATS = {
    **{"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "bmp": "BMP", "gif": "GIF"},
    **{"tiff": "TIFF", "avif": "AVIF", "mpo": "MPO", "ppm": "PPM"},
}


def as_base64(content):
    return base64.b64encode(content).decode()


def records(*cells):
    """The body of a request with a table of image files."""
    return json.dumps({"dataframe_records": [{"image": cell} for cell in cells]})


def bomb():
    """A PNG file of 200 bytes that claims a billion pixels."""
    content = bytearray(photo("png"))
    content[16:24] = struct.pack(">II", 2**15, 2**15)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def blank(side):
    """A grey PNG file of a few KB."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(side * (1 + -(-side // 8))), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


BODIES = {
    "nothing": ("", "JSON"),
    "no JSON": ("hello", "JSON"),
    "half of JSON": (images_body(IMAGES)[:-9], "JSON"),
    "no text": (b"\xff\xfe", "JSON"),
    "a list": ("[]", "JSON dictionary"),
    "null": ("null", "JSON dictionary"),
    "another key": (json.dumps({"images": IMAGES}), "exactly one of the input fields"),
    "two keys": (json.dumps({"inputs": IMAGES, "instances": IMAGES}), "exactly one of the input fields"),
    "a key of chats": (json.dumps({"input": "hello"}), "send images (N, 3, H, W) as numbers, or a table"),
    "no images": (images_body([]), "send images (N, 3, H, W) as numbers, or a table"),
    "another size": (images_body(np.ones((1, 3, 4, 4), dtype=int).tolist()), "(N, 3, 8, 8), not (1, 3, 4, 4)"),
    "one image alone": (images_body(IMAGES[0]), "(N, 3, 8, 8), not (3, 8, 8)"),
    "a number": (images_body(3), "(N, 3, 8, 8), not ()"),
    "text": (images_body("abc"), "(N, 3, 8, 8), not ()"),
    "a mapping": (images_body({"a": IMAGES}), "send images (N, 3, H, W) as numbers, or a table"),
    "ragged": (images_body([[[[1, 2], [3]]]]), "inhomogeneous"),
    "nested 900 deep": ('{"inputs": ' + 900 * "[" + 900 * "]" + "}", "JSON"),
    "256": (with_pixel(256), "whole numbers from 0 to 255, not 256"),
    "-1": (with_pixel(-1), "whole numbers from 0 to 255, not -1"),
    "300.5": (with_pixel(300.5), "whole numbers from 0 to 255, not 300.5"),
    "NaN": (with_pixel(float("nan")), "whole numbers from 0 to 255, not nan"),
    "infinite": (with_pixel(float("inf")), "whole numbers from 0 to 255, not inf"),
    "10**30": (with_pixel(10**30), "whole numbers from 0 to 255, not object"),
    "a word": (with_pixel("x"), "whole numbers from 0 to 255, not <U"),
    "none": (with_pixel(None), "whole numbers from 0 to 255, not object"),
    "fractions": (images_body((np.array(IMAGES) / 255).tolist()), "whole numbers from 0 to 255, not 0."),
    "black and white in fractions": (images_body(np.ones((1, 3, SIZE, SIZE)).tolist()), "not fractions"),
    "another precision": (json.dumps({"inputs": IMAGES, "params": {"precision": "int8"}}), "fp32 or bf16, not int8"),
    "too many images": (
        images_body(np.full((MAX_IMAGES + 1, 3, SIZE, SIZE), 9).tolist()),
        f"send at most {MAX_IMAGES}",
    ),
    "a table of no images": (json.dumps({"dataframe_split": {"columns": ["a"], "data": [[1]]}}), "found columns [a]"),
    "a column too many": (json.dumps({"dataframe_records": [{"image": "", "x": 1}]}), "found columns [image, x]"),
    "a column twice": (
        json.dumps({"dataframe_split": {"columns": ["image", "image"], "data": [["", ""]]}}),
        "found columns [image, image]",
    ),
    "a column of commands": (json.dumps({"dataframe_records": [{"\x1b[2J": ""}]}), r"found columns [\x1b[2J]"),
    "a table without rows": (json.dumps({"dataframe_split": {"columns": ["image"], "data": []}}), "at least one row"),
    "records of nothing": (records(), "at least one row"),
    "too many rows": (records(*[""] * (MAX_IMAGES + 1)), f"send at most {MAX_IMAGES}"),
    "no base64": (records(as_base64(photo()), "{no!}"), "image 2 of 2: not base64"),
    "half a byte": (records("abcde"), "image 1 of 1: not base64"),
    "letters that are not ASCII": (records("ééé"), "image 1 of 1: not base64"),
    "a number as file": (records(3), "send base64 text, not int"),
    "no file": (records(None), "send base64 text, not"),
    "an empty file": (records(""), "image 1 of 1: not a JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF or HEIC image"),
    "no image": (
        records(as_base64(b"<script>")),
        "image 1 of 1: not a JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF or HEIC image",
    ),
    "another format": (records(as_base64(photo("ppm"))), "not a JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF or HEIC image"),
    "half a photo": (records(as_base64(photo()[:600])), "runcated"),
    "a bomb": (records(as_base64(bomb())), "more than 134,217,728 pixels"),
    "a photo of 300 scans": (records(as_base64(jpeg(11_584, 300))), "image 1 of 1: 101 scans or more"),
    "many large photos": (
        records(*[as_base64(photo()), *[as_base64(blank(11_584))] * 600]),
        "the first 6 of 601 images hold more than",
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_bad_request_is_refused_with_a_reason_and_the_next_one_is_answered(server, name):
    body, reason = BODIES[name]
    answer = post(server, body)
    assert 400 <= answer.status_code < 500
    assert reason in answer.json()["message"]
    assert "Traceback" not in answer.text
    assert is_answered(server)


@pytest.mark.parametrize("content_type", ["text/plain", "", "application/json; charset=latin1", "application/x-pickle"])
def test_another_content_type_is_refused_with_a_reason(server, content_type):
    answer = post(server, images_body(IMAGES), content_type)
    assert answer.status_code == 415
    assert "supports" in answer.text
    assert is_answered(server)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("[" * 100_000, "application/json"),
        ('{"inputs": ' + "9" * 5000 + "}", "application/json"),
        ("a\n1\n", "text/csv"),
        (b"PAR1", "application/vnd.apache.parquet"),
    ],
)
def test_the_server_survives_requests_that_a_proxy_should_block(server, body, content_type):
    assert post(server, body, content_type).status_code in (400, 500)
    assert is_answered(server)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "gif", "tiff", "avif", "mpo", "heic"])
def test_photos_of_any_size_give_the_same_answer_as_their_pixels(server, suffix, tmp_path):
    telephones = [heics.PLAIN, heics.TURNED]
    contents = telephones if suffix == "heic" else [photo(suffix, 30, 40), photo(suffix, 100, 50)]
    pixels = [decode(io.BytesIO(content), SIZE + 2, "squash", "bilinear")[:, 1:-1, 1:-1] for content in contents]
    answer = post(server, records(*map(as_base64, contents)))
    assert answer.status_code == 200, answer.text
    assert answer.json() == post(server, images_body(np.stack(pixels).tolist())).json()
    split = {"columns": ["image"], "data": [[as_base64(content)] for content in contents]}
    assert post(server, json.dumps({"dataframe_split": split})).json() == answer.json()


def test_a_photo_sent_by_curl_is_answered(server, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(photo(height=600, width=800))
    line = (
        """printf '{"dataframe_records": [{"image": "%s"}]}' "$(base64 < photo.jpg | tr -d '\\n')" |"""
        f""" curl --silent --header 'Content-Type: application/json' --data @- {server}/invocations"""
    )
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    (row,) = json.loads(done.stdout)["predictions"]
    assert row["class"] in "abc" and sum(row[f"p/{name}"] for name in "abc") == pytest.approx(1)


def test_base64_with_line_breaks_is_read(server):
    assert post(server, records(base64.encodebytes(photo()).decode())).status_code == 200


def test_a_black_image_and_whole_numbers_as_floats_are_answered(server):
    assert post(server, images_body(np.zeros((1, 3, SIZE, SIZE), dtype=int).tolist())).status_code == 200
    floats = post(server, images_body(np.array(IMAGES, dtype=float).tolist()))
    assert floats.json() == post(server, images_body(IMAGES)).json()


def test_the_server_answers_the_models_example(server, saved):
    answer = post(server, (saved / "serving_input_example.json").read_text())
    assert len(answer.json()["predictions"]) == len(IMAGES)


def test_the_largest_allowed_number_of_images_is_answered(server):
    answer = post(server, images_body(np.full((MAX_IMAGES, 3, SIZE, SIZE), 9).tolist()))
    assert len(answer.json()["predictions"]) == MAX_IMAGES


def test_a_photo_is_answered_while_another_request_decodes_many(server):
    with ThreadPoolExecutor() as threads:
        slow = threads.submit(post, server, records(*[as_base64(jpeg(8000, 40))] * 8))
        time.sleep(0.5)
        assert post(server, records(as_base64(photo()))).status_code == 200
        assert not slow.done()
        assert slow.result().status_code == 200


def test_the_model_loaded_in_python_accepts_any_number_of_images_dark_ones_and_plain_bytes(saved):
    loaded = mlflow.pyfunc.load_model(str(saved))
    assert len(loaded.predict(np.zeros((MAX_IMAGES + 1, 3, SIZE, SIZE), dtype=np.uint8))) == MAX_IMAGES + 1
    with pytest.raises(mlflow.exceptions.MlflowException, match="not fractions"):
        loaded.predict(np.zeros((1, 3, SIZE, SIZE)))
    as_bytes, as_text = (loaded.predict(pd.DataFrame({"image": [cell]})) for cell in (photo(), as_base64(photo())))
    assert as_bytes.equals(as_text)


def test_unreadable_photos_get_a_row_if_the_request_allows_them(saved, server):
    loaded, sent = (
        mlflow.pyfunc.load_model(str(saved)),
        pd.DataFrame({"image": [photo(), b"no photo", None, photo("png")]}),
    )
    table = loaded.predict(sent, params={"allow_unreadable": True})
    alone = loaded.predict(sent.iloc[[0, 3]])
    pd.testing.assert_frame_equal(table.iloc[[0, 3]].reset_index(drop=True), alone)
    assert (table.loc[[1, 2], "class"] == "").all()
    assert table.loc[[1, 2], ["p/a", "p/b", "p/c"]].eq(0).all(axis=None)
    asked = {"dataframe_records": [{"image": as_base64(b"no photo")}], "params": {"allow_unreadable": True}}
    assert post(server, json.dumps(asked)).json()["predictions"] == [{"class": "", "p/a": 0, "p/b": 0, "p/c": 0}]


def test_a_request_chooses_the_precision(saved):
    loaded, images = mlflow.pyfunc.load_model(str(saved)), np.array(IMAGES, dtype=np.uint8)
    usual, fast = (
        loaded.predict(images, params={"precision": each})[["p/a", "p/b", "p/c"]] for each in ("fp32", "bf16")
    )
    assert 0 < np.abs(usual - fast).max(axis=None) < 0.02
