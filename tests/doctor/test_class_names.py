"""The doctor finds names that may mean one class."""

import unicodedata

import pytest

from pipeline.doctor.class_names import alike
from pipeline.text import shown


@pytest.mark.parametrize(
    "names",
    [
        ("Cat", "cat"),
        ("dog ", "dog"),
        (" dog", "dog\t"),
        ("hot dog", "hotdog", "Hot  Dog", "hot\u00a0dog"),
        ("café", unicodedata.normalize("NFD", "café")),
        ("ﬁsh", "fish"),
        ("Straße", "STRASSE"),
        ("dog\u200b", "dog"),
        ("İstanbul".lower(), "İSTANBUL"),
        ("１", "1"),
    ],
)
def test_names_that_differ_by_case_blanks_or_form_are_alike(names):
    shown_names = [shown(name) for name in names]
    assert alike(["a", *shown_names, "b"]) == [shown_names]


def test_names_that_differ_by_more_are_not_alike():
    names = [
        "cat",
        "cats",
        "cafe",
        "café",
        "कि",
        "कु",
        "क",
        "01",
        "1",
        "1.0",
        "-1",
        "NA",
        "N/A",
        "None",
        "hot_dog",
        "a\\nb",
    ]
    assert alike([*map(shown, names)]) == []
