"""Writes tasks for the labelling tool Label Studio, and reads back the labels that people gave there."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from pydantic import BaseModel, TypeAdapter, ValidationError

LABEL, EXCLUDE = "label", "exclude"  # the controls of the configuration, and columns of a table of labels
LOCAL_FILES = "/data/local-files/?d="  # where Label Studio serves files below its document root


class _Value(BaseModel):
    choices: list[str] = []


class _Answer(BaseModel):
    from_name: str
    value: _Value


class _Annotation(BaseModel):
    result: list[_Answer]
    was_cancelled: bool = False
    updated_at: str = ""

    def chosen(self, control: str) -> list[str]:
        return [choice for answer in self.result if answer.from_name == control for choice in answer.value.choices]


class _Data(BaseModel):
    file: str = ""
    split: str = ""
    group: str = ""


class _Task(BaseModel):
    data: _Data
    annotations: list[_Annotation]


_TASKS = TypeAdapter(list[_Task])


def configuration(classes: list[str]) -> str:
    """The labelling configuration, XML: the photo, the reason for a doubt, one choice of `classes`, and exclude."""
    view = Element("View")
    SubElement(view, "Image", name="image", value="$image")
    SubElement(view, "Text", name="reason", value="$reason")
    for name, values, choice in ((LABEL, classes, "single-radio"), (EXCLUDE, [EXCLUDE], "multiple")):
        control = SubElement(view, "Choices", name=name, toName="image", choice=choice, showInline="true")
        for value in values:
            SubElement(control, "Choice", value=value)
    indent(view)
    return tostring(view, encoding="unicode") + "\n"


def task(folder: str, row: Mapping[Any, Any]) -> dict[str, Any]:
    """The task for one photo of the folder called `folder`. Its annotation is its label, its prediction the suggestion.

    row: file, label, suggested_label, reason, split, and group if the photo is in one.
    """
    kept = {name: row[name] for name in ("file", "split", "group", "reason") if name in row}
    data = {"image": LOCAL_FILES + quote(f"{folder}/{row['file']}", errors="surrogateescape"), **kept}
    found: dict[str, Any] = {"data": data, "annotations": [{"result": [_choice(row["label"])]}]}
    if suggested := row["suggested_label"]:
        found["predictions"] = [{"model_version": "doctor", "result": [_choice(suggested)]}]
    return found


def _choice(label: str) -> dict[str, Any]:
    return {"from_name": LABEL, "to_name": "image", "type": "choices", "value": {"choices": [label]}}


def rows(content: bytes, name: str) -> Iterator[tuple[str, dict[str, str]]]:
    """(place, cells by column) for each task of Label Studio's JSON export: path, label, exclude, split and group.

    The newest annotation of a task counts. A task is excluded if it says so, if it was skipped, or if nobody labelled
    it. Raises ValueError, with the number of the task and without its text, for any other content.
    """
    try:
        tasks = _TASKS.validate_json(content)
    except ValidationError as error:
        place = error.errors()[0]["loc"]
        where = f" task {int(place[0]) + 1}: {'.'.join(map(str, place[1:])) or 'the task'}" if place else ""
        raise ValueError(f"{name}{where} is not as in Label Studio's export: export as JSON, not JSON-MIN") from None
    for number, each in enumerate(tasks, 1):
        place_name = f"task {number}"
        if not each.data.file:
            raise ValueError(f"{name} {place_name}: its data name no `file`; the tasks that doctor writes name one")
        yield place_name, _row(each, f"{name} {place_name}")


def _row(task: _Task, where: str) -> dict[str, str]:
    last = max(task.annotations, key=lambda annotation: annotation.updated_at, default=None)
    labels = [] if last is None else last.chosen(LABEL)
    excluded = last is None or last.was_cancelled or bool(last.chosen(EXCLUDE))
    if len(labels) != 1 and not excluded:
        raise ValueError(f"{where}: {len(labels)} labels in its newest annotation, not 1")
    cells = {"path": task.data.file, LABEL: "".join(labels[:1]), EXCLUDE: "yes" if excluded else ""}
    return cells | {column: value for column in ("split", "group") if (value := getattr(task.data, column))}
