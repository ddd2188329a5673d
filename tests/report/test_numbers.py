"""Every number on the page is stored in the runs."""

import csv
import math
from pathlib import Path

import pytest

from tests.report.conftest import CLASSES, RUN_NAME, report_of
from tests.report.reader import Page

STEPS = ("lr_range", "sweep", "train", "evaluate", "explain")


@pytest.fixture(scope="module")
def stored(experiment):
    """The stored run of each step, by the name of the step."""
    workplace, _ = experiment
    # The first range test is the experiment's own step; the sweep starts none here.
    return {step: workplace.runs(step)[-1] for step in STEPS}


@pytest.fixture(scope="module")
def read(experiment, stored):
    """A function that reads the text of an artifact of a step."""
    workplace, _ = experiment

    def text(step, path):
        folder = workplace.folder / "artifacts" / step
        folder.mkdir(parents=True, exist_ok=True)
        return Path(workplace.client.download_artifacts(stored[step].info.run_id, path, str(folder))).read_text()

    return text


@pytest.fixture(scope="module")
def page(renamed):
    return Page(renamed.read_text(encoding="utf-8"))


def rows(content):
    header, *body = csv.reader(content.splitlines())
    return [dict(zip(header, row, strict=True)) for row in body]


def stored_value(source, stored, read):
    """The stored number that the page names as its `source`."""
    place, *rest = source.split(" ")
    step, _, path = place.partition("/")
    if rest == ["seconds"]:
        info = stored[step].info
        return (info.end_time - info.start_time) / 1000
    if rest == ["sum"]:
        return sum(int(n) for row in list(csv.reader(read(step, path).splitlines()))[1:] for n in row[:-1])
    if path == "params.json":
        return float(stored[step].data.params[rest[0]])
    if rest:
        return float(rows(read(step, path))[int(rest[0])][rest[1]])
    return stored[step].data.metrics[path]


def test_each_number_is_the_stored_one_and_is_shown_correctly(page, stored, read):
    seen = set()
    for source, value, text in page.numbers:
        assert float(value) == stored_value(source, stored, read), source
        seen.add(source.split("/")[0].split(" ")[0])
        if not source.endswith(" seconds"):
            shown = float(text.removesuffix(" %").replace(",", ""))
            scale = 100 if text.endswith("%") else 1
            assert shown == pytest.approx(scale * float(value), rel=6e-3, abs=0.0051 if scale == 100 else 0), source
    assert seen == set(STEPS)
    assert {f"{step} seconds" for step in STEPS} <= {source for source, *_ in page.numbers}
    assert {"evaluate/test/accuracy", "evaluate/test/accuracy_low", "lr_range/lr_range/steepest"} <= {
        source for source, *_ in page.numbers
    }


def test_each_table_is_the_stored_one(page, read, experiment, stored):
    workplace, _ = experiment
    found = {table.source: table for table in page.tables if table.source}
    assert set(found) == {
        "train/epochs",
        "evaluate/confusion_matrix.csv",
        "evaluate/per_class.csv",
        "evaluate/reliability.csv",
        "evaluate/slices.csv",
        "evaluate/sets.csv",
        "evaluate/set_sizes.csv",
        "evaluate/risk_coverage.csv",
        "explain/explain/border.csv",
        "explain/explain/faithfulness.csv",
        "explain/explain/randomisation.csv",
        "explain/explain/scores.csv",
        "sweep/study.csv",
        "sweep/importances.csv",
    }
    for source, table in found.items():
        step, _, path = source.partition("/")
        if source == "train/epochs":
            expected = [dict(zip(table.columns, row, strict=True)) for row in epochs(workplace, stored, table.columns)]
        elif path == "confusion_matrix.csv":
            matrix = list(csv.reader(read(step, path).splitlines()))[1:]
            assert [[int(value) for _, value in row[1:]] for row in table.rows[1:]] == [
                [int(count) for count in row[:-1]] for row in matrix
            ]
            continue
        else:
            expected = rows(read(step, path))
        assert len(table.rows) == len(expected) + 1
        for shown, row in zip(table.rows[1:], expected, strict=True):
            for name, (text, value) in zip(table.columns, shown, strict=True):
                if value is None:
                    assert text == {"True": "yes", "False": "no"}.get(row[name], str(row[name])), (source, name)
                elif row[name] == "":
                    assert (value, text) == ("nan", "–")
                else:
                    assert float(value) == float(row[name]), (source, name)


def epochs(workplace, stored, names):
    """(epoch, value of each metric) for each epoch of the training. The first name is the column of epochs."""
    run_id = stored["train"].info.run_id
    histories = [workplace.client.get_metric_history(run_id, name) for name in names[1:]]
    return [(point.step, *(each[i].value for each in histories)) for i, point in enumerate(histories[0])]


