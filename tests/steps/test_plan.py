"""Each step of a plan runs with its own seed and with the results of the steps before."""

import pytest

from pipeline.params import LearningCurveParams, MainParams, TrainParams
from pipeline.steps import plan
from pipeline.steps.plan import Planned
from pipeline.steps.step import Result
from pipeline.tracking import lifecycle
from tests.conftest import Workplace


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    place = Workplace(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place.uri)
    return place


def test_each_training_of_a_series_keeps_its_own_seed_even_after_a_sweep_over_seeds(workplace):
    params = MainParams(experiment="none", steps="sweep,train", num_seeds=3, seed=4)
    best = {"seed": 9, "width": 8, "max_lr": 0.1}  # of a study that varied the seed, as earlier versions allowed
    trained = []

    def train(params, parent, **found):
        trained.append((params.seed, params.width, params.max_lr, params.num_seeds))
        return Result("1" * 32, "Training: done", {})

    with lifecycle.start("main", "a plan") as run:
        done = [Result("0" * 32, "Sweep: done", {}, handed=best)]
        plan.follow(run, plan.repeated(params, params.steps), params, {"train": train}, done)
    assert trained == [(seed, 8, 0.1, 1) for seed in (4, 5, 6)]


def test_trainings_on_as_many_images_share_the_rate_of_the_first(workplace):
    params = LearningCurveParams(experiment="none", learner="train", epochs=4, num_seeds=2)
    found = iter([0.3, 0.1])  # by the range tests
    trained = []

    def train(params, parent, **_):
        trained.append((params.limit_train, params.seed, params.max_lr))
        with lifecycle.start("train", "a training", parent) as run:
            rate = next(found) if params.max_lr == "auto" else params.max_lr
            run.params(params.to(TrainParams, max_lr=rate).model_dump())
        return Result(run.id, "Training: done", {})

    sizes = [Planned("train", seed, changes={"limit_train": size}) for size in (20, 40) for seed in (0, 1)]
    with lifecycle.start("learning_curve", "a curve") as run:
        plan.follow(run, sizes, params, {"train": train}, [])
    assert trained == [(20, 0, "auto"), (20, 1, 0.3), (40, 0, "auto"), (40, 1, 0.1)]
