"""Trains several seeds under one run, and compares two recipes on the same test images."""

from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest

from pipeline.tracking.run import Run
from tests.conftest import Workplace
from tests.report.reader import Page

TINY = {"experiment": "none", "limit_train": 200, "limit_test": 80, "batch_size": 32, "width": 4, "optimizer": "sgd"}
TINY |= {"max_lr": 0.1, "epochs": 3}
TWICE = {**TINY, "num_seeds": 2, "steps": "train,evaluate"}


class Series(Workplace):
    """A workplace that reads a run's tables and report, and the runs below another run, oldest first."""

    def table(self, run_id, name):
        return pd.read_csv(self.client.download_artifacts(run_id, name, str(self.folder)))

    def below(self, parent, step):
        found = [run for run in self.runs(step) if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
        return found[::-1]

    def report(self, run):
        assert self.run("report", run_id=run.info.run_id) == 0
        file = self.client.download_artifacts(run.info.run_id, "report.html", str(self.folder))
        return Page(Path(file).read_text("utf-8"))

    def compare(self, *runs, **params):
        return self.run("compare", runs=",".join(runs), **params)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """Two recipes, each trained and evaluated with two seeds."""
    place = Series(tmp_path_factory.mktemp("workplace"))
    assert place.run("main", **TWICE) == 0
    assert place.run("main", **{**TWICE, "epochs": 2, "max_lr": 0.02}) == 0
    return place


@pytest.fixture(scope="module")
def parents(workplace):
    return workplace.runs("main")[::-1]


@pytest.fixture(scope="module")
def pair(workplace, parents):
    """One evaluation of each recipe."""
    return [workplace.below(parent, "evaluate")[0] for parent in parents]


@pytest.fixture(scope="module")
def compared(workplace, pair):
    """The comparison of a training with an evaluation; a training stands for its evaluation."""
    one, other = pair
    assert workplace.run("evaluate", run_id=one.data.tags["train.run_id"], checkpoint="last") == 0
    assert workplace.compare(one.data.tags["train.run_id"], other.info.run_id, num_images=2) == 0
    return workplace.runs("compare")[0]


def test_seeds_are_trained_one_after_the_other_and_their_parent_has_mean_and_spread(workplace, parents):
    parent = parents[0]
    trainings = workplace.below(parent, "train")
    *evaluations, _ = workplace.below(parent, "evaluate")  # the last one is of the ensemble
    assert [run.data.params["seed"] for run in trainings] == ["0", "1"]
    assert [run.data.tags["train.run_id"] for run in evaluations] == [run.info.run_id for run in trainings]
    accuracies = [run.data.metrics["test/accuracy"] for run in evaluations]
    assert parent.data.metrics["test/accuracy"] == pytest.approx(np.mean(accuracies))
    assert parent.data.metrics["test/accuracy_sd"] == pytest.approx(np.std(accuracies, ddof=1))
    assert "test/accuracy_low" not in parent.data.metrics
    table = workplace.table(parent.info.run_id, "seeds.csv")
    assert table["seed"].tolist() == [0, 1]
    assert table["test/accuracy"].tolist() == pytest.approx(accuracies)
    assert f"2 seeds, test accuracy {np.mean(accuracies):.2%} (sd " in parent.data.tags["mlflow.note.content"]


@pytest.mark.parametrize("step", ["main", "seeds"])
def test_the_report_of_several_seeds_shows_mean_and_spread_and_the_first_training(workplace, parents, step):
    if step == "seeds":
        assert workplace.run("train", **{**TINY, "epochs": 1, "num_seeds": 2}) == 0
    parent = parents[0] if step == "main" else workplace.runs("seeds")[0]
    page = workplace.report(parent)
    name = {"main": "test/accuracy", "seeds": "weights/best_valid_accuracy"}[step]
    numbers = {source: float(value) for source, value, _ in page.numbers}
    assert numbers[f"{step}/{name}"] == parent.data.metrics[name]
    assert numbers[f"{step}/{name}_sd"] == parent.data.metrics[f"{name}_sd"]
    assert numbers.get("main/ensemble/accuracy") == parent.data.metrics.get("ensemble/accuracy")
    (table,) = (table for table in page.tables if table.source == f"{step}/seeds.csv")
    stored = workplace.table(parent.info.run_id, "seeds.csv")
    assert [float(value) for _, value in table.rows[1][1:]] == stored[table.columns[1:]].iloc[0].tolist()
    assert [text for text, _ in (row[0] for row in table.rows[1:])] == ["0", "1"]
    training = workplace.below(parent, "train")[0]
    assert training.data.params["seed"] == "0" and f"train {training.info.run_id}" in " ".join(page.text.split())
    assert "-e train -P experiment=none" in page.text if step == "seeds" else "mlflow run . -P" in page.text


def test_the_numbers_of_a_comparison_agree_with_the_predictions(workplace, pair, compared):
    tables = [workplace.table(run.info.run_id, "predictions.csv") for run in pair]
    right = [(table["true"] == table["predicted"]).to_numpy() for table in tables]
    only_a, only_b = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    numbers = compared.data.metrics
    assert (numbers["compare/B/only_A"], numbers["compare/B/only_B"]) == (only_a, only_b)
    assert numbers["compare/B/p_value"] == pytest.approx(binomtest(only_a, only_a + only_b).pvalue)
    difference = right[1].mean() - right[0].mean()
    assert numbers["compare/B/difference"] == pytest.approx(difference)
    assert numbers["compare/B/over_images_low"] < difference < numbers["compare/B/over_images_high"]
    note = compared.data.tags["mlflow.note.content"]
    assert f"{100 * difference:+.2f} points" in note
    assert "A: epochs=3 max_lr=0.1" in note
    per_class = workplace.table(compared.info.run_id, "per_class_B.csv")
    assert per_class["images"].sum() == 80
    assert (per_class["difference"] * per_class["images"]).sum() == pytest.approx(80 * difference)


def test_a_comparison_logs_its_tables_and_figures(workplace, pair, compared):
    assert {
        "arms.csv",
        "parameters.csv",
        "calibration.csv",
        "calibration.png",
        "curves.png",
        "per_class_B.csv",
        "mcnemar_B.csv",
        "disagreements_B.png",
    } <= workplace.artifacts(compared.info.run_id)
    parameters = workplace.table(compared.info.run_id, "parameters.csv").set_index("parameter")
    assert parameters.index.tolist() == ["epochs", "max_lr"]
    assert parameters.loc["max_lr"].astype(float).tolist() == [0.1, 0.02]
    arms = workplace.table(compared.info.run_id, "arms.csv")
    assert arms["evaluation"].tolist() == [run.info.run_id for run in pair]  # not the newer one of the last weights
    assert arms["accuracy"].tolist() == pytest.approx([run.data.metrics["test/accuracy"] for run in pair])
    bins = workplace.table(compared.info.run_id, "calibration.csv")
    assert bins.groupby("arm")["count"].sum().to_dict() == {"A": 80, "B": 80}


def test_seeds_of_one_recipe_are_one_arm(workplace, parents, capsys):
    assert workplace.compare(*(parent.info.run_id for parent in parents), num_images=0) == 0
    run = workplace.runs("compare")[0]
    numbers = run.data.metrics
    means = [parent.data.metrics["test/accuracy"] for parent in parents]
    assert [numbers["compare/A/accuracy"], numbers["compare/B/accuracy"]] == pytest.approx(means)
    assert numbers["compare/B/over_seeds_low"] < numbers["compare/B/difference"] < numbers["compare/B/over_seeds_high"]
    assert numbers["compare/B/detectable"] > 0
    assert "compare/B/p_value" not in numbers
    assert len(workplace.table(run.info.run_id, "mcnemar_B.csv")) == 4
    assert "(mean of 2 seeds)" in capsys.readouterr().err


def dark_and_light(folder):
    """Images of two classes in `folder`, and the recipe of a training on them."""
    draw = np.random.default_rng(0)
    for part, count in (("train", 20), ("test", 10)):
        for label, name in enumerate(("dark", "light")):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 128, (16, 16, 3), dtype=np.uint8) + 127 * label
                Image.fromarray(pixels.astype(np.uint8)).save(folder / part / name / f"{number}.png")
    images = {"dataset": "folder", "data_dir": folder, "image_size": 16, "limit_train": 0, "limit_test": 0}
    return {**TINY, **images, "steps": "train,evaluate", "batch_size": 8, "epochs": 1}


