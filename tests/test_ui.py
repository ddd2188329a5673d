"""`make ui` as a person starts it: it answers only on this machine, and shows the results."""

import itertools

import mlflow
import psutil
import pytest
import requests
from PIL import Image

from pictures import browser, gallery, screenshots
from pipeline.history import run_record
from tests.browser import Ui, Window, needs_chromium, window
from tests.conftest import Workplace

TINY = {"experiment": "none", "limit_train": 200, "limit_test": 100, "batch_size": 32}
RESNET = {"model": "resnet18", "width": 4, "max_lr": 0.05, "optimizer": "sgd", "epochs": 2, "num_images": 2}
VIT = {"model": "vit", "dim": 24, "depth": 1, "heads": 2, "epochs": 2, "study_name": "patches", "num_trials": 2}
SPACE = '{"max_lr": {"low": 1e-3, "high": 1e-2}, "patch_size": [8, 16]}'
RUNS = "#/experiments/0/runs?workflowType=machine_learning"
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """A workplace with an experiment, a sweep, and a run with a hostile name."""
    place = Workplace(tmp_path_factory.mktemp("workplace"))
    assert place.run("main", **TINY, **RESNET, steps="train,evaluate,explain") == 0
    assert place.run("sweep", **TINY, **VIT, space=SPACE) == 0
    run = place.client.create_run("0", run_name=HOSTILE, tags={"step": "other", "dataset": HOSTILE})
    place.client.set_terminated(run.info.run_id)
    return place


@pytest.fixture(scope="module")
def ui(experiment):
    with Ui(experiment) as ui:
        yield ui


@pytest.fixture
def view(ui):
    """A browser window on the UI. It must have no faults at the end."""
    with window(ui.url) as view:
        yield view
        assert view.complaints == []


def run_of(place: Workplace, step: str):
    return place.runs(step)[0]


def address(place: Workplace, step: str, page: str = "") -> str:
    """The page of the only run of `step`."""
    return RUNS.replace("runs", f"runs/{run_of(place, step).info.run_id}{page}")


def test_the_ui_listens_only_on_loopback(ui):
    listening = {
        connection.laddr.ip
        for child in psutil.Process(ui.process.pid).children(recursive=True)
        for connection in child.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert "MLflow" in requests.get(ui.url, timeout=5).text
    assert listening == {"127.0.0.1"}


@needs_chromium
@pytest.mark.browser
def test_the_list_of_runs_has_results_in_the_layout_for_training(view: Window, experiment):
    accuracy = run_of(experiment, "main").data.metrics["test/accuracy"]
    view.open(RUNS, f"digits resnet18 test {accuracy:.2%}", "patches valid/accuracy", HOSTILE)
    view.sees("Image classifiers")
    assert view.page.get_by_text("Prompts").count() == 0
    view.follow("results")
    view.sees("test/accuracy", str(accuracy)[:6], "1 matching run")


@needs_chromium
@pytest.mark.browser
def test_an_experiment_has_the_result_of_each_step_with_a_link(view: Window, experiment):
    training = run_of(experiment, "train")
    view.open(address(experiment, "main"), "Evaluation", "95 % interval", "Explanation")
    assert view.page.get_by_text("process.pid").count() == 0
    view.follow("Training")
    view.sees(f"runs:/{training.info.run_id}/model", "weights/best_epoch")


@needs_chromium
@pytest.mark.browser
def test_a_training_shows_accuracy_and_loss_first_and_the_best_epoch_last(view: Window, experiment):
    view.open(address(experiment, "train", "/model-metrics"), "weights", "Step")
    lines = view.page.inner_text("body").splitlines()
    groups = [line for line, count in itertools.pairwise(lines) if count.startswith("(")]
    assert groups == ["train", "valid", "weights", "Model metrics"]


@needs_chromium
@pytest.mark.browser
def test_the_curves_of_train_and_valid_are_in_one_chart(view: Window):
    view.open(f"{RUNS}&viewStateShareKey=curves&compareRunsMode=CHART", "train/loss vs valid/loss")
    view.sees("train/accuracy vs valid/accuracy", "1 matching run")


@needs_chromium
@pytest.mark.browser
def test_a_sweep_has_a_link_to_the_comparison_of_its_trials(view: Window, experiment):
    view.open(address(experiment, "sweep"), "was the best")
    view.follow("compare all trials")
    view.sees("Parallel Coordinates", "patch_size", "train/loss vs valid/loss", "2 matching runs")


@needs_chromium
@pytest.mark.browser
def test_models_are_ranked_by_their_accuracy_on_their_images(ui, experiment):
    accuracy = run_of(experiment, "evaluate").data.metrics["test/accuracy"]
    with window(ui.url, width=4000) as view:
        view.open(RUNS.replace("runs", "models"), "test/accuracy", "valid/accuracy", str(accuracy)[:6], "digits")
        assert view.complaints == []


@pytest.mark.slow
@needs_chromium
@pytest.mark.browser
def test_screenshots_show_stored_runs(ui, experiment, tmp_path, monkeypatch):
    monkeypatch.setattr(screenshots, "SETTLE_MS", 500)
    mlflow.set_tracking_uri(ui.url)
    try:
        made = screenshots.make(tmp_path)
        record = run_record.read(run_of(experiment, "main").info.run_id)
    finally:
        mlflow.set_tracking_uri(None)
    assert {path.stem for path in made} == {path.stem for path in screenshots.FOLDER.glob("*.png")}
    for path in made:
        assert path.stat().st_size < browser.MAX_BYTES
        with Image.open(path) as picture:
            assert picture.width in (1400, 1200, 360) and len(picture.convert("RGB").getcolors()) > 30
    with browser.chromium() as chromium:
        picture, result = gallery._picture_and_result(chromium, record)
    assert f"{experiment.runs('main')[0].data.metrics['test/accuracy']:.2%}".replace("%", " %") in result
    assert browser.keep(picture, tmp_path / "gallery.png") <= browser.MAX_BYTES
