"""Every entry point runs through a real `mlflow run`; the MLflow client reads the results back, as a user would."""

import json
import re
from fnmatch import fnmatchcase
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from reference import logged

QUICK = {"experiment": "none", "limit_train": 300, "limit_test": 120, "width": 8, "batch_size": 32}
TRAIN = {**QUICK, "optimizer": "sgd", "epochs": 2, "lr_rule": "steepest"}


@pytest.fixture(scope="module")
def experiment(workplace):
    """A whole experiment, run once for all tests."""
    done = workplace.mlflow_run("main", **TRAIN, num_images=2)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def step(workplace, experiment):
    """The newest run of a step."""
    return lambda name: workplace.runs(name)[0]


def test_main_runs_its_steps_as_children_of_one_finished_parent(workplace, experiment, step):
    parent = step("main")
    children = {run.data.tags["step"]: run for run in workplace.runs() if run.info.run_id != parent.info.run_id}
    assert set(children) == {"lr_range", "train", "evaluate", "explain"}
    for run in children.values():
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert {run.info.status for run in workplace.runs()} == {"FINISHED"}
    assert parent.data.metrics["test/accuracy"] == children["evaluate"].data.metrics["test/accuracy"]
    assert "test accuracy" in parent.data.tags["mlflow.note.content"]
    assert "test accuracy" in experiment.stderr
    assert f"Look at it with: mlflow ui --backend-store-uri {workplace.uri}" in experiment.stderr


def test_all_files_and_metrics_of_a_run_are_described_in_the_documentation(workplace, experiment):
    for run in workplace.runs():
        step = run.data.tags["step"]
        files = {"params.json", *logged.FILES[step], *logged.COMPUTED_FILES.get(step, {})}
        metrics = {each for names in logged.METRICS[step] for each in names.split(", ")}
        left = {
            *(
                name
                for name in workplace.artifacts(run.info.run_id)
                if not any(fnmatchcase(name, each) for each in files)
            ),
            *(name for name in run.data.metrics if not any(fnmatchcase(name, each) for each in metrics)),
        }
        assert (step, left) == (step, set())


def test_our_code_raises_no_warnings(experiment):
    ours = [line for line in experiment.stderr.splitlines() if re.search(r"pipeline/\S+\.py:\d+: \w*Warning", line)]
    assert ours == []


def test_each_step_gets_the_run_of_the_step_before(step):
    training = step("train")
    assert training.data.tags["lr_range.run_id"] == step("lr_range").info.run_id
    assert training.data.tags["recipe"] == step("lr_range").data.tags["recipe"]
    assert float(training.data.params["max_lr"]) == step("lr_range").data.metrics["lr_range/suggestion"]
    for name in ("evaluate", "explain"):
        assert step(name).data.params["run_id"] == training.info.run_id


def test_the_range_test_on_ladders_reports_every_rule(workplace, step):
    run = step("lr_range")
    assert {"lr_range.png", "lr_range.csv", "params.json", "recipe.json"} <= workplace.artifacts(run.info.run_id)
    for rule in ("valley", "steepest", "minimum_over_10", "suggestion"):
        assert 1e-5 <= run.data.metrics[f"lr_range/{rule}"] <= 10
    assert run.data.metrics["lr_range/spread"] >= 1


