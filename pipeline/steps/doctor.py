"""The doctor as a tracked step: what is wrong with an image set, before a training is spent on it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from pipeline.data import FOLDER, Split, Splits
from pipeline.data.decoder import sizes
from pipeline.data.tree import in_words
from pipeline.doctor import class_names, duplicates, looks, oddities, suspect_labels
from pipeline.doctor.looks import Looks
from pipeline.params import DoctorParams
from pipeline.progress import conclude, say
from pipeline.results import plots
from pipeline.steps.step import Result, tracked
from pipeline.text import unmarked
from pipeline.tracking.run import Run
from pipeline.training import device
from pipeline.training.recipe import load_splits

SHEET_IMAGES = 36
BETWEEN = 2  # px between two images side by side


class Finding(NamedTuple):
    """What one check says: a line for people, how many faults it names, and numbers as metrics."""

    line: str
    faults: int
    metrics: dict[str, float]


@dataclass(frozen=True, eq=False)
class Patient:
    """An image set as a whole: train first, then validation, then test."""

    params: DoctorParams
    splits: Splits
    names: tuple[str, ...]  # of the splits that are there
    images: Split
    parts: np.ndarray  # (N,) int, of which of them each image is
    looks: Looks
    device: torch.device

    @cached_property
    def classes(self) -> np.ndarray:
        """(N,) name of each image's class."""
        return np.array(self.splits.classes, dtype=object)[self.images.labels]

    def columns(self, column: str, positions: np.ndarray) -> pd.DataFrame:
        """Which images they are, in columns that begin with the name `column`."""
        return pd.DataFrame(
            {
                column: [self.images.names[position] for position in positions],
                f"{column}_split": [self.names[part] for part in self.parts[positions]],
                f"{column}_class": self.classes[positions],
            }
        )


def run(params: DoctorParams, parent: Run | None = None) -> Result:
    """Examines the image set that `params` name."""
    where = device.choose(params.device)
    splits = load_splits(params)
    name = f"{params.dataset} doctor"
    with tracked("doctor", name, params.model_dump(), {"dataset": params.dataset}, parent) as step:
        run = step.run
        run.dataset(splits.name, splits.digest, params.data_dir, "doctor")
        patient = _admit(params, splits, where)
        findings = []
        for check in CHECKS:
            findings.append(check(run, patient))
            conclude(f"doctor: {findings[-1].line}")
        numbers = {name: value for finding in findings for name, value in finding.metrics.items()}
        run.metrics(numbers)
        lines = [finding.line for finding in findings]
        if not any(finding.faults for finding in findings):
            lines.append("nothing wrong was found")
            conclude(f"doctor: {lines[-1]}")
        run.describe(name, "\n".join(["**Doctor**", "", *(f"- {unmarked(line)}" for line in lines)]))
        return Result(run.id, f"Doctor: {'; '.join(lines)}", numbers)


def _admit(params: DoctorParams, splits: Splits, where: torch.device) -> Patient:
    by_name = {"train": splits.train, "valid": splits.valid, "test": splits.test}
    present = {name: split for name, split in by_name.items() if split is not None}
    images = replace(
        splits.train,
        rows=np.concatenate([split.rows for split in present.values()]),
        labels=np.concatenate([split.labels for split in present.values()]),
        names=[name for split in present.values() for name in split.names],
    )
    parts = np.repeat(np.arange(len(present)), [len(split) for split in present.values()])
    return Patient(params, splits, tuple(present), images, parts, looks.survey(images), where)