def test_versions_of_labels_are_compared_on_the_test_images_that_both_share(workplace, tmp_path, capsys):
    recipe = dark_and_light(tmp_path)
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.png"))
    rows = [[path.as_posix(), path.parts[1], path.parts[0], ""] for path in files]
    changed = {
        "train/dark/0.png": ["light", ""],
        "train/light/1.png": ["light", "yes"],
        "test/dark/2.png": ["light", ""],
        "test/dark/3.png": ["dark", "1"],
    }
    corrected = [[row[0], changed.get(row[0], [row[1]])[0], row[2], changed.get(row[0], ["", ""])[1]] for row in rows]
    for name, table in (("first.csv", rows), ("second.csv", corrected)):
        columns = ["path", "label", "split", "exclude"]
        pd.DataFrame(table, columns=columns).to_csv(tmp_path / name, index=False)
        assert workplace.run("main", **recipe, labels=name) == 0
    after, before = workplace.runs("main")[:2]
    capsys.readouterr()
    assert workplace.compare(before.info.run_id, after.info.run_id, num_images=2) == 0
    said = capsys.readouterr().err
    shared = (
        "compared on the 18 that all share under the same label; left out: 1 with another label, 1 that not all have"
    )
    assert shared in said and "on 18 test images" in said
    assert "labels of B against A (label_changes_B.csv): 2 changed, 2 photos excluded, 0 added" in said
    run = workplace.runs("compare")[0]
    table = workplace.table(run.info.run_id, "label_changes_B.csv").fillna("").set_index("file")
    assert table.loc["train/dark/0.png"].tolist() == ["dark", "light", False]
    assert table.loc["test/dark/3.png"].tolist() == ["dark", "", True]
    assert {*table.index} == {*changed}
    assert workplace.table(run.info.run_id, "parameters.csv")["parameter"].tolist() == ["data.digest", "labels"]
    assert workplace.table(run.info.run_id, "calibration.csv").groupby("arm")["count"].sum().tolist() == [18, 18]
    both = [
        workplace.table(workplace.below(each, "evaluate")[0].info.run_id, "predictions.csv") for each in (before, after)
    ]
    both = [table[~table["name"].isin(["test/dark/2.png", "test/dark/3.png"])] for table in both]
    right = [(table["true"] == table["predicted"]).mean() for table in both]
    assert workplace.table(run.info.run_id, "arms.csv")["accuracy"].tolist() == pytest.approx(right)


