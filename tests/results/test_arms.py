import numpy as np
import pytest

from pipeline.results.arms import Arm, judge, per_class

NUM_IMAGES = 400


def arm(letter, *num_right):
    """Networks that have so many images right, the same ones as far as they go."""
    return Arm(letter, np.array([np.arange(NUM_IMAGES) < number for number in num_right]))


def test_one_network_each_is_told_by_mcnemar_and_nothing_is_claimed_of_recipes():
    verdict = judge(arm("A", 300), arm("B", 340))
    assert verdict.numbers["difference"] == pytest.approx(0.1)
    assert (verdict.numbers["only_A"], verdict.numbers["only_B"]) == (0, 40)
    assert verdict.numbers["p_value"] < 1e-6
    assert verdict.sentence.startswith("B 85.00% against A 75.00% on 400 test images: +10.00 points (95 % interval")
    assert "of these two networks B is better; with one seed each that says little" in verdict.sentence


def test_a_better_first_is_said_to_be_the_better_one():
    assert "of these two networks A is better" in judge(arm("A", 340), arm("B", 300)).sentence


@pytest.mark.parametrize("others", [303, 300])
def test_a_difference_that_may_be_chance_is_none(others):
    sentence = judge(arm("A", 300), arm("B", others)).sentence
    assert "do not tell the two networks apart" in sentence
    assert "better" not in sentence
    assert ("no interval over images" in sentence) == (others == 300)


def test_a_stricter_level_asks_for_more():
    a, b = arm("A", 300), arm("B", 307)  # p = 0.016
    assert "B is better" in judge(a, b).sentence
    strict = judge(a, b, alpha=0.01)
    assert "do not tell" in strict.sentence
    assert "99 % interval over images" in strict.sentence


def test_several_seeds_are_told_by_their_spread():
    verdict = judge(arm("A", 300, 302, 304), arm("B", 340, 342, 344))
    assert "A 75.50% (mean of 3 seeds)" in verdict.sentence
    assert "on these images B is better over seeds" in verdict.sentence
    assert verdict.numbers["over_seeds_low"] > 0.08
    assert "p_value" not in verdict.numbers


def test_seeds_that_overlap_say_what_they_could_have_shown():
    verdict = judge(arm("A", 300, 320), arm("B", 306, 326))
    shown = verdict.numbers["detectable"]
    assert shown == pytest.approx(10.42 * 20 / np.sqrt(2) / NUM_IMAGES, rel=0.01)
    assert f"they would show {100 * shown:.2f} points four times in five" in verdict.sentence
    assert "better" not in verdict.sentence


def test_a_gap_between_seeds_that_other_images_might_close_is_said_to_be_one():
    one, other = (np.arange(NUM_IMAGES) % 5 != wrong for wrong in (0, 1))
    other[np.flatnonzero(~other)[:6]] = True
    a, b = Arm("A", np.array([one, one])), Arm("B", np.array([other, other]))
    a.correct[0, np.flatnonzero(one)[0]] = False
    sentence = judge(a, b).sentence
    assert "B is better over seeds; on other images of the kind it need not be" in sentence


def test_one_seed_against_several_claims_nothing():
    sentence = judge(arm("A", 300), arm("B", 340, 344)).sentence
    assert sentence.endswith("how much of that is the seed's takes two seeds of each to say")


@pytest.mark.parametrize(
    ("num_only_b", "num_images", "better"),
    [
        (4, 5, ""),
        (5, 5, ""),
        (5, 30, ""),
        (6, 6, "B"),
        (6, 30, "B"),
        (30, 30, "B"),
    ],  # 2 / 2**5 is above 0.05, 2 / 2**6 below
)
def test_of_one_network_each_a_class_is_told_apart_by_the_exact_test(num_only_b, num_images, better):
    right = np.arange(num_images)[None] < num_only_b
    table = per_class(np.full(num_images, "cat"), Arm("A", np.zeros_like(right)), Arm("B", right))
    assert table["better"].tolist() == [better]


@pytest.mark.parametrize(("num_images", "better"), [(19, ""), (20, "B")])
@pytest.mark.parametrize("share", [1, 0.9])
def test_of_several_networks_each_a_class_of_few_images_names_no_better_arm(num_images, better, share):
    right = np.arange(num_images) < share * num_images
    none, all_of_b = np.zeros((2, num_images), dtype=bool), np.stack([right, right])
    table = per_class(np.full(num_images, "cat"), Arm("A", none), Arm("B", all_of_b))
    assert table["better"].tolist() == [better]


def test_per_class_names_a_winner_only_where_chance_does_not_explain_it():
    labels = np.repeat(["cat", "dog", "fox", "one"], [100, 100, 199, 1])
    a, b = np.zeros((2, 1, NUM_IMAGES), dtype=bool)
    a[0, :50] = True  # cats
    b[0, 100:103] = True  # three dogs
    table = per_class(labels, Arm("A", a), Arm("B", b)).set_index("class")
    assert table["images"].tolist() == [100, 100, 199, 1]
    assert table["better"].tolist() == ["A", "", "", ""]
    assert table.loc["cat", "difference"] == -0.5
    assert table.loc["cat", "high"] < 0 == table.loc["dog", "low"]
    assert table.loc[["fox", "one"], ["low", "high"]].isna().all(axis=None)
