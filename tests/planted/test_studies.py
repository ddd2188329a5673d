"""Planted notes and rows of a study are refused in one line, and no code in them runs."""

import contextlib
import sqlite3

import optuna
import pytest

from tests.planted.ground import TINY


@pytest.fixture
def study(ground):
    """A study of this project with one complete trial, in its own database."""
    path = ground.workplace.folder / "planted.db"
    made = optuna.create_study(study_name="planted", storage=f"sqlite:///{path}", direction="maximize")
    made.set_user_attr("declared", {"model": "resnet18", "epochs": 1})
    made.set_user_attr("machine", {"device": "cpu", "data_dir": "data"})
    made.add_trial(
        optuna.trial.create_trial(
            params={"max_lr": 0.01},
            distributions={"max_lr": optuna.distributions.FloatDistribution(1e-3, 1)},
            value=0.5,
        )
    )
    yield made
    path.unlink()


def from_planted_study(ground):
    """The parameters of a training with the best values of the study."""
    return {"experiment": "none", "from_study": "planted", "storage": f"sqlite:///{ground.workplace.folder}/planted.db"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("declared", "../../x"),
        ("declared", ["epochs"]),
        ("declared", {"__reduce__": "os.system"}),
        ("declared", {"resume": "latest"}),
        ("declared", {"epochs": "../../x"}),
        ("declared", {"model": {"!!python/object/apply:os.system": "true"}}),
        ("machine", 3),
        ("machine", {"device": "../../x"}),
        ("narrowed", {"max_lr": ["a", "b"]}),
        ("narrowed", {"../../x": [1, 2]}),
        ("mlflow.run_id", "../../x"),
        ("mlflow.run_id", 7),
    ],
)
def test_hostile_notes_of_a_study_are_refused(ground, study, capsys, name, value):
    study.set_user_attr(name, value)
    ground.refused(capsys, "train", **from_planted_study(ground))


SWEEP = {**TINY, "study_name": "planted", "space": '{"max_lr": {"low": 0.001, "high": 1}}', "num_trials": 1}


@pytest.mark.parametrize(
    ("name", "value"),
    [("process", ["../../x"]), ("process", {"process.pid": {}}), ("mlflow.run_id", "../../x"), ("goes_on_with", 3)],
)
def test_hostile_notes_of_a_trial_are_refused(ground, study, capsys, name, value):
    trial = study.ask()
    trial.set_user_attr(name, value)
    assert "study planted is not from this project" in ground.refused(capsys, "train", **from_planted_study(ground))
    storage = {"storage": from_planted_study(ground)["storage"]}
    assert "study planted is not from this project" in ground.refused(capsys, "sweep", **SWEEP, **storage)


@pytest.mark.parametrize("text", ["cos\nsystem\n(S'touch {marker}'\ntR.", "[" * 100_000, "null"])
@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("study_user_attributes", "value_json"),
        ("trial_params", "distribution_json"),
        ("trial_params", "param_value"),
        ("trial_values", "value"),
        ("trial_values", "value_type"),
        ("trials", "state"),
        ("studies", "study_name"),
    ],
)
def test_hostile_rows_of_a_study_are_refused(ground, study, capsys, table, column, text):
    database = sqlite3.connect(ground.workplace.folder / "planted.db")
    with contextlib.closing(database), database:
        database.execute(f"update {table} set {column} = ?", (text.replace("{marker}", str(ground.marker)),))
    ground.refused(capsys, "train", **from_planted_study(ground))


def test_a_complete_trial_without_a_value_is_refused(ground, study, capsys):
    database = sqlite3.connect(ground.workplace.folder / "planted.db")
    with contextlib.closing(database), database:
        database.execute("delete from trial_values")
    assert "does not have one value per objective" in ground.refused(capsys, "train", **from_planted_study(ground))