@pytest.mark.slow
def test_a_comparison_without_the_images_gives_its_verdict_but_no_sheet(workplace, tmp_path, capsys):
    recipe = dark_and_light(tmp_path)
    for lr in (0.1, 1e-9):  # one that learns, one that does not, so that they differ
        assert workplace.run("main", **{**recipe, "epochs": 15, "max_lr": lr}) == 0
    (tmp_path / "train/dark/0.png").unlink()
    ignorant, learned = workplace.runs("main")[:2]
    assert workplace.compare(learned.info.run_id, ignorant.info.run_id) == 0
    err = capsys.readouterr().err
    assert f"no sheet of disagreements: the images in {tmp_path} are not the images" in err
    assert "on 20 test images" in err and "network A is better" in err


def test_a_series_of_two_seeds_alone_compares_its_two_networks(workplace, parents):
    assert workplace.compare(parents[0].info.run_id, num_images=0) == 0
    run = workplace.runs("compare")[0]
    assert "compare/B/p_value" in run.data.metrics
    assert workplace.table(run.info.run_id, "parameters.csv")["parameter"].tolist() == ["seed"]


def test_the_ensemble_of_the_seeds_is_measured_beside_its_networks(workplace, parents, tmp_path):
    parent = parents[0]
    trainings, (ensemble,) = workplace.below(parent, "train"), workplace.below(parent, "ensemble")
    *alone, together = workplace.below(parent, "evaluate")
    assert together.data.tags["train.run_id"] == parent.data.tags["ensemble.run_id"] == ensemble.info.run_id
    table = workplace.table(together.info.run_id, "members.csv").set_index("network")
    assert table.index.tolist() == ["ensemble", *(run.info.run_id for run in trainings)]
    for name, run in zip(table.index, [together, *alone], strict=True):
        logged = [run.data.metrics[f"test/{each}"] for each in ("accuracy", "loss", "ece")]
        assert table.loc[name, ["accuracy", "loss", "ece"]].tolist() == pytest.approx(logged, rel=1e-5)
    assert table["parameters"]["ensemble"] == table["parameters"].iloc[1:].sum()
    assert table["seconds_per_image"].min() > 0
    mean, reached = table["accuracy"].iloc[1:].mean(), table["accuracy"]["ensemble"]
    assert together.data.metrics["ensemble/gain"] == pytest.approx(reached - mean)
    assert parent.data.metrics["ensemble/accuracy"] == reached
    assert workplace.run("report", run_id=together.info.run_id) == 0
    report = Path(workplace.client.download_artifacts(together.info.run_id, "report.html", str(tmp_path))).read_text()
    (shown,) = [each for each in Page(report).tables if each.source == "evaluate/members.csv"]
    assert [row[0][0] for row in shown.rows[1:]] == table.index.tolist()
    note = parent.data.tags["mlflow.note.content"]
    assert f"Ensemble: 2 networks together, test accuracy {reached:.2%} (" in note
    assert f"one network {mean:.2%} on average; 2 times the cost" in note


