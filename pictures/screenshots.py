"""python -m pictures.screenshots [experiment [sweep]]   writes docs/screenshots: MLflow's UI, and a report

`experiment` and `sweep` are ids of finished runs in the store in use. By default they are the newest ones.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import requests

from pictures.browser import LOOK_MS, chromium, keep, status
from pipeline.history import run_record
from pipeline.report import page as report
from pipeline.tracking import store, views

if TYPE_CHECKING:
    from mlflow.entities import Run
    from playwright.sync_api import Browser, Page

PROJECT = Path(__file__).resolve().parent.parent
FOLDER = PROJECT / "docs" / "screenshots"
START_SECONDS = 90
SETTLE_MS = 2500  # time for charts to stop moving
UI_SIZE = (1400, 800)  # px
REPORTS: dict[str, tuple[Literal["light", "dark"], int]] = {  # for each picture: colours, and width in px
    "report": ("light", 1200),
    "report_dark": ("dark", 1200),
    "report_360px": ("light", 360),
}
REPORT_HEIGHT = 1500  # px
# Simulates a second visit: on the first one, MLflow's assistant covers a quarter of the page.
SECOND_VISIT = "if (location.host) localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"


def make(folder: Path = FOLDER, asked: Sequence[str] = ()) -> list[Path]:
    """Makes all pictures and returns their paths. Raises ValueError if Chromium or a finished run is missing."""
    with chromium() as browser:
        named = dict(zip(("main", "sweep"), asked, strict=False))
        experiment, study = _finished("main", named, "train.run_id"), _finished("sweep", named)
        pictures = list(_report_pictures(browser, experiment.info.run_id))
        with _ui() as url:
            pictures += _ui_pictures(browser, url, experiment, study)
    return [_written(folder / f"{name}.png", content) for name, content in pictures]


def _finished(step: str, named: Mapping[str, str], tag: str = "") -> "Run":
    """The finished run of `step` that `named` gives, or the newest one. If `tag` is given, the run must have it."""
    for run in store.finished_runs(step):
        if named.get(step, run.info.run_id) == run.info.run_id and (not tag or tag in run.data.tags):
            return run
    if step in named:
        raise ValueError(f"{named[step]} is no finished {step} in {store.uri()}{' with a training' if tag else ''}")
    command = {"main": "make run", "sweep": "mlflow run . -P experiment=experiments/sweep_vit.yaml"}[step]
    raise ValueError(f"{store.uri()} holds no finished {step}{' with a training' if tag else ''}: {command}")


def _report_pictures(browser: "Browser", run_id: str) -> Iterator[tuple[str, bytes]]:
    """(name, picture) of the report in light and dark colours, and in the width of a phone."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.html"
        file.write_text(report.build(run_record.read(run_id)), encoding="utf-8")
        for name, (scheme, width) in REPORTS.items():
            context = browser.new_context(viewport={"width": width, "height": REPORT_HEIGHT}, color_scheme=scheme)
            page = context.new_page()
            page.goto(file.as_uri())
            page.locator(".chart svg").first.wait_for()
            yield name, page.screenshot()
            context.close()


def _ui_pictures(browser: "Browser", url: str, experiment: "Run", study: "Run") -> Iterator[tuple[str, bytes]]:
    """(name, picture) of the pages of the UI at `url`: runs, a training, its curves, and a sweep."""
    width, height = UI_SIZE
    context = browser.new_context(viewport={"width": width, "height": height})
    context.set_default_timeout(LOOK_MS)
    context.add_init_script(SECOND_VISIT)
    page, place, key = context.new_page(), experiment.info.experiment_id, study.info.run_id
    training = experiment.data.tags["train.run_id"]
    charts = f"{url}#/experiments/{place}/runs?{views.LAYOUT}&compareRunsMode=CHART&viewStateShareKey="
    yield "runs", _seen(page, url + views.link(place, views.RESULTS), "test/accuracy")
    metrics = views.run_link(place, training).replace(training, f"{training}/model-metrics")
    yield "training", _seen(page, url + metrics, "valid/accuracy")
    yield "curves", _seen(page, charts + views.CURVES, "train/loss vs valid/loss")
    yield "sweep", _seen(page, charts + key, "Parallel Coordinates")
    context.close()


def _seen(page: "Page", address: str, text: str) -> bytes:
    """A picture of the page at `address`, taken when it shows `text`."""
    page.goto("about:blank")  # otherwise a change only after the # loads nothing
    page.goto(address)
    page.get_by_text(text).first.wait_for()
    page.wait_for_timeout(SETTLE_MS)
    return page.screenshot()


@contextlib.contextmanager
def _ui() -> Iterator[str]:
    """The address of a UI for the store in use: the store's own if it is a server, else one that `make ui` starts."""
    if store.uri().startswith("http"):
        yield f"{store.uri().rstrip('/')}/"
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        ["make", "--assume-old", ".venv/installed", "ui", f"PORT={port}"],
        cwd=PROJECT,
        env={**os.environ, "MLFLOW_BACKEND_STORE_URI": store.uri(), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        url = f"http://127.0.0.1:{port}/"
        _wait(lambda: requests.get(url, timeout=5).ok)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def _wait(is_there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(requests.RequestException):
            if is_there():
                return
        time.sleep(0.3)
    raise ValueError(f"MLflow's UI did not answer within {START_SECONDS} s")


def _written(path: Path, picture: bytes) -> Path:
    size = keep(picture, path)
    print(f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}: {size / 1000:.0f} kB")
    return path


if __name__ == "__main__":
    sys.exit(status(lambda: make(asked=sys.argv[1:])))