def test_charts_draw_the_stored_data(page, stored, read, experiment):
    tables = page.charted["tables"]
    assert {"lr_range/lr_range.csv", "train/steps.csv", "train/watch/maps.csv", "sweep/study.csv"} <= tables.keys()
    assert "evaluate/thumbnails.csv" in tables
    workplace, _ = experiment
    for source, columns in tables.items():
        step, _, path = source.partition("/")
        if path == "epochs":
            expected = [dict(zip(columns, row, strict=True)) for row in epochs(workplace, stored, list(columns))]
        else:
            expected = rows(read(step, path))
        assert list(columns) == list(expected[0])
        for name, values in columns.items():
            for value, row in zip(values, expected, strict=True):
                as_stored = row[name]
                if isinstance(value, str):
                    assert value == as_stored
                else:
                    assert (as_stored == "") if value is None else value == float(as_stored)
    assert page.charted["metrics"] == {step: stored[step].data.metrics for step in stored}


def test_no_name_becomes_markup_and_nothing_is_fetched(page, renamed):
    html = renamed.read_text(encoding="utf-8")
    assert RUN_NAME not in html
    assert RUN_NAME in page.text
    scripts = [attributes for tag, attributes in page.tags if tag == "script"]
    assert {attributes.get("src") for attributes in scripts} == {None}
    assert not [tag for tag, attributes in page.tags if any(name.startswith("on") for name in attributes)]
    for tag, attributes in page.tags:
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/webp;base64,")), (tag, attributes)
    assert "</" not in page.embedded
    assert "\u202e" not in html
    assert sum(tag == "button" for tag, _ in page.tags) > len(CLASSES)


def test_the_page_is_small_and_has_the_command_that_repeats_the_run(page, renamed, photos):
    assert renamed.stat().st_size < 3e6
    assert "mlflow run . -P experiment=none -P " in page.text and "-P model=vit" in page.text
    assert "cores of" in page.text


def test_an_experiment_ends_with_a_report(experiment):
    workplace, run_id = experiment
    html = report_of(workplace, run_id).read_text(encoding="utf-8")
    assert "images right (95 % interval" in Page(html).text


@pytest.mark.parametrize(
    ("step", "there", "absent"),
    [
        ("lr_range", {"range-test"}, {"training", "confusion", "sweep"}),
        ("train", {"training", "watched", "confusion", "errors", "faithfulness"}, {"sweep"}),
        ("evaluate", {"training", "confusion", "classes", "calibration", "sets", "unsure"}, {"sweep"}),
        ("sweep", {"sweep"}, {"training", "watched", "confusion", "range-test"}),
    ],
)
def test_the_report_of_each_step_has_its_own_sections_and_links_only_to_them(experiment, stored, step, there, absent):
    workplace, _ = experiment
    run_id = stored[step].info.run_id
    assert workplace.run("report", run_id=run_id) == 0
    page = Page(report_of(workplace, run_id).read_text(encoding="utf-8"))
    sections = {attributes["id"] for tag, attributes in page.tags if tag == "section"}
    assert there | {"recipe", "source"} <= sections
    assert not absent & sections
    linked = {attributes["href"] for tag, attributes in page.tags if tag == "a"}
    assert linked == {f"#{name}" for name in sections}
    assert math.isfinite(float(page.numbers[0][1]))


def test_a_report_of_an_unknown_run_or_of_a_trial_is_refused(experiment, stored, capsys):
    workplace, _ = experiment
    trial = workplace.runs("trial")[0].info.run_id
    assert workplace.run("report", run_id="0" * 32) == 2
    assert "no such run" in capsys.readouterr().err
    assert workplace.run("report", run_id=trial) == 2
    assert "is a run of trial; a report needs a run of main, seeds, lr_range" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("step", "path", "content"),
    [
        ("evaluate", "thumbnails.webp", b"GIF89a<script>"),
        ("evaluate", "per_class.csv", b"class,precision,recall,f1,support\nx,<b>,1,1,1\n"),
        ("evaluate", "confusion_matrix.csv", b"a,b,true\n1,2,a\n3,4,c\n"),
        ("train", "watch/maps.csv", b"image,epoch,blank,left,top,side\n0,<b>,False,0,0,16\n"),
        ("train", "params.json", b"[" * 100_000),
    ],
)
def test_artifacts_changed_by_others_are_refused_in_one_line(experiment, stored, capsys, step, path, content):
    workplace, run_id = experiment
    file = Path(stored[step].info.artifact_uri.removeprefix("file://")) / path
    before = file.read_bytes()
    try:
        file.write_bytes(content)
        capsys.readouterr()
        assert workplace.run("report", run_id=run_id) == 2
    finally:
        file.write_bytes(before)
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ") and path in error


def test_a_picture_that_is_too_large_is_left_out_and_named(experiment, stored, capsys):
    workplace, run_id = experiment
    file = Path(stored["train"].info.artifact_uri.removeprefix("file://")) / "watch/maps.webp"
    before = file.read_bytes()
    try:
        file.write_bytes(b"RIFF    WEBP" + bytes(2**19))
        capsys.readouterr()
        assert workplace.run("report", run_id=run_id) == 0
    finally:
        file.write_bytes(before)
    assert "watch/maps.webp of run" in (err := capsys.readouterr().err) and "is left out of the report" in err