def test_export_and_predict_take_the_ensemble_if_run_id_is_the_run_of_the_seeds(workplace, parents, tmp_path, capsys):
    parent = parents[0].info.run_id
    (ensemble,) = workplace.below(parents[0], "ensemble")
    assert workplace.run("export", run_id=parent, format="torch_export") == 0
    exported = workplace.runs("export")[0]
    assert exported.data.tags["train.run_id"] == ensemble.info.run_id
    file = workplace.client.download_artifacts(exported.info.run_id, "model.pt2", str(tmp_path))
    images = np.random.default_rng(0).integers(0, 256, (7, 3, 32, 32), dtype=np.uint8)
    probabilities, *_ = torch.export.load(file).module()(torch.from_numpy(images))
    mlflow.set_tracking_uri(workplace.uri)
    served = mlflow.pyfunc.load_model(f"models:/{ensemble.outputs.model_outputs[0].model_id}").predict(images)
    mlflow.set_tracking_uri(None)
    np.testing.assert_allclose(probabilities.detach(), served.filter(like="p/"), atol=1e-5)
    Image.fromarray(images[0].transpose(1, 2, 0)).save(tmp_path / "x.png")
    assert workplace.run("predict", tmp_path / "x.png", run_id=parent) == 0
    answer = served.iloc[0]
    assert f"x.png: {answer['class']} {100 * answer.filter(like='p/').max():.1f} %" in capsys.readouterr().out


def test_an_ensemble_is_compared_with_one_of_its_networks(workplace, parents, capsys):
    training, ensemble = (workplace.below(parents[0], step)[0].info.run_id for step in ("train", "ensemble"))
    assert workplace.compare(training, ensemble, num_images=2) == 0
    said = capsys.readouterr().err
    assert "A: networks=1" in said and "B: networks=2" in said and "McNemar's exact p" in said


def test_what_an_ensemble_cannot_do_is_refused_in_one_line(workplace, parents, capsys):
    parent = parents[1].info.run_id
    (ensemble,) = workplace.below(parents[1], "ensemble")
    wrong = [
        ("evaluate", {"run_id": parent, "checkpoint": "last"}, "an ensemble has only the best weights of its members"),
        (
            "train",
            {**TINY, "weights": f"run:{ensemble.info.run_id}"},
            "is an ensemble of 2 networks; start from one of",
        ),
        ("explain", {"run_id": parent}, "is FAILED, not FINISHED: its ensemble is made after the last seed"),
    ]
    for step, params, reason in wrong:
        if step == "explain":
            workplace.client.set_terminated(parent, "FAILED")
        capsys.readouterr()
        assert workplace.run(step, **params) == 2
        assert reason in capsys.readouterr().err.splitlines()[-1]
    workplace.client.set_terminated(parent, "FINISHED")
    workplace.client.delete_tag(parent, "ensemble.run_id")
    assert workplace.run("evaluate", run_id=parent) == 2
    assert "is of an earlier version, without an ensemble" in capsys.readouterr().err