def _counts(run: Run, patient: Patient) -> Finding:
    classes = len(patient.splits.classes)
    counts = {
        name: np.bincount(patient.images.labels[patient.parts == part], minlength=classes)
        for part, name in enumerate(patient.names)
    }
    table = pd.concat([pd.DataFrame({"class": patient.splits.classes}), pd.DataFrame(counts)], axis=1)
    run.table("class_counts.csv", table)
    train, report = counts["train"], patient.splits.report
    left_out, num_unread = report.left_out, sum(report.unread.values())
    line = f"{len(patient.images):,} images of {classes} classes, {train.min():,} to {train.max():,} a class in train"
    if left_out:
        run.table("left_out.csv", pd.DataFrame(left_out, columns=["file", "reason"]))
        line += f"; {len(left_out)} files cannot be read (left_out.csv)"
    if num_unread:
        line += f"; photos left out: {in_words(report.unread)}"
    run.figure("class_counts.png", plots.class_counts(table, line))
    line = "; ".join([line, *report.remarks])
    num_unreadable = len(left_out) + num_unread
    numbers = {"doctor/imbalance": float(train.max() / train.min()), "doctor/unreadable": float(num_unreadable)}
    return Finding(line, num_unreadable + len(report.remarks), numbers)


def _class_names(run: Run, patient: Patient) -> Finding:
    found = class_names.alike(patient.splits.classes)
    numbers = {"doctor/classes_alike": float(sum(map(len, found)))}
    if not found:
        return Finding("class names: each its own", 0, numbers)
    groups = "; ".join(" and ".join(f"'{name}'" for name in group) for group in found)
    return Finding(f"class names that differ only by case, blanks or Unicode form: {groups}", len(found), numbers)


def _duplicates(run: Run, patient: Patient) -> Finding:
    eligible = ~oddities.blank(patient.looks)
    found = duplicates.find(patient.looks, patient.parts, eligible, patient.params.near_similarity)
    found = duplicates.in_order(found, patient.parts)
    image, twin = (found[column].to_numpy(dtype=np.int64) for column in ("image", "twin"))
    table = pd.concat(
        [patient.columns("image", image), patient.columns("twin", twin), found.drop(columns=["image", "twin"])], axis=1
    )
    run.table("duplicates.csv", table)
    counted, numbers = [], {}
    for later in reversed(range(len(patient.names))):
        for earlier in range(later + 1):
            between = (patient.parts[image] == later) & (patient.parts[twin] == earlier)
            exact = int((found["kind"] == "exact")[between].sum())
            pair = patient.names[later], patient.names[earlier]
            numbers[f"doctor/duplicates_{pair[0]}_{pair[1]}"] = float(between.sum())
            if between.any():
                where = f"{pair[0]} images in {pair[1]} too" if later > earlier else f"twice in {pair[0]}"
                counted.append(f"{where}: {between.sum():,} ({exact:,} exactly)")
    if not counted:
        return Finding("duplicates: none", 0, numbers)
    shown = slice(SHEET_IMAGES)
    captions = [
        f"{row.twin_split} {row.twin_class} | {row.image_split} {row.image_class} {row.similarity:.2f}"
        for row in table[shown].itertuples()
    ]
    title = f"{min(SHEET_IMAGES, len(table))} of {len(table):,} duplicates, those across splits first"
    run.figure("duplicates.png", plots.gallery(_pairs(patient.images, twin[shown], image[shown]), captions, title))
    return Finding(f"duplicates: {'; '.join(counted)}", len(found), numbers)


