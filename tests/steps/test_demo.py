"""The page that tries a model, as a person uses it: a real server, real requests, and Chromium."""

import io
import signal
import socket
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests
from PIL import Image

from pictures.browser import CHROMIUM, chromium
from tests.conftest import Workplace

TINY = {"experiment": "none", "limit_train": 200, "limit_test": 20, "width": 4, "batch_size": 32, "max_lr": 0.1}
PHOTO = {"Content-Type": "application/octet-stream"}


def photo(seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A workplace with a training, and the address of its demo, which Ctrl-C ends."""
    place = Workplace(tmp_path_factory.mktemp("demo"))
    assert place.run("train", **TINY, epochs=1) == 0
    place.environment["MLFLOW_TRACKING_URI"] = place.uri
    process = place.start("demo", port=0, device="cpu")
    said = process.stdout.readline()
    yield place, said.split()[1]
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0, process.stderr.read()
    process.stdout.close()
    process.stderr.close()


def test_a_dropped_photo_gets_the_answer_of_predict_and_a_map(served, tmp_path, capsys):
    place, address = served
    (tmp_path / "noise.png").write_bytes(photo())
    assert place.run("predict", tmp_path / "noise.png", precision="fp32", device="cpu") == 0
    predicted = capsys.readouterr().out.partition("noise.png: ")[2]
    said = requests.post(f"{address}answer", data=photo(), headers=PHOTO, timeout=60).json()
    assert predicted.startswith(f"{said['class']} {100 * said['probabilities'][0][1]:.1f} %")
    assert said["probabilities"][0][0] == said["class"] and len(said["probabilities"]) == 5
    assert said["method"] == "gradcam"
    assert said["set"].startswith("For 90 % of photos or more, the class is one of: ")
    assert said["class"] in said["set"].partition(": ")[2].split(", ")
    assert all(said[name].startswith("data:image/png;base64,") for name in ("image", "map"))


def test_only_this_machine_and_this_page_get_answers_and_bad_input_is_one_line(served):
    _, address = served
    port = int(address.rstrip("/").rpartition(":")[2])
    assert address == f"http://127.0.0.1:{port}/"
    with pytest.raises(ConnectionRefusedError):  # the demo listens at 127.0.0.1 alone
        socket.create_connection(("127.0.0.2", port), timeout=5)
    ask = f"{address}answer"
    assert requests.post(ask, data=photo(), headers={**PHOTO, "Host": "evil.example"}, timeout=60).status_code == 400
    assert requests.post(ask, data=photo(), headers={"Content-Type": "text/plain"}, timeout=60).status_code == 415
    assert requests.get(ask, timeout=60).status_code == 405
    for content in (b"", b"no photo", photo()[:200]):
        refused = requests.post(ask, data=content, headers=PHOTO, timeout=60)
        assert refused.status_code == 400 and refused.json()["error"].isprintable()
    assert "default-src 'none'" in requests.get(address, timeout=60).headers["Content-Security-Policy"]


def test_a_port_that_is_taken_is_one_line_and_exit_2(served, capsys):
    place, address = served
    assert place.run("demo", port=address.rstrip("/").rpartition(":")[2]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.startswith("error: port=") and "another demo may run there" in err


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_person_sees_class_probabilities_map_and_errors(served):
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    _, address = served
    errors, hosts = [], set()
    with chromium() as browser:
        page = browser.new_page()
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        page.goto(address)
        page.set_input_files("#photo", {"name": "noise.png", "mimeType": "image/png", "buffer": photo()})
        page.wait_for_selector("#result", state="visible")
        shown = page.inner_text("#class")
        assert page.inner_text("#probabilities dt").strip() == shown
        assert page.locator("#probabilities meter").count() == 5
        assert page.inner_text("#map-caption") == f"What speaks for {shown} (gradcam)"
        assert page.inner_text("#set").startswith("For 90 %")
        assert page.evaluate("document.getElementById('map').naturalWidth") == 32
        assert errors == []
        page.set_input_files("#photo", {"name": "<b>.png", "mimeType": "image/png", "buffer": b"no photo"})
        page.wait_for_selector("#error:not(:empty)")
        assert page.inner_text("#error").startswith("not a JPEG") and page.is_hidden("#result")
    assert hosts <= {"", urlsplit(address).netloc}