def test_training_logs_one_point_per_epoch_and_every_step(workplace, step, tmp_path):
    run_id = step("train").info.run_id
    for metric in ("train/loss", "train/accuracy", "valid/loss", "valid/accuracy", "lr"):
        assert [point.step for point in workplace.client.get_metric_history(run_id, metric)] == [1, 2]
    steps = pd.read_csv(workplace.client.download_artifacts(run_id, "steps.csv", str(tmp_path)))
    updates = 2 * -(-270 // 32)
    assert steps["step"].tolist() == list(range(updates))
    assert steps["lr"].max() == pytest.approx(float(step("train").data.params["max_lr"]), rel=0.1)
    assert {
        "curves.png",
        "splits.csv",
        "weights/best.safetensors",
        "weights/last.safetensors",
    } <= workplace.artifacts(run_id)


def test_params_json_has_every_parameter_with_its_type(workplace, step, tmp_path):
    from pipeline.params import TrainParams

    run = step("train")
    file = workplace.client.download_artifacts(run.info.run_id, "params.json", str(tmp_path))
    stored = json.loads(Path(file).read_text())
    assert set(stored) == set(TrainParams.model_fields) <= set(run.data.params)
    assert TrainParams(**stored).batch_size == 32


def test_tags_describe_the_run(workplace, step):
    run = step("train")
    expected = {"step": "train", "dataset": "digits", "model": "resnet18"}
    assert expected.items() <= run.data.tags.items()
    assert re.fullmatch(r"[0-9a-f]{40}|unknown", run.data.tags["git.commit"])
    assert run.info.run_name.startswith("digits resnet18 lr ")
    (data,) = run.inputs.dataset_inputs
    assert data.dataset.digest == run.data.tags["data.digest"]


def test_evaluation_numbers_agree_with_its_predictions(workplace, step, tmp_path):
    run = step("evaluate")
    files = workplace.artifacts(run.info.run_id)
    assert {
        "confusion_matrix.png",
        "confusion_matrix_normalised.png",
        "confusion_matrix.csv",
        "per_class.csv",
        "predictions.csv",
        "misclassified.png",
        "reliability.png",
    } <= files
    predictions = pd.read_csv(workplace.client.download_artifacts(run.info.run_id, "predictions.csv", str(tmp_path)))
    assert len(predictions) == 120
    accuracy = (predictions["true"] == predictions["predicted"]).mean()
    assert run.data.metrics["test/accuracy"] == pytest.approx(accuracy)
    assert run.data.metrics["test/accuracy_low"] < accuracy < run.data.metrics["test/accuracy_high"]
    assert {"test/loss", "test/macro_f1", "test/ece", "test/top5_accuracy"} <= run.data.metrics.keys()


def test_an_explanation_logs_figures_and_the_faithfulness_of_its_controls(workplace, step):
    run = step("explain")
    files = workplace.artifacts(run.info.run_id)
    assert {"explain/misclassified.png", "explain/correct.png", "explain/faithfulness.png"} <= files
    assert {
        "explain/faithfulness",
        "explain/faithfulness_random_map",
        "explain/faithfulness_random_weights",
        "explain/blank_maps",
    } <= run.data.metrics.keys()


def test_the_served_model_answers_with_one_row_per_image_and_has_no_pickle(workplace, step):
    mlflow.set_tracking_uri(workplace.uri)
    (output,) = workplace.client.get_run(step("train").info.run_id).outputs.model_outputs
    served = mlflow.pyfunc.load_model(f"models:/{output.model_id}")
    answer = served.predict(np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), dtype=np.uint8))
    assert len(answer) == 5
    digits = [str(digit) for digit in range(10)]
    assert set(answer["class"]) <= set(digits)
    assert np.allclose(answer[[f"p/{digit}" for digit in digits]].sum(axis=1), 1, atol=1e-5)
    location = workplace.client.get_logged_model(output.model_id).artifact_location
    names = {path.suffix for path in Path(location).rglob("*") if path.is_file()}
    assert names.isdisjoint({".pkl", ".pickle", ".pt", ".pth", ".bin"})
    with pytest.raises(mlflow.exceptions.MlflowException):
        served.predict(np.zeros((1, 3, 16, 16), dtype=np.uint8))


@pytest.mark.slow
def test_a_training_alone_takes_the_rate_of_the_range_test_of_its_recipe(workplace, experiment, step):
    before = step("lr_range").info.run_id
    commands = [
        workplace.start_mlflow_run("train", **{**TRAIN, "epochs": 1}),
        workplace.start_mlflow_run(
            "lr_range", **QUICK, optimizer="adamw", lr_rule="steepest", ladder_steps=30, num_repeats=1
        ),
    ]
    for command in commands:
        _, err = command.communicate(timeout=300)
        assert command.returncode == 0, err[-3000:]
    assert step("train").data.tags["lr_range.run_id"] == before  # the range test of the same recipe
    assert step("lr_range").info.status == "FINISHED"
    assert step("lr_range").data.params["optimizer"] == "adamw"


@pytest.mark.slow
def test_evaluate_explain_and_export_take_the_newest_training(workplace, experiment, step):
    newest = step("train").info.run_id
    commands = {
        "evaluate": workplace.start_mlflow_run("evaluate"),
        "explain": workplace.start_mlflow_run("explain", num_images=2, method="layercam"),
        "export": workplace.start_mlflow_run("export", format="torch_export"),
    }
    for name, command in commands.items():
        _, err = command.communicate(timeout=300)
        assert command.returncode == 0, err[-3000:]
        assert step(name).data.tags["train.run_id"] == newest
        assert step(name).info.status == "FINISHED"


@pytest.mark.slow
def test_new_images_are_predicted_by_the_newest_training(workplace, experiment, step, tmp_path):
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 256, (50, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{number}.jpg")
    done = workplace.mlflow_run("predict", run_id="latest", images=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    run = step("predict")
    assert run.info.status == "FINISHED"
    assert run.data.tags["train.run_id"] == step("train").info.run_id
    assert "Warning" not in "".join(line for line in done.stderr.splitlines() if "pipeline/" in line)
    predictions = pd.read_csv(workplace.client.download_artifacts(run.info.run_id, "predictions.csv", str(tmp_path)))
    assert predictions["path"].tolist() == [f"{tmp_path}/{number}.jpg" for number in range(3)]


@pytest.mark.slow
def test_the_report_is_of_the_newest_experiment_and_stored_with_it(workplace, experiment, step):
    done = workplace.mlflow_run("report")
    assert done.returncode == 0, done.stderr[-3000:]
    parent = step("main").info.run_id
    assert step("report").data.tags["reported.run_id"] == parent
    assert step("report").info.status == step("main").info.status == "FINISHED"
    assert "report.html" in workplace.artifacts(parent)


@pytest.mark.slow
def test_a_typo_fails_in_one_line_and_leaves_no_run_running(workplace, experiment):
    done = workplace.mlflow_run("train", modle="vit")
    assert done.returncode == 1
    assert "error: No such option '--modle'." in done.stderr and "'--model'" in done.stderr
    newest = workplace.runs()[0]
    assert newest.info.status == "FAILED"
    assert "--modle" in newest.data.tags["error"]
