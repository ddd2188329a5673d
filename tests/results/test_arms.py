"""Verdicts on two arms of a comparison: one network each, several seeds, groups of images, and classes."""

import numpy as np
import pytest

from pipeline.results.arms import Arm, judge, per_class

NUM_IMAGES = 400


def arm(letter, *num_right):
    """An arm with one network per number in `num_right`, which has that many images right, always the first ones."""
    return Arm(letter, np.array([np.arange(NUM_IMAGES) < number for number in num_right]))


def test_one_network_each_is_compared_by_mcnemar_without_a_claim_about_recipes():
    verdict = judge(arm("A", 300), arm("B", 340))
    assert verdict.numbers["difference"] == pytest.approx(0.1)
    assert (verdict.numbers["only_A"], verdict.numbers["only_B"]) == (0, 40)
    assert verdict.numbers["p_value"] < 1e-6
    assert verdict.sentence.startswith("B 85.00% against A 75.00% on 400 test images: +10.00 points (95 % interval")
    assert "network B is better; with one seed each, this says little" in verdict.sentence


def test_the_first_network_can_be_the_better_one():
    assert "network A is better" in judge(arm("A", 340), arm("B", 300)).sentence


def test_a_network_with_a_name_in_words_is_called_by_it():
    sentence = judge(arm("the probe", 300), arm("the trained network", 340)).sentence
    assert ": the trained network is better; with one seed each" in sentence


def test_images_of_few_groups_decide_nothing_although_they_would_if_they_were_independent():
    groups = np.arange(NUM_IMAGES) // 10  # B is better on 40 images, which are 4 groups
    a, b = (Arm(name, arm(name, number).correct, groups) for name, number in (("A", 300), ("B", 340)))
    verdict = judge(a, b)
    assert verdict.numbers["p_value"] < 1e-6 and verdict.numbers["p_value_over_groups"] == 2 / 2**4
    assert "on 400 test images in 40 groups: +10.00 points" in verdict.sentence
    assert "over groups p = 0.125): these images show no difference" in verdict.sentence
    numbers = verdict.numbers
    assert numbers["over_groups_low"] < numbers["over_images_low"] < 0.1 < numbers["over_groups_high"]
    table = per_class(np.full(NUM_IMAGES, "cat"), a, b)
    assert table["better"].tolist() == [""] and table.loc[0, "low"] == numbers["over_groups_low"]
    b = Arm("B", arm("B", 370).correct, groups)
    assert judge(a, b).numbers["p_value_over_groups"] == 2 / 2**7
    assert "network B is better" in judge(a, b).sentence
    several = [Arm(each.name, np.stack([each.correct[0]] * 2), groups) for each in (a, b)]
    several[0].correct[0, :20] = False  # so that the seeds differ
    assert {"over_groups_low", "over_seeds_low"} <= judge(*several).numbers.keys()


@pytest.mark.parametrize("others", [303, 300])
def test_a_difference_that_may_be_chance_is_not_claimed(others):
    sentence = judge(arm("A", 300), arm("B", others)).sentence
    assert "show no difference between the two networks" in sentence
    assert "better" not in sentence
    assert ("no interval over images" in sentence) == (others == 300)


def test_a_stricter_level_needs_a_larger_difference():
    a, b = arm("A", 300), arm("B", 307)  # p = 0.016
    assert "B is better" in judge(a, b).sentence
    strict = judge(a, b, alpha=0.01)
    assert "show no difference" in strict.sentence
    assert "99 % interval over images" in strict.sentence


def test_several_seeds_are_compared_by_their_spread():
    verdict = judge(arm("A", 300, 302, 304), arm("B", 340, 342, 344))
    assert "A 75.50% (mean of 3 seeds)" in verdict.sentence
    assert "on these images B is better over seeds" in verdict.sentence
    assert verdict.numbers["over_seeds_low"] > 0.08
    assert "p_value" not in verdict.numbers


def test_the_verdict_on_overlapping_seeds_names_the_detectable_difference():
    verdict = judge(arm("A", 300, 320), arm("B", 306, 326))
    shown = verdict.numbers["detectable"]
    assert shown == pytest.approx(10.42 * 20 / np.sqrt(2) / NUM_IMAGES, rel=0.01)
    assert f"a true difference of {100 * shown:.2f} points would be found in 80 %" in verdict.sentence
    assert "better" not in verdict.sentence


def test_the_verdict_says_if_other_images_could_show_no_difference():
    one, other = (np.arange(NUM_IMAGES) % 5 != wrong for wrong in (0, 1))
    other[np.flatnonzero(~other)[:6]] = True
    a, b = Arm("A", np.array([one, one])), Arm("B", np.array([other, other]))
    a.correct[0, np.flatnonzero(one)[0]] = False
    sentence = judge(a, b).sentence
    assert "B is better over seeds; on other images of this kind that is not certain" in sentence


def test_one_seed_against_several_claims_nothing():
    sentence = judge(arm("A", 300), arm("B", 340, 344)).sentence
    assert sentence.endswith("train at least two seeds of each to know how much of this comes from the seed")


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
def test_for_one_network_each_the_exact_test_decides_per_class(num_only_b, num_images, better):
    right = np.arange(num_images)[None] < num_only_b
    table = per_class(np.full(num_images, "cat"), Arm("A", np.zeros_like(right)), Arm("B", right))
    assert table["better"].tolist() == [better]


@pytest.mark.parametrize(("num_images", "better"), [(19, ""), (20, "B")])
@pytest.mark.parametrize("share", [1, 0.9])
def test_for_several_networks_each_a_class_with_few_images_has_no_better_arm(num_images, better, share):
    right = np.arange(num_images) < share * num_images
    none, all_of_b = np.zeros((2, num_images), dtype=bool), np.stack([right, right])
    table = per_class(np.full(num_images, "cat"), Arm("A", none), Arm("B", all_of_b))
    assert table["better"].tolist() == [better]


def test_per_class_names_a_better_arm_only_if_the_difference_is_significant():
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
