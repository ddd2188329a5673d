"""Answers for new images: their table, their lines, and the count over batches."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import entropy

from pipeline.results.answers import Answers, Tally, lines, most_doubtful, table

CLASSES = ["cat", "dog", "=emu"]
LIMIT = 6.0


def answers(num_images=40, seed=0, known=True):
    draw = np.random.default_rng(seed)
    probabilities = draw.dirichlet(np.full(3, 0.5), num_images)
    distances = draw.uniform(0, 10, num_images)
    return Answers(
        np.array([f"{seed}/{i}.jpg" for i in range(num_images)], dtype=object),
        draw.integers(0, 256, (num_images, 3, 4, 4), dtype=np.uint8),
        probabilities,
        probabilities.max(axis=1) < 0.5 if known else None,
        distances if known else None,
        distances > LIMIT if known else None,
    )


def test_the_table_has_the_likeliest_classes_in_order():
    given = answers()
    rows = table(given, CLASSES, top_k=5)
    assert rows.columns.tolist() == [
        *("path", "class", "confidence", "unsure", "entropy", "distance", "unlike"),
        *("class_2", "probability_2", "class_3", "probability_3"),
    ]
    order = np.argsort(-given.probabilities, axis=1)
    for place, name in enumerate(("class", "class_2", "class_3")):
        assert rows[name].tolist() == [CLASSES[position] for position in order[:, place]]
    assert np.allclose(rows[["confidence", "probability_2", "probability_3"]].sum(axis=1), 1)
    assert np.allclose(rows["entropy"], entropy(given.probabilities, axis=1))
    assert table(given, CLASSES, top_k=1).columns.tolist()[-1] == "unlike"
    unknown = {"unsure", "distance", "unlike"}
    assert {*table(answers(known=False), CLASSES, top_k=3).columns} == {*rows.columns} - unknown


def test_a_certain_answer_has_no_entropy():
    sure = Answers(np.array(["a"], dtype=object), np.zeros((1, 3, 2, 2)), np.eye(3)[:1], None, None, None)
    assert table(sure, CLASSES, 3)["entropy"].tolist() == [0]


def test_lines_name_the_likeliest_classes_and_warn_of_unlike_images():
    given = Answers(
        np.array(["photo.jpg", "noise.png"], dtype=object),
        np.zeros((2, 3, 4, 4), np.uint8),
        np.array([[0.931, 0.04, 0.029], [0.1, 0.2, 0.7]]),
        np.array([False, True]),
        np.array([3.2, 51.72]),
        np.array([False, True]),
    )
    assert list(lines(given, CLASSES, LIMIT)) == [
        "photo.jpg: cat 93.1 %, then dog 4.0 %",
        "noise.png: =emu 70.0 %, then dog 20.0 %; unsure; unlike the training images: distance 51.7, usual up to 6",
    ]
    among = replace(given, sets=np.array([[True, False, False], [False, True, True]]))
    first, second = lines(among, CLASSES, LIMIT, 0.9)
    assert first == "photo.jpg: cat 93.1 %, then dog 4.0 %"
    assert second.startswith("noise.png: =emu 70.0 %, then dog 20.0 %; set for 90 %: =emu, dog; unsure")
    assert table(among, CLASSES, 1)["set"].tolist() == ['["cat"]', '["=emu", "dog"]']
    alone = Answers(given.paths[:1], given.images[:1], np.ones((1, 1)), None, None, None)
    assert list(lines(alone, ["cat"], 0.0)) == ["photo.jpg: cat 100.0 %"]


@pytest.mark.parametrize("known", [True, False])
def test_a_tally_over_batches_equals_one_over_all_images(known):
    batches = [answers(seed=seed, known=known) for seed in range(5)]
    tally = Tally(3, num_shown=7)
    for batch in batches:
        tally.add(batch)
    frame = pd.concat(table(batch, CLASSES, 3) for batch in batches)
    assert tally.counts.tolist() == [(frame["class"] == name).sum() for name in CLASSES]
    if known:
        assert tally.num_unsure == frame["unsure"].sum() > 0
        assert tally.num_unlike == frame["unlike"].sum()
        frame = frame.sort_values(["unlike", "confidence"], ascending=[False, True])
    else:
        frame = frame.sort_values("confidence")
    assert tally.shown.paths.tolist() == frame["path"].head(7).tolist()
    for path, image in zip(tally.shown.paths, tally.shown.images, strict=True):
        batch = batches[int(path[0])]
        assert np.array_equal(image, batch.images[batch.paths.tolist().index(path)])


def test_a_tally_may_show_no_images():
    assert len(most_doubtful(answers(), 0)) == 0
