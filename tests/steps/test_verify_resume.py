"""The trial of resuming: what it compares, and that it comes to its verdict."""

import pytest

from pipeline.steps.verify_resume import Left, differences

EXPECTED = Left({"weights": "a", "steps.csv": "b"}, {"loss": [(1, 0.5), (2, 0.25)]})


@pytest.mark.parametrize(
    ("found", "names"),
    [
        (EXPECTED, []),
        (Left({"weights": "other", "steps.csv": "b"}, EXPECTED.curves), ["weights"]),
        (Left(EXPECTED.digests, {"loss": [(1, 0.5), (2, 0.26)]}), ["loss"]),
        (Left(EXPECTED.digests, {"loss": [(1, 0.5)]}), ["loss"]),
        (Left({"weights": "a"}, {}), ["steps.csv", "loss"]),
        (Left(EXPECTED.digests, {**EXPECTED.curves, "more": [(1, 1.0)]}), ["more"]),
    ],
)
def test_whatever_differs_is_named(found, names):
    assert differences(EXPECTED, found) == names


@pytest.mark.slow
def test_a_training_killed_twice_ends_as_an_undisturbed_one(workplace, capsys):
    tiny = {"limit_train": 300, "limit_test": 100, "width": 4, "batch_size": 32, "epochs": 40}
    assert workplace.run("verify_resume", experiment="none", **tiny, num_kills=2) == 0
    out = capsys.readouterr().out
    assert "times, the training ended as the undisturbed one, to the bit" in out
