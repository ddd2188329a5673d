"""Runs whole experiments in this process: every architecture, a folder of photos, and steps on another run."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from torch.nn.modules.module import register_module_forward_pre_hook

from pipeline.tracking.run import Run
from tests.conftest import Workplace
from tests.report.reader import Page

TINY = {
    "experiment": "none",
    "limit_train": 120,
    "limit_test": 40,
    "batch_size": 32,
    "epochs": 1,
    "max_lr": 0.01,
    "width": 4,
    "dim": 24,
    "depth": 2,
    "heads": 2,
    "num_images": 2,
    "steps": "train,evaluate,explain",
}


@pytest.fixture
def workplace(tmp_path):
    return Workplace(tmp_path)


@pytest.mark.parametrize(
    "model", ["vit", pytest.param("resnet9", marks=pytest.mark.slow), pytest.param("ultimus", marks=pytest.mark.slow)]
)
def test_every_architecture_is_trained_evaluated_and_explained(workplace, model):
    assert (
        workplace.run("main", **TINY, model=model, mixup=0.2, ema_decay=0.9, optimizer="muon", label_smoothing=0.1) == 0
    )
    (training,), (explanation,) = workplace.runs("train"), workplace.runs("explain")
    assert training.data.params["model"] == model
    assert "test/accuracy" in workplace.runs("evaluate")[0].data.metrics
    files = workplace.artifacts(explanation.info.run_id, "explain")
    assert ("explain/attention_correct.png" in files or "explain/attention_misclassified.png" in files) == (
        model == "ultimus"
    )
    metrics, note = explanation.data.metrics, explanation.data.tags["mlflow.note.content"]
    beside = {"random_map", "random_weights"} | ({"attention_rollout", "gradcam"} if model == "vit" else set())
    assert {name for name in metrics if name.startswith("explain/standard_error_")} == {
        f"explain/standard_error_{source}" for source in beside
    }
    method = "attention_relevance" if model == "vit" else "gradcam"
    mean, error = metrics["explain/faithfulness"], metrics["explain/standard_error"]
    assert 0 < error < 1
    assert f"{method} faithfulness {mean:.3f} ± {error:.3f} (random map" in note
    assert {"explain/scores.csv", "explain/randomisation.csv", "explain/randomisation.png"} <= set(files)
    assert 0 <= metrics["explain/agreement"] <= 1 and abs(metrics["explain/randomised_similarity"]) <= 1


@pytest.fixture
def photos(tmp_path):
    """A flat folder of photos in many sizes, with three classes and the other files that such folders contain."""
    draw = np.random.default_rng(0)
    for colour, name in enumerate(["a cat", "$dog", "émeu"]):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for i in range(30):
            pixels = draw.integers(0, 90, (*draw.integers(20, 60, 2), 3), dtype=np.uint8)
            pixels[..., colour] += 150
            Image.fromarray(pixels).save(folder / f"{i}.jpg")
    (tmp_path / "photos" / "a cat" / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    (tmp_path / "photos" / "a cat" / "notes.txt").write_text("not an image")
    (tmp_path / "photos" / ".thumbnails").mkdir()
    return tmp_path / "photos"


def test_a_folder_of_photos_is_trained_on_and_unreadable_files_are_named(workplace, photos, capsys, tmp_path):
    folder = {"dataset": "folder", "data_dir": photos, "limit_train": 0, "limit_test": 0, "batch_size": 8}
    recipe = {"model": "resnet18", "optimizer": "sgd", "max_lr": 0.02, "epochs": 6}
    assert workplace.run("main", **{**TINY, **folder, **recipe}) == 0
    (training,), (evaluation,) = workplace.runs("train"), workplace.runs("evaluate")
    assert evaluation.data.metrics["test/accuracy"] > 0.8
    left_out = workplace.client.download_artifacts(training.info.run_id, "left_out.csv", str(tmp_path))
    assert pd.read_csv(left_out)["file"].tolist() == ["a cat/broken.jpg"]
    assert "1 named in left_out.csv" in training.data.tags["data.left_out"]
    assert "broken.jpg" in capsys.readouterr().err
    table = pd.read_csv(workplace.client.download_artifacts(evaluation.info.run_id, "per_class.csv", str(tmp_path)))
    assert table["class"].tolist() == ["$dog", "a cat", "émeu"]


def test_figures_of_runs_that_are_stored_among_the_photos_are_no_class(photos, tmp_path):
    place = Workplace(photos)
    place.environment |= {name: str(tmp_path / name) for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME")}
    folder = {"dataset": "folder", "data_dir": ".", "image_size": 8, "limit_train": 0, "limit_test": 0}
    assert place.run("main", **{**TINY, **folder, "batch_size": 24, "steps": "train,evaluate"}) == 0
    assert [*photos.glob("mlruns/**/*.png")]
    assert "test/accuracy" in place.runs("evaluate")[0].data.metrics


def test_images_of_a_relative_path_are_found_when_a_later_step_starts_in_another_folder(
    workplace, photos, tmp_path, capsys
):
    folder = {"dataset": "folder", "data_dir": photos.name, "limit_train": 0, "limit_test": 0, "batch_size": 8}
    assert workplace.run("main", **{**TINY, **folder, "steps": "train"}) == 0
    workplace.folder = tmp_path / "elsewhere"
    workplace.folder.mkdir()
    assert workplace.run("evaluate") == 0
    capsys.readouterr()
    assert workplace.run("evaluate", data_dir=photos.name) == 2
    assert f"error: data_dir={workplace.folder}/photos is not a folder" in capsys.readouterr().err


@pytest.fixture
def listed(tmp_path):
    """Photos in one folder, not square, in series of four, with a table of labels. The second class has few photos."""
    draw = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    rows = []
    for i in range(96):
        colour = int(i % 16 >= 12)
        pixels = draw.integers(0, 90, (30, 50, 3), dtype=np.uint8)
        pixels[:, 20:30, colour] += 150
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.jpg")
        rows.append(
            {
                "path": f"{i}.jpg",
                "label": ["=many", "few"][colour],
                "group": f"series {i // 4}",
                "camera": "=A" if i % 2 else "B",
            }
        )
    pd.DataFrame(rows).to_csv(tmp_path / "photos" / "labels.csv", index=False)
    return tmp_path / "photos"


def test_a_table_of_labels_with_groups_is_trained_on_with_weights_crops_and_automatic_augmentation(
    workplace, listed, capsys
):
    folder = {"dataset": "folder", "data_dir": listed, "labels": "labels.csv", "image_size": 24}
    folder |= {"limit_train": 0, "limit_test": 0, "batch_size": 16, "valid_fraction": 0.2}
    recipe = {"crop_area": 0.5, "augment": "trivial", "class_weights": "balanced", "optimizer": "sgd", "max_lr": 0.02}
    recipe |= {"select_by": "balanced_accuracy", "epochs": 8}
    assert workplace.run("main", **{**TINY, **folder, **recipe}) == 0
    (training,), (evaluation,) = workplace.runs("train"), workplace.runs("evaluate")
    history = workplace.client.get_metric_history(training.info.run_id, "valid/balanced_accuracy")
    reached = [point.value for point in history]
    # With so few images, the best epoch is not always the one of the highest accuracy.
    best = int(training.data.metrics["weights/best_epoch"])
    assert training.data.metrics["weights/best_valid_balanced_accuracy"] == reached[best - 1]
    assert "validation images are few" in capsys.readouterr().err
    assert evaluation.data.metrics["test/balanced_accuracy"] > 0.8
    assert (
        f"balanced accuracy {evaluation.data.metrics['test/balanced_accuracy']:.2%}"
        in evaluation.data.tags["mlflow.note.content"]
    )
    numbers, note = evaluation.data.metrics, evaluation.data.tags["mlflow.note.content"]
    assert numbers["test/effective_images"] <= 4 * numbers["test/groups"]
    over = f"{numbers['test/accuracy_over_groups_low']:.2%} to {numbers['test/accuracy_over_groups_high']:.2%}"
    assert f"over {numbers['test/groups']:.0f} groups {over}, as from" in note
    folder = listed.parent / "fetched"
    for run, names in (
        (training, ["splits.csv", "recipe.json"]),
        (
            evaluation,
            ["per_class.csv", "predictions.csv", "slices.csv", "precision_recall.csv", "precision_recall.png"],
        ),
    ):
        for name in names:
            workplace.client.download_artifacts(run.info.run_id, name, str(folder.mkdir(exist_ok=True) or folder))
    table = pd.read_csv(folder / "per_class.csv")
    assert table["class"].tolist() == ["'=many", "few"]
    assert (table["recall_low"] < table["recall_high"]).all() and table["average_precision"].between(0, 1).all()
    assert {"recall_over_groups_low", "precision_over_groups_high"} <= {*table.columns}
    slices = pd.read_csv(folder / "slices.csv")
    assert {*slices["value"]} == {"'=A", "B"}
    predictions = pd.read_csv(folder / "predictions.csv")
    assert slices["images"].sum() == len(predictions)
    assert numbers["test/worst_slice_accuracy"] == slices["accuracy"].min()
    assert predictions["group"].nunique() == numbers["test/groups"]
    assert '"class_weights": "balanced"' in (folder / "recipe.json").read_text()
    # All files are in one part, so a position in it is a position in the sorted names.
    names = sorted(f"{i}.jpg" for i in range(96))
    splits = pd.read_csv(folder / "splits.csv")
    series = splits["index"].map(lambda index: int(names[index].partition(".")[0]) // 4)
    assert splits.groupby(series)["split"].nunique().max() == 1
    assert workplace.run("evaluate", checkpoint="last") == 0
    last = workplace.runs("evaluate")[0].info.run_id
    assert workplace.run("compare", runs=f"{evaluation.info.run_id},{last}", num_images=0) == 0
    compared = workplace.runs("compare")[0]
    assert "compare/B/p_value_over_groups" in compared.data.metrics
    images = f"on {len(predictions)} test images in {numbers['test/groups']:.0f} groups"
    assert images in compared.data.tags["mlflow.note.content"]


# The options of docs/cifar10_fast.md, which follow the speed record for CIFAR-10.
RECORD = {
    "model": "fast",
    "valid_fraction": 0,
    "optimizer": "muon",
    "normalise_weights": "on",
    "bias_lr": 2,
    "norm_momentum": 0.4,
    "flip": "alternate",
    "first_size": 24,
}


def test_the_recipe_of_the_speed_record_learns_and_views_are_reported_beside_the_plain_result(
    workplace, photos, capsys
):
    folder = {"dataset": "folder", "data_dir": photos, "limit_train": 0, "limit_test": 0, "batch_size": 8}
    assert workplace.run("main", **{**TINY, **folder, **RECORD, "epochs": 8, "max_lr": 0.02, "views": 6}) == 0
    (evaluation,) = workplace.runs("evaluate")
    numbers = evaluation.data.metrics
    assert numbers["test/accuracy"] > 0.8
    assert numbers["test/accuracy_6_views_low"] < numbers["test/accuracy_6_views"] > 0.8
    note = evaluation.data.tags["mlflow.note.content"]
    assert f"test accuracy {numbers['test/accuracy']:.2%}" in note
    assert f"6 views of each image: accuracy {numbers['test/accuracy_6_views']:.2%}" in note


@pytest.mark.slow
def test_views_are_reported_for_each_seed_and_for_all(workplace, photos, tmp_path):
    folder = {"dataset": "folder", "data_dir": photos, "limit_train": 0, "limit_test": 0, "batch_size": 8}
    assert workplace.run("main", **{**TINY, **folder, "steps": "train,evaluate", "num_seeds": 2, "views": 2}) == 0
    _, second, first = (run.data.metrics["test/accuracy_2_views"] for run in workplace.runs("evaluate"))
    (parent,) = workplace.runs("main")
    assert parent.data.metrics["test/accuracy_2_views"] == pytest.approx((first + second) / 2)
    assert "test/accuracy_2_views_sd" in parent.data.metrics
    table = pd.read_csv(workplace.client.download_artifacts(parent.info.run_id, "seeds.csv", str(tmp_path)))
    assert table["test/accuracy_2_views"].tolist() == pytest.approx([first, second])


def test_views_are_refused_if_a_mirrored_image_may_be_of_no_class(workplace, capsys):
    assert workplace.run("main", **{**TINY, "steps": "train"}) == 0
    assert workplace.run("evaluate", views=2) == 2
    assert "views=2 is not for digits: a mirrored image may be of no class" in capsys.readouterr().err


def test_views_are_refused_if_the_training_mirrored_no_images(workplace, photos, capsys):
    folder = {**TINY, "dataset": "folder", "data_dir": photos, "limit_train": 0, "limit_test": 0, "batch_size": 8}
    assert workplace.run("main", **{**folder, "steps": "train", "flip": "off"}) == 0
    assert workplace.run("evaluate", views=2) == 2
    assert "views=2 mirrors images" in capsys.readouterr().err


def test_evaluation_refuses_images_that_have_changed_since_the_training(workplace, photos, capsys):
    folder = {**TINY, "dataset": "folder", "data_dir": photos, "limit_train": 0, "limit_test": 0, "batch_size": 8}
    assert workplace.run("main", **{**folder, "steps": "train"}) == 0
    (photos / "a cat" / "0.jpg").unlink()
    capsys.readouterr()
    assert workplace.run("evaluate") == 2
    assert "are not the images that run" in capsys.readouterr().err
    assert workplace.runs("evaluate") == []


def test_evaluate_and_explain_need_a_finished_training(workplace, capsys):
    assert workplace.run("main", **{**TINY, "steps": "train"}) == 0
    parent, training = workplace.runs("main")[0].info.run_id, workplace.runs("train")[0].info.run_id
    assert workplace.run("evaluate", run_id=parent) == 2
    assert "is a run of main; give the id of a finished training" in capsys.readouterr().err
    workplace.client.set_terminated(training, "KILLED")
    assert workplace.run("explain", run_id=training) == 2
    assert "is KILLED, not FINISHED" in capsys.readouterr().err


@pytest.mark.slow
def test_large_images_go_through_the_network_few_at_a_time(workplace):
    large = {"model": "resnet9", "width": 1, "image_size": 256, "precision": "fp32"}
    large |= {"limit_train": 40, "limit_test": 70, "steps": "train"}
    assert workplace.run("main", **{**TINY, **large}) == 0
    at_once = []
    hook = register_module_forward_pre_hook(lambda module, inputs: at_once.append(len(inputs[0])))
    try:
        assert workplace.run("evaluate") == 0
    finally:
        hook.remove()
    assert max(at_once) == 64  # of 70; small ones go 512 at a time


def test_explain_uses_the_given_method_or_refuses_it(workplace, tmp_path, capsys):
    assert workplace.run("main", **{**TINY, "steps": "train"}) == 0
    curves = {}
    for method in ("gradcam", "layercam"):
        assert workplace.run("explain", method=method, num_images=4) == 0
        (run, *_) = workplace.runs("explain")
        path = workplace.client.download_artifacts(run.info.run_id, "explain/faithfulness.csv", str(tmp_path))
        table = pd.read_csv(path)
        assert method in set(table["source"])
        curves[method] = table[table["source"] == method]["confidence"].to_numpy()
    assert not np.allclose(*curves.values())
    explanations = len(workplace.runs("explain"))
    assert workplace.run("explain", method="attention_rollout") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: method=attention_rollout: ResNet18 has no attention from every token to every other")
    assert len(workplace.runs("explain")) == explanations


@pytest.mark.slow
def test_the_served_model_gets_no_numbers_of_the_last_weights_and_a_map_of_one_cell_no_faithfulness(workplace, capsys):
    assert workplace.run("main", **{**TINY, "steps": "train", "image_size": 8}) == 0
    (training,) = workplace.runs("train")
    for step in ("evaluate", "explain"):
        assert workplace.run(step, checkpoint="last") == 0
    assert "has one cell for a whole image of 8 px here" in capsys.readouterr().err
    (explained,), (evaluated,) = workplace.runs("explain"), workplace.runs("evaluate")
    assert set(explained.data.metrics) == {"explain/blank_maps"}
    assert "weights of its last epoch" in evaluated.data.tags["mlflow.note.content"]
    assert workplace.run("evaluate") == 0
    (output,) = training.outputs.model_outputs
    expected = {metric.run_id for metric in workplace.client.get_logged_model(output.model_id).metrics}
    newest = workplace.runs("evaluate")[0].info.run_id
    assert newest in expected and not expected & {explained.info.run_id, evaluated.info.run_id}


def test_a_range_test_of_another_recipe_is_not_used_and_the_message_says_what_differs(workplace, capsys):
    quick = {name: TINY[name] for name in ("experiment", "limit_train", "limit_test", "width")}
    quick |= {"batch_size": 16, "optimizer": "sgd", "lr_rule": "steepest"}
    assert workplace.run("lr_range", **quick, ladder_steps=60, num_repeats=1, weight_decay=0.1) == 0
    capsys.readouterr()
    assert workplace.run("train", **quick, epochs=1) == 0
    err = capsys.readouterr().err
    differing = "weight_decay 0.1 there, 0.0005 here; ladder_steps 60 there, 100 here; num_repeats 1 there, 3 here"
    assert f"is not used, as it is of another recipe, rule or ladder: {differing}\n" in err
    (training,) = workplace.runs("train")
    newest, older = workplace.runs("lr_range")
    assert newest.data.tags["mlflow.parentRunId"] == training.info.run_id
    assert training.data.tags["lr_range.run_id"] == newest.info.run_id != older.info.run_id


@pytest.mark.parametrize(
    "ladder",
    [{"ladder_steps": 20}, {"ladder_max_lr": 1e-4}, {"num_repeats": 1}],
)
@pytest.mark.slow
def test_a_training_ignores_a_range_test_on_another_ladder(workplace, ladder):
    quick = {name: TINY[name] for name in ("experiment", "limit_train", "limit_test", "width")}
    quick |= {"batch_size": 16, "optimizer": "sgd", "lr_rule": "steepest"}
    assert workplace.run("lr_range", **quick, **ladder) == 0
    assert workplace.run("train", **quick, epochs=1) == 0
    own, by_hand = workplace.runs("lr_range")
    assert by_hand.data.tags["recipe"] == own.data.tags["recipe"]
    assert workplace.runs("train")[0].data.tags["lr_range.run_id"] == own.info.run_id


@pytest.mark.slow
@pytest.mark.parametrize("steps", ["lr_range,train", "train"])
def test_the_ladder_of_an_experiment_decides_its_rate(workplace, steps):
    quick = {name: TINY[name] for name in ("experiment", "limit_train", "limit_test", "width")}
    quick |= {"batch_size": 16, "optimizer": "sgd", "lr_rule": "steepest"}
    assert workplace.run("lr_range", **quick, num_repeats=1) == 0
    assert workplace.run("main", **quick, epochs=1, steps=steps, num_seeds=2, ladder_max_lr=5) == 0
    own, _ = workplace.runs("lr_range")
    assert own.data.params["ladder_max_lr"] == "5.0"
    assert {run.data.tags["lr_range.run_id"] for run in workplace.runs("train")} == {own.info.run_id}


def test_a_range_test_without_suggestion_says_its_reason_and_is_not_run_twice(workplace, capsys):
    learns_little = {name: TINY[name] for name in ("experiment", "limit_train", "limit_test", "width")}
    learns_little |= {"batch_size": 16, "optimizer": "sgd", "label_smoothing": 0.95, "lr_rule": "steepest"}
    for _ in range(2):
        assert workplace.run("train", **learns_little, epochs=1) == 2
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith("error: the range test of this recipe has no suggestion (the loss never fell by 5%: ")
        assert last.endswith("): give max_lr")
    (test,) = workplace.runs("lr_range")
    assert test.info.status == "FINISHED"


def test_a_training_without_validation_says_so(workplace, capsys):
    assert (
        workplace.run("train", **{k: v for k, v in TINY.items() if k not in ("num_images", "steps")}, valid_fraction=0)
        == 0
    )
    assert "no validation split" in capsys.readouterr().err
    assert "valid/loss" not in workplace.runs("train")[0].data.metrics


def report_of(workplace, run):
    file = Path(workplace.client.download_artifacts(run.info.run_id, "report.html", str(workplace.folder)))
    return Page(file.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_the_report_gives_no_time_of_a_run_that_was_resumed_after_a_pause(workplace, monkeypatch):
    def stop(self, event, beside=None, record=Run.record):
        record(self, event, beside)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "record", stop)
        assert workplace.run("main", **{**TINY, "epochs": 2, "steps": "train"}) == 130
    assert workplace.run("main", resume="latest") == 0
    page = report_of(workplace, *workplace.runs("main"))
    assert not [source for source, *_ in page.numbers if source.endswith(" seconds")]
    assert "train unknown, because the run was resumed after a pause" in page.text


@pytest.mark.slow
def test_the_times_in_the_report_count_no_range_test_within_the_training_or_from_before(workplace):
    quick = {name: TINY[name] for name in ("experiment", "limit_train", "limit_test", "width")} | {"epochs": 10}
    for _ in ("with a range test within", "with that one found"):
        assert workplace.run("train", **quick, batch_size=16, optimizer="sgd") == 0
        (training, *_) = workplace.runs("train")
        assert workplace.run("report", run_id=training.info.run_id) == 0
        page = report_of(workplace, training)
        ((source, seconds, _),) = [number for number in page.numbers if number[0].endswith(" seconds")]
        assert source == "train seconds"
        assert float(seconds) > 0
        assert "range-test" in {attributes["id"] for tag, attributes in page.tags if tag == "section"}
