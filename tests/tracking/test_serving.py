"""The model behind MLflow's own server: whatever body comes, it answers with a reason and goes on."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import numpy as np
import pytest
import requests
import torch

from pipeline import models
from pipeline.tracking import checkpoint
from pipeline.tracking.sending import PACKAGE, SERVING
from pipeline.tracking.serving import MAX_IMAGES
from tests.conftest import Workplace

SIZE = 8
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 3, SIZE, SIZE)).tolist()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A small classifier as MLflow keeps it."""
    folder = tmp_path_factory.mktemp("served")
    torch.manual_seed(0)
    described = {
        "network": {"name": "resnet18", "options": {"width": 4}},
        "image_size": SIZE,
        "classes": ["a", "b", "c"],
    }
    state = models.build("resnet18", num_classes=3, image_size=SIZE, width=4).state_dict()
    checkpoint.save(folder / "w.safetensors", state, {**described, "mean": [0.5] * 3, "std": [0.25] * 3})
    mlflow.pyfunc.save_model(
        str(folder / "model"),
        python_model=str(SERVING),
        artifacts={"weights": str(folder / "w.safetensors")},
        code_paths=[str(PACKAGE)],
        pip_requirements=["mlflow"],
        signature=mlflow.models.ModelSignature(
            mlflow.types.Schema([mlflow.types.TensorSpec(np.dtype(np.uint8), (-1, 3, SIZE, SIZE))])
        ),
        input_example=np.array(IMAGES, dtype=np.uint8),
    )
    return folder / "model"


@pytest.fixture(scope="module")
def server(saved, tmp_path_factory):
    """`mlflow models serve` of it, under way: its address."""
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
    """Whether a good body is, and with a row per image."""
    answer = post(server, json.dumps({"inputs": IMAGES}))
    rows = answer.json()["predictions"]
    return answer.status_code == 200 and len(rows) == 2 and all(row["class"] in "abc" for row in rows)


def of(images):
    return json.dumps({"inputs": images})


def with_pixel(value):
    """Good images but for one pixel."""
    images = json.loads(json.dumps(IMAGES))
    images[0][0][0][0] = value
    return of(images)


BODIES = {
    "nothing": ("", "JSON"),
    "no JSON": ("hello", "JSON"),
    "half of JSON": (of(IMAGES)[:-9], "JSON"),
    "no text": (b"\xff\xfe", "JSON"),
    "a list": ("[]", "JSON dictionary"),
    "null": ("null", "JSON dictionary"),
    "another key": (json.dumps({"images": IMAGES}), "exactly one of the input fields"),
    "two keys": (json.dumps({"inputs": IMAGES, "instances": IMAGES}), "exactly one of the input fields"),
    "no images": (of([]), "Failed to enforce schema"),
    "another size": (of(np.ones((1, 3, 4, 4), dtype=int).tolist()), "does not match expected shape (-1, 3, 8, 8)"),
    "one image alone": (of(IMAGES[0]), "does not match expected shape (-1, 3, 8, 8)"),
    "a number": (of(3), "does not match expected shape (-1, 3, 8, 8)"),
    "text": (of("abc"), "Failed to convert data"),
    "a mapping": (of({"a": IMAGES}), "expects a single n-dimensional array"),
    "ragged": (of([[[[1, 2], [3]]]]), "inhomogeneous"),
    "nested 900 deep": ('{"inputs": ' + 900 * "[" + 900 * "]" + "}", "JSON"),
    "a table": (json.dumps({"dataframe_split": {"columns": ["a"], "data": [[1]]}}), "Failed to enforce schema"),
    "256": (with_pixel(256), "256 out of bounds for uint8"),
    "-1": (with_pixel(-1), "-1 out of bounds for uint8"),
    "300.5": (with_pixel(300.5), "out of bounds for uint8"),
    "NaN": (with_pixel(float("nan")), "cannot convert float NaN"),
    "infinite": (with_pixel(float("inf")), "cannot convert float infinity"),
    "10**30": (with_pixel(10**30), "too large"),
    "a word": (with_pixel("x"), "invalid literal"),
    "none": (with_pixel(None), "NoneType"),
    "fractions": (of((np.array(IMAGES) / 255).tolist()), "no fractions"),
    "too many images": (of(np.full((MAX_IMAGES + 1, 3, SIZE, SIZE), 9).tolist()), f"send at most {MAX_IMAGES}"),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_bad_body_is_refused_with_a_reason_and_the_next_one_answered(server, name):
    body, reason = BODIES[name]
    answer = post(server, body)
    assert 400 <= answer.status_code < 500
    assert reason in answer.json()["message"]
    assert "Traceback" not in answer.text
    assert is_answered(server)


@pytest.mark.parametrize("content_type", ["text/plain", "", "application/json; charset=latin1", "application/x-pickle"])
def test_another_type_is_refused_with_a_reason(server, content_type):
    answer = post(server, of(IMAGES), content_type)
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
def test_what_a_proxy_is_to_keep_out_leaves_the_server_alive(server, body, content_type):
    assert post(server, body, content_type).status_code in (400, 500)
    assert is_answered(server)


def test_as_many_images_as_are_allowed_are_answered(server):
    answer = post(server, of(np.full((MAX_IMAGES, 3, SIZE, SIZE), 9).tolist()))
    assert len(answer.json()["predictions"]) == MAX_IMAGES


def test_in_python_any_number_is_taken_and_any_brightness(saved):
    loaded = mlflow.pyfunc.load_model(str(saved))
    assert len(loaded.predict(np.zeros((MAX_IMAGES + 1, 3, SIZE, SIZE), dtype=np.uint8))) == MAX_IMAGES + 1
    with pytest.raises(mlflow.exceptions.MlflowException, match="dtype of input float64"):
        loaded.predict(np.zeros((1, 3, SIZE, SIZE)))
