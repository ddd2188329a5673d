"""Slices are the values of columns, and their intervals take account of their number."""

import numpy as np
import pytest

from pipeline.results import metrics, slices

RIGHT = np.arange(120) >= 30
CAMERAS = ["A"] * 40 + ["B"] * 40 + [""] * 40


def test_the_worst_slice_comes_first_with_an_interval_that_allows_for_the_number_of_slices():
    table = slices.table(RIGHT, {"camera": CAMERAS})
    assert table["value"].tolist() == ["A", "B"]  # images without a value are in no slice
    assert table["accuracy"].tolist() == [0.25, 1] and table["images"].tolist() == [40, 40]
    assert tuple(table.loc[0, ["low", "high"]]) == metrics.accuracy_interval(10, 40, 1 - 0.05 / 2)
    assert table["below"].tolist() == [True, False]


def test_pairs_of_values_are_slices_if_they_are_few_and_have_images():
    seasons = [("winter", "summer")[i % 2] if i < 75 else "spring" for i in range(120)]
    table = slices.table(RIGHT, {"camera": CAMERAS, "season": seasons})
    pairs = table[table["column"] == "camera and season"].set_index("value")["images"].to_dict()
    assert pairs == {"A and winter": 20, "A and summer": 20, "B and winter": 18, "B and summer": 17}  # of spring, 5
    many = {"one": [f"{i % 6}" for i in range(120)], "two": [f"{i % 5}" for i in range(120)]}
    assert len(slices.table(RIGHT, many)) == 11


def test_photos_of_one_group_in_a_slice_count_as_one():
    groups = np.concatenate([np.arange(40) // 20, 2 + np.arange(80)])
    alone = slices.table(RIGHT, {"camera": CAMERAS}).set_index("value")
    grouped = slices.table(RIGHT, {"camera": CAMERAS}, groups).set_index("value")
    assert alone.loc["A", "below"] and not grouped.loc["A", "below"]
    assert grouped.loc["A", "high"] > alone.loc["A", "high"]


def test_many_numbers_become_thirds_and_many_texts_or_a_single_value_make_no_slice():
    columns = {
        "lux": [f"{i}" for i in range(119)] + [""],
        "name": [f"photo {i}" for i in range(120)],
        "site": ["roof"] * 120,
        "age": [f"{i % 4}" for i in range(120)],
    }
    found, too_many = slices.usable(columns)
    assert found.keys() == {"lux", "age"} and too_many == ["name"]
    assert np.unique(found["lux"], return_counts=True)[1].tolist() == [1, 40, 39, 40]
    assert found["lux"][0] == "0 to 39.3" and found["lux"][-1] == ""
    assert {*slices.thirds(np.array([np.nan, 3, 3]))} == {""}


@pytest.mark.parametrize("columns", [{}, {"camera": ["A"] * 5 + [""] * 115}])
def test_without_enough_images_there_is_no_slice(columns):
    assert slices.table(RIGHT, columns).empty


def test_thirds_have_distinct_names_without_exponents():
    years = np.repeat(np.arange(2005, 2025), 6)
    found, _ = slices.usable({"year": [f"{year}" for year in years]})
    assert [*dict.fromkeys(found["year"])] == ["2005 to 2011", "2011 to 2018", "2018 to 2024"]
    assert [*dict.fromkeys(slices.thirds(np.linspace(640, 4032, 90)))] == [
        "640 to 1770",
        "1770 to 2900",
        "2900 to 4030",
    ]
    assert slices.thirds(np.array([0.0, 1e-7, 2e-7, 3e-7]))[0] == "0 to 0.0000001"
