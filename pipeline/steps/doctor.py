"""The doctor as a tracked step: finds faults of an image set before a training runs on it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pipeline.data import FOLDER, Split, Splits
from pipeline.data.decoder import sizes
from pipeline.data.detail import detail
from pipeline.data.splits import evenly_spaced
from pipeline.data.tree import in_words
from pipeline.doctor import class_names, duplicates, looks, oddities
from pipeline.params import DoctorParams
from pipeline.progress import conclude
from pipeline.results import plots
from pipeline.steps import label_check, label_suggestions, photo_features
from pipeline.steps.patient import SHEET_IMAGES, Finding, Patient
from pipeline.steps.photo_features import Features
from pipeline.steps.step import Result, tracked
from pipeline.text import unmarked
from pipeline.tracking.run import Run
from pipeline.training import device
from pipeline.training.recipe import load_splits

DETAIL_FILES = 32  # number of files to read in detail
LEAST_UPSCALING = 1.9  # the least ratio of a file's side to its detail that counts as upscaled
PAIR_GAP = 2  # px between the two images of a pair


def run(params: DoctorParams, parent: Run | None = None) -> Result:
    """Examines the image set that `params` name."""
    where = device.choose(params.device)
    features = None if params.dataset != FOLDER or params.experiment == "none" else photo_features.find(params)
    if features is not None and "image_size" not in params.model_fields_set:
        params = params.model_copy(update={"image_size": features.image_size})  # these images are decoded already
    splits = load_splits(params)
    name = f"{params.set_name} doctor"
    with tracked("doctor", name, params.model_dump(), {"dataset": params.dataset}, parent) as step:
        run = step.run
        run.dataset(splits.name, splits.digest, params.data_dir, "doctor")
        patient = _patient(params, splits, where, features)
        findings = []
        for check in CHECKS:
            findings.append(check(run, patient))
            if findings[-1].line:
                conclude(f"doctor: {findings[-1].line}")
        if params.dataset == FOLDER:
            label_suggestions.write(run, patient, findings)
        numbers = {name: value for finding in findings for name, value in finding.metrics.items()}
        run.metrics(numbers)
        lines = [finding.line for finding in findings if finding.line]
        if not any(finding.faults for finding in findings):
            lines.append("nothing wrong was found")
            conclude(f"doctor: {lines[-1]}")
        run.describe(name, "\n".join(["**Doctor**", "", *(f"- {unmarked(line)}" for line in lines)]))
        step.say_where("tables and sheets are")
        return Result(run.id, f"Doctor: {'; '.join(lines)}", numbers)


def _patient(params: DoctorParams, splits: Splits, where: torch.device, features: Features | None) -> Patient:
    """The patient of the checks: the images of all splits together, with what their pixels and features show."""
    by_name = {"train": splits.train, "valid": splits.valid, "test": splits.test}
    present = {name: split for name, split in by_name.items() if split is not None}
    images = replace(
        splits.train,
        rows=np.concatenate([split.rows for split in present.values()]),
        labels=np.concatenate([split.labels for split in present.values()]),
        names=[name for split in present.values() for name in split.names],
    )
    parts = np.repeat(np.arange(len(present)), [len(split) for split in present.values()])
    seen = None if features is None else features.of(images.names)
    return Patient(params, splits, tuple(present), images, parts, looks.survey(images), where, seen)


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
        return Finding("class names: no two are alike", 0, numbers)
    groups = "; ".join(" and ".join(f"'{name}'" for name in group) for group in found)
    return Finding(f"class names that differ only by case, blanks or Unicode form: {groups}", len(found), numbers)


def _contradictions(run: Run, patient: Patient) -> Finding:
    pairs = duplicates.contradictions(patient.twins, patient.images.labels)
    numbers = {"doctor/contradictions": float(len(pairs))}
    if not len(pairs):
        return Finding("", 0, numbers)
    image, twin = (pairs[column].to_numpy(dtype=np.int64) for column in ("image", "twin"))
    table = pd.concat([patient.columns("image", image), patient.columns("twin", twin)], axis=1)
    run.table("contradictions.csv", table)
    first = table.iloc[0]
    example = f"{first['twin']} is {first['twin_class']}, its copy {first['image']} is {first['image_class']}"
    line = f"exact copies under two classes: {len(pairs):,} (contradictions.csv), one label of each is wrong: {example}"
    reasons = {
        position: f"exact copy of {row[other]}, which is {row[f'{other}_class']}"
        for positions, other in ((twin, "image"), (image, "twin"))
        for position, row in zip(positions.tolist(), table.to_dict("records"), strict=True)
    }
    return Finding(line, len(pairs), numbers, reasons)


def _detail(run: Run, patient: Patient) -> Finding:
    params = patient.params
    if params.dataset != FOLDER:
        return Finding("", 0, {})
    names = patient.images.names
    found = detail(Path(params.data_dir).expanduser(), [names[i] for i in evenly_spaced(len(names), DETAIL_FILES)])
    if found is None:
        return Finding("", 0, {})
    numbers = {"doctor/detail_px": found.detail, "doctor/side_px": found.side}
    if found.detail * LEAST_UPSCALING > found.side:
        return Finding("", 0, numbers)
    line = (
        f"upscaled: most files hold some {found.detail:.0f} px of detail on their shorter side of {found.side:.0f} px "
        f"(measured on {found.looked_at} files): images of more than {found.detail:.0f} px cost time and show no more"
    )
    return Finding(line, 1, numbers)


def _duplicates(run: Run, patient: Patient) -> Finding:
    found = patient.twins
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
    title = f"{min(SHEET_IMAGES, len(table))} of {len(table):,} duplicates, of two classes and across splits first"
    run.figure("duplicates.png", plots.gallery(_pairs(patient.images, twin[shown], image[shown]), captions, title))
    # `_contradictions` gives the reasons of exact copies under two classes.
    reasons = {
        position: f"{row['kind']} copy of {row['twin']}, in {row['twin_split']}"
        for position, row in zip(image.tolist(), table.to_dict("records"), strict=True)
        if row["kind"] == "near" or row["image_class"] == row["twin_class"]
    }
    return Finding(f"duplicates: {'; '.join(counted)}", len(found), numbers, reasons)


def _pairs(images: Split, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Each pair of images as one image, side by side with a white gap between them."""
    pairs = np.concatenate([images.take(left), images.take(right)], axis=3)
    middle = pairs.shape[3] // 2
    return np.insert(pairs, [middle] * PAIR_GAP, 255, axis=3)


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
    return Finding(line, len(found), numbers, dict(zip(positions.tolist(), found["why"], strict=True)))


# The surest check is first. The slow check of labels is last, so that the findings of the others appear at once.
CHECKS: tuple[Callable[[Run, Patient], Finding], ...] = (
    *(_contradictions, _counts, _class_names, _duplicates, _oddities, _detail),
    label_check.check,
)