def message(workplace, capsys, *runs):
    """The one line that says why a comparison is refused."""
    capsys.readouterr()
    assert workplace.compare(*runs) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_runs_that_cannot_be_compared_are_refused_in_one_line(workplace, parents, pair, capsys, tmp_path):
    first, second = (run.info.run_id for run in pair)
    count = len(workplace.runs("compare"))
    assert workplace.run("train", **{**TINY, "image_size": 16, "epochs": 1}) == 0
    other = workplace.runs("train")[0].info.run_id
    assert message(workplace, capsys, first, other) == (
        f"error: training {other} has no evaluation; create one with: python -m pipeline evaluate --run_id {other}"
    )
    assert workplace.run("evaluate") == 0
    assert "are of different test images" in message(workplace, capsys, first, other)
    assert "is named more than once" in message(workplace, capsys, first, pair[0].data.tags["train.run_id"])
    assert "nothing to compare it with" in message(workplace, capsys, first)
    again = workplace.below(parents[0], "evaluate")[1]
    assert workplace.run("evaluate", run_id=again.data.tags["train.run_id"]) == 0
    twice = [again.info.run_id, workplace.runs("evaluate")[0].info.run_id]
    assert f"evaluations {twice[0]} and {twice[1]} have" in message(workplace, capsys, first, *twice, second)
    assert "no such run" in message(workplace, capsys, first, "0" * 32)
    assert "should be the id of a run, or at least its first 4 char" in message(workplace, capsys, first, "../../x")
    table = Path(workplace.client.download_artifacts(first, "predictions.csv", str(tmp_path)))
    for content in (
        "name,true\n",
        "\x00",
        table.read_text().replace("confidence", "true", 1),
        table.read_text()[:-900],
    ):
        table.write_text(content)
        workplace.client.log_artifact(second, str(table))
        assert "predictions.csv" in message(workplace, capsys, first, second)
    assert len(workplace.runs("compare")) == count


@pytest.mark.parametrize("step", ["train", pytest.param("main", marks=pytest.mark.slow)])
def test_an_interrupted_series_continues_with_the_seed_that_was_interrupted(tmp_path, monkeypatch, capsys, step):
    place = Series(tmp_path)
    params = {**TINY, "num_seeds": 2} | ({"steps": "train"} if step == "main" else {})

    def stop(self, event, beside=None, record=Run.record):
        record(self, event, beside)
        if event.epoch == 2 and len(place.runs("train")) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "record", stop)
        assert place.run(step, **params) == 130
    second, first = (run.info for run in place.runs("train"))
    assert (first.status, second.status) == ("FINISHED", "KILLED")
    assert place.run(step, resume="latest", num_seeds=3) == 2
    assert "num_seeds=3 was 2" in capsys.readouterr().err
    assert place.run(step, resume="latest") == 0
    assert f"train, seed 0: not run again, run {first.run_id}" in capsys.readouterr().err
    assert [run.info.run_id for run in place.runs("train")] == [second.run_id, first.run_id]
    (parent,) = place.runs("main" if step == "main" else "seeds")
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["weights/best_valid_accuracy_sd"] >= 0
    assert len(place.table(parent.info.run_id, "seeds.csv")) == 2


@pytest.mark.slow
def test_the_report_of_a_series_shows_a_first_seed_that_had_to_start_again(tmp_path, monkeypatch):
    place = Series(tmp_path)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "dataset", stop)  # before a state is kept
        assert place.run("train", **{**TINY, "epochs": 1, "num_seeds": 2}) == 130
    assert place.run("train", resume="latest") == 0
    (parent,) = place.runs("seeds")
    killed, first, _ = place.below(parent, "train")
    assert (killed.info.status, first.info.status, first.data.params["seed"]) == ("KILLED", "FINISHED", "0")
    page = place.report(parent)
    assert "training" in {attributes["id"] for tag, attributes in page.tags if tag == "section"}
    assert f"train {first.info.run_id}" in " ".join(page.text.split())
