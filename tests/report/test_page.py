"""Pages from plain values: missing content, and the largest content."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline.report import page
from pipeline.report.artifacts import PICTURES
from pipeline.report.record import Record, StepRecord
from tests.report.reader import Page

VALID = "weights/best_valid_accuracy"
HOSTILE = "</script><script>alert(1)</script>"


def step(kind, **more):
    given = {"name": HOSTILE, "seconds": 1.0, "params": {}, "metrics": {}, "tags": {}}
    return StepRecord(kind=kind, run_id="0" * 32, **{**given, **more})


def test_the_page_of_an_empty_run_says_that_it_has_no_result():
    html = page.build(Record(step("main"), {}))
    page_read = Page(html)
    assert HOSTILE in page_read.text and HOSTILE not in html
    assert "no result was stored" in page_read.text
    assert [attributes["id"] for tag, attributes in page_read.tags if tag == "section"] == ["recipe", "source"]


def test_maps_over_the_epochs_are_shown_if_all_their_files_exist():
    places = {"left": [0.0, 8.0], "top": [0.0, 0.0], "side": [8.0, 8.0]}
    images = pd.DataFrame({"name": [HOSTILE, "b"], "class": ["x", "y"], **places})
    maps = pd.DataFrame({"image": [0.0, 7.0], "epoch": [3.0, 3.0], "blank": ["True", "False"], **places})
    watch = {"watch/images.csv": images, "watch/maps.csv": maps}
    pictures = dict.fromkeys(("watch/images.webp", "watch/maps.webp"), b"RIFF    WEBP")

    def page_with(**content):
        epochs = pd.DataFrame({"epoch": [1], "train/loss": [0.5]})
        return Page(page.build(Record(step("main"), {"train": step("train", epochs=epochs, **content)})))

    def sections(read):
        return {attributes["id"] for tag, attributes in read.tags if tag == "section"}

    whole = page_with(tables=watch, pictures=pictures)
    assert "watched" in sections(whole) and "x: nothing stands out" in whole.text
    (shown,) = [attributes["data-name"] for _, attributes in whole.tags if "data-name" in attributes]
    assert shown == f"{HOSTILE}, true x"  # the other image has no map
    for lacking in ({}, {"tables": watch}, {"pictures": pictures}):
        assert "training" in sections(page_with(**lacking)) and "watched" not in sections(page_with(**lacking))


def test_the_cursor_starts_at_the_best_epoch():
    train = step("train", epochs=pd.DataFrame({"epoch": [1, 2, 3], "lr": 0.1}), metrics={"weights/best_epoch": 2.0})
    html = Page(page.build(Record(step("main"), {"train": train})))
    (slider,) = [attributes for _, attributes in html.tags if attributes.get("id") == "epoch"]
    assert (slider["value"], slider["max"]) == ("2", "3")


def test_the_largest_page_can_be_mailed():
    draw, most = np.random.default_rng(0), 300_000
    places = pd.DataFrame({"left": range(0, 4000, 10), "top": 0, "side": 10})
    names = pd.DataFrame({"name": [HOSTILE * 3] * 400, "true": "a" * 250, "predicted": "b" * 250, "confidence": 0.5})
    images = names.rename(columns={"name": "image"}).assign(kind="misclassified", probability_of_true=0.1)
    images["image"] += [f"{i}" for i in range(400)]
    maps = images[["image", "kind"]].assign(map="for the predicted class", blank="False")
    curve = pd.DataFrame(draw.random((most, 4)), columns=["repeat", "lr", "loss", "smoothed"])
    classes = [f"{i:03}" * 80 for i in range(60)]
    matrix = pd.DataFrame(draw.integers(0, 99, (60, 60)), columns=classes).assign(true=classes)
    study = pd.DataFrame({"number": range(most), "state": "COMPLETE", "value": 0.5, "max_lr": draw.random(most)})
    pictures = {
        kind: {path: b"RIFF    WEBP" + bytes(most_bytes - 12) for path, most_bytes in of_kind.items()}
        for kind, of_kind in PICTURES.items()
    }
    watched = [pd.concat([pd.DataFrame({"epoch": range(1, 61), "blank": "False"}), places.head(60)], axis=1)] * 64
    steps = {
        "lr_range": step("lr_range", tables={"lr_range.csv": curve}),
        "train": step(
            "train",
            tables={
                "steps.csv": curve.assign(epoch=curve["repeat"]),
                "watch/images.csv": pd.concat([names.assign(**{"class": "a" * 250}), places], axis=1).head(64),
                "watch/maps.csv": pd.concat(watched, keys=range(64), names=["image"]).reset_index("image"),
            },
            pictures=pictures["train"],
            epochs=pd.DataFrame({"epoch": range(most), "train/loss": 0.1, "train/accuracy": 0.1, "lr": 0.1}),
        ),
        "evaluate": step(
            "evaluate",
            tables={"confusion_matrix.csv": matrix, "thumbnails.csv": pd.concat([names, places], axis=1)},
            pictures=pictures["evaluate"],
        ),
        "explain": step(
            "explain",
            tables={
                "explain/images.csv": pd.concat([images, places], axis=1).head(64),
                "explain/maps.csv": pd.concat(
                    [pd.concat([maps.head(64)] * 3, ignore_index=True), places.head(192)], axis=1
                ),
            },
            pictures=pictures["explain"],
        ),
        "sweep": step("sweep", tables={"study.csv": study}),
    }
    assert len(page.build(Record(step("main"), steps)).encode()) < 10e6


def test_an_error_shows_the_image_with_and_without_its_map_and_numbers_have_common_names():
    place = {"left": [0.0], "top": 0.0, "side": 10.0}
    error = {"image": ["1.jpg"], "kind": "misclassified"}
    images = pd.DataFrame({**error, "true": "bee", "predicted": "ant", "confidence": 0.9, **place})
    border = {"class": ["ant", "bee"], "images": 9.0, "border_share": [0.3, 0.7], "standard_error": 0.01}
    border |= {"other_classes": [0.7, 0.3], "stands_out": ["False", "True"]}
    tables = {
        "explain/images.csv": images,
        "explain/maps.csv": pd.DataFrame({**error, "map": "for the predicted class", "blank": "False", **place}),
        "explain/border.csv": pd.DataFrame(border),
    }
    pictures = dict.fromkeys(("explain/images.webp", "explain/maps.webp"), b"RIFF    WEBP")
    numbers = {"test/accuracy": 0.5, "test/accuracy_low": 0.4, "test/accuracy_high": 0.6, "test/ece": 0.04}
    steps = {
        "evaluate": step("evaluate", metrics=numbers, tags={"dataset": "folder", "model": "vit"}),
        "explain": step("explain", tables=tables, pictures=pictures),
    }
    read = Page(page.build(Record(step("main", params={"data_dir": "/photos/insects"}), steps)))
    labels = [attributes.get("aria-label", "") for tag, attributes in read.tags if tag == "svg"]
    assert "1.jpg, without a map" in labels and "1.jpg, true bee, predicted ant" in labels
    assert "vit on insects" in read.text and "calibration error (ECE)" in read.text
    assert "bee stands out: 70.00 %, other classes 30.00 %" in read.text and "ant stands out" not in read.text


@pytest.mark.parametrize(("checkpoint", "is_last"), [("best", False), ("last", True)])
def test_the_page_says_if_an_evaluation_uses_the_last_weights(checkpoint, is_last):
    numbers = {"test/accuracy": 0.5, "test/accuracy_low": 0.4, "test/accuracy_high": 0.6}
    evaluate = step("evaluate", params={"checkpoint": checkpoint}, metrics=numbers)
    train = step("train", metrics={"weights/best_epoch": 2.0})
    shown = Page(page.build(Record(step("main"), {"train": train, "evaluate": evaluate}))).text
    assert ("The evaluation uses the weights of the last epoch" in shown) == is_last
    assert ("best epoch" in shown) != is_last


def record_of_two(used, validation=(0.9, 0.8)):
    """A record of a probe and a trained network. The later steps take the one named `used`."""

    def evaluation(kind, of, share, **tags):
        numbers = {"test/accuracy": share, "test/accuracy_low": share - 0.1, "test/accuracy_high": share + 0.1}
        return step(kind, metrics=numbers, tags={"train.run_id": ids[of], **tags})

    ids = {"probe": "1" * 32, "train": "2" * 32}
    shares, other = {"probe": 0.75, "train": 0.65}, {"probe": "train", "train": "probe"}[used]
    steps = {
        kind: replace(step(kind), run_id=ids[kind], metrics={} if reached is None else {VALID: reached})
        for kind, reached in zip(("probe", "train"), validation, strict=True)
    }
    steps["evaluate"] = evaluation("evaluate", used, shares[used], **{"beside.verdict": f"one is better {HOSTILE}"})
    steps["evaluate_beside"] = evaluation("evaluate_beside", other, shares[other])
    return Record(step("main"), steps)


@pytest.mark.parametrize(
    ("used", "validation", "said"),
    [
        ("probe", (0.9, 0.8), "The probe is what is served, explained and exported: the trained network is no better"),
        ("train", (0.8, 0.9), "The trained network is what is served, explained and exported: it is better on the"),
        ("train", (None, None), "The trained network is what is served, explained and exported: there were no"),
    ],
)
def test_the_report_compares_probe_and_trained_network_and_says_which_one_is_served(used, validation, said):
    html = page.build(record_of_two(used, validation))
    shown = Page(html)
    assert said in shown.text and HOSTILE not in html
    assert f"Paired test: one is better {HOSTILE}." in shown.text
    (table,) = [each for each in shown.tables if each.rows[0][-1][0] == "served"]
    rows = {row[0][0]: [text for text, _ in row[2:]] for row in table.rows[1:]}
    assert rows == {
        "probe": ["75.00 %", "65.00 % to 85.00 %", "yes" if used == "probe" else "no"],
        "trained network": ["65.00 %", "55.00 % to 75.00 %", "yes" if used == "train" else "no"],
    }
    assert ("right (95 % interval 65.00 % to 85.00 %), by the probe" in shown.text) == (used == "probe")


def test_the_report_compares_nothing_if_a_network_or_its_evaluation_is_missing():
    record = record_of_two("probe")
    for lacking in ("train", "evaluate_beside"):
        steps = {kind: each for kind, each in record.steps.items() if kind != lacking}
        assert "Probe and trained network" not in page.build(replace(record, steps=steps))
    assert (
        "90.00 % of the validation images right, by the probe"
        in Page(page.build(Record(record.steps["probe"], {"probe": record.steps["probe"]}))).text
    )


def test_a_number_that_is_not_finite_does_not_break_the_charts():
    whole = Page(page.build(Record(step("main"), {"train": step("train", metrics={"valid/loss": float("nan")})})))
    assert whole.charted["metrics"]["train"] == {"valid/loss": None}


def test_numbers_are_formatted_as_percentages_counts_and_durations():
    assert page.shown(0.98333, "percent") == "98.33 %"
    assert page.shown(float("nan"), "percent") == "–"
    assert page.shown(12345.0, "count") == "12,345"
    assert [page.duration(seconds) for seconds in (75.25, 754, 7300)] == ["75.2 s", "12 min 34 s", "2 h 1 min"]


def test_the_vendored_scripts_do_not_close_the_script_element():
    for name in (*page.VENDORED, *page.SCRIPTS):
        folder = "vendor" if name in page.VENDORED else "templates"
        assert "</script" not in (page.HERE / folder / name).read_text(encoding="utf-8").lower()