def _pairs(images: Split, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    pairs = np.concatenate([images.take(left), images.take(right)], axis=3)
    middle = pairs.shape[3] // 2
    return np.insert(pairs, [middle] * BETWEEN, 255, axis=3)


def _labels(run: Run, patient: Patient) -> Finding:
    params, of_test = patient.params, patient.names.index("test")
    if params.label_epochs == 0:
        return Finding("labels: not checked (label_epochs=0)", 0, {})
    taught = np.flatnonzero(patient.parts != of_test)
    taught = taught[suspect_labels.can_be_checked(patient.images.labels[taught], params.label_folds)]
    known, given = np.unique(patient.images.labels[taught], return_inverse=True)
    if len(known) < 2:
        return Finding(f"labels: not checked, as two classes of {params.label_folds} images or more are needed", 0, {})
    probabilities = _probabilities(patient, taught, given, len(known))
    found = suspect_labels.suspects(given, probabilities)
    positions = taught[found["image"].to_numpy()]
    names = np.array(patient.splits.classes, dtype=object)[known]
    suggested = pd.DataFrame({"suggested": names[found["suggested"]]})
    table = pd.concat([patient.columns("image", positions), suggested, found.iloc[:, 3:]], axis=1)
    run.table("suspect_labels.csv", table)
    accuracy = float((probabilities.argmax(1) == given).mean())
    numbers = {"doctor/suspect_labels": float(len(found)), "doctor/cross_validated_accuracy": accuracy}
    line = (
        f"labels: {len(found):,} of {len(taught):,} train labels suspect, as {params.label_folds} networks see it that "
        f"name {accuracy:.1%} of the images they did not learn from as their labels do; test's were not looked at"
    )
    if left := int((patient.parts != of_test).sum()) - len(taught):
        line += f"; not checked, as of classes with fewer than {params.label_folds} images: {left:,}"
    if len(found):
        shown = table.head(SHEET_IMAGES)
        captions = [f"{row.image_class} → {row.suggested} {row.probability_of_given:.3f}" for row in shown.itertuples()]
        title = (
            f"{len(shown)} of {len(table):,} suspect labels, likeliest errors first, with the given label's probability"
        )
        run.figure("suspect_labels.png", plots.gallery(patient.images.take(positions[:SHEET_IMAGES]), captions, title))
    return Finding(line, len(found), numbers)


def _probabilities(patient: Patient, taught: np.ndarray, given: np.ndarray, num_classes: int) -> np.ndarray:
    params = patient.params
    names = [patient.images.names[position] for position in taught]
    thumbnails = Split(patient.looks.thumbnails, taught, given.astype(np.int64), names)
    folds = suspect_labels.probabilities(
        replace(patient.splits, train=thumbnails, classes=tuple(map(str, range(num_classes)))),
        folds=params.label_folds,
        epochs=None if params.label_epochs == "auto" else params.label_epochs,
        flip=params.flip,
        seed=params.seed,
        device=patient.device,
        precision=device.choose_precision(params.precision, patient.device),
    )
    filled = np.zeros((len(taught), num_classes))
    for fold, (held, probabilities) in enumerate(folds, 1):
        filled[held] = probabilities
        right = float((probabilities.argmax(1) == given[held]).mean())
        say(f"doctor: labels, network {fold}/{params.label_folds}: {right:.1%} of {len(held):,} held out as labelled")
    return filled


def _oddities(run: Run, patient: Patient) -> Finding:
    params = patient.params
    files = None
    if params.dataset == FOLDER:
        files = sizes(Path(params.data_dir).expanduser(), patient.images.names)
    found = oddities.find(patient.looks, files, params.image_size, params.odd_deviations, params.max_aspect)
    positions = found["image"].to_numpy()
    table = pd.concat([patient.columns("image", positions), found.drop(columns="image")], axis=1)
    run.table("odd_images.csv", table)
    numbers = {"doctor/odd_images": float(len(found))}
    if not len(found):
        return Finding("odd images: none", 0, numbers)
    counts = found["why"].str.split(", ").explode().value_counts()
    shown = table.head(SHEET_IMAGES)
    captions = [f"{row.image_split} {row.image_class}: {row.why}" for row in shown.itertuples()]
    title = f"{len(shown)} of {len(table):,} odd images"
    run.figure("odd_images.png", plots.gallery(patient.images.take(positions[:SHEET_IMAGES]), captions, title))
    line = f"odd images: {', '.join(f'{count:,} {why}' for why, count in counts.items())}"
    return Finding(line, len(found), numbers)


# Labels, the long one, last: what the others find is said at once.
CHECKS: tuple[Callable[[Run, Patient], Finding], ...] = (_counts, _class_names, _duplicates, _oddities, _labels)
