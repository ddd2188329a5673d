"""The doctor's check of labels: trains networks to find labels that are probably wrong."""

import logging
from dataclasses import replace

import numpy as np
import pandas as pd

from pipeline.data import Split
from pipeline.doctor import duplicates, suspect_labels
from pipeline.progress import say
from pipeline.results import plots
from pipeline.steps.patient import SHEET_IMAGES, Finding, Patient
from pipeline.tracking.run import Run
from pipeline.training import device

log = logging.getLogger(__name__)


def check(run: Run, patient: Patient) -> Finding:
    """Logs the suspect labels of the train and validation images. Each is judged by a network that did not see it."""
    params, test_part = patient.params, patient.names.index("test")
    if params.label_epochs == 0:
        return Finding("labels: not checked (label_epochs=0)", 0, {})
    checked = np.flatnonzero(patient.parts != test_part)
    families = _families(patient)
    labels = patient.images.labels[checked]
    checked = checked[suspect_labels.can_be_checked(labels, families[checked], params.label_folds)]
    known, given = np.unique(patient.images.labels[checked], return_inverse=True)
    if len(known) < 2:
        return Finding(
            f"labels: not checked, because that needs two classes of {params.label_folds} images or more", 0, {}
        )
    probabilities = _probabilities(patient, checked, given, families[checked], len(known))
    positions, table = _suspects(patient, checked, known, given, probabilities)
    run.table("suspect_labels.csv", table)
    if positions:
        _draw_sheet(run, patient, positions, table)
    accuracy = float((probabilities.argmax(1) == given).mean())
    line = _sentence(patient, len(positions), len(checked), accuracy)
    numbers = {"doctor/suspect_labels": float(len(positions)), "doctor/cross_validated_accuracy": accuracy}
    suggested = dict(zip(positions, table["suggested"], strict=True))
    return Finding(line, len(positions), numbers, _reasons(positions, table), suggested)


def _suspects(
    patient: Patient, checked: np.ndarray, known: np.ndarray, given: np.ndarray, probabilities: np.ndarray
) -> tuple[list[int], pd.DataFrame]:
    """The positions of the suspect images, likeliest errors first, and a table with a row for each.

    checked: (N,) positions of the images that were judged. known: (C,) their classes. given: (N,) the label of each, as
    an index into `known`. probabilities: (N, C).
    """
    copies = _copies_of_another_class(patient)
    class_of_copy = {position: patient.images.labels[copy] for position, copy in copies.items()}
    place = {label: number for number, label in enumerate(known.tolist())}
    of_copy = np.array([place.get(class_of_copy.get(position, -1), -1) for position in checked])
    found = suspect_labels.suspects(given, probabilities, of_copy)
    positions = checked[found["image"].to_numpy()]
    classes = np.array(patient.splits.classes, dtype=object)[known]
    suggested = pd.DataFrame({"suggested": classes[found["suggested"]]})
    names_of_copies = [patient.images.names[copies[each]] if each in copies else "" for each in positions]
    copy = pd.Series(names_of_copies, dtype=object, name="exact_copy_of_another_class")
    table = pd.concat([patient.columns("image", positions), suggested, found.iloc[:, 3:], copy], axis=1)
    return positions.tolist(), table


def _draw_sheet(run: Run, patient: Patient, positions: list[int], table: pd.DataFrame) -> None:
    shown = table.head(SHEET_IMAGES)
    captions = [f"{row.image_class} → {row.suggested} {row.probability_of_given:.3f}" for row in shown.itertuples()]
    title = f"{len(shown)} of {len(table):,} suspect labels, likeliest errors first, with the given label's probability"
    run.figure(
        "suspect_labels.png", plots.gallery(patient.images.take(np.array(positions[:SHEET_IMAGES])), captions, title)
    )


def _sentence(patient: Patient, num_suspects: int, num_checked: int, accuracy: float) -> str:
    num_folds = patient.params.label_folds
    judges = "networks" if patient.features is None else "probes of a pretrained network"
    sentence = (
        f"labels: {num_suspects:,} of {num_checked:,} train labels are suspect; {num_folds} {judges} judged images "
        f"that they did not learn from, and agree with {accuracy:.1%} of the labels; labels of test are not checked"
    )
    if num_left := int((patient.parts != patient.names.index("test")).sum()) - num_checked:
        sentence += f"; {num_left:,} not checked, because their classes have fewer than {num_folds} images"
    return sentence


def _reasons(positions: list[int], table: pd.DataFrame) -> dict[int, str]:
    return {
        position: f"looks like {row.suggested} ({row.probability_of_suggested:.0%}), not {row.image_class} "
        f"({row.probability_of_given:.0%})"
        for position, row in zip(positions, table.itertuples(), strict=True)
    }


def _families(patient: Patient) -> np.ndarray:
    twins = patient.twins[["image", "twin"]].to_numpy(dtype=np.int64)
    return suspect_labels.families(patient.splits.groups_of(patient.images), twins[:, 0], twins[:, 1])


def _probabilities(
    patient: Patient, checked: np.ndarray, given: np.ndarray, families: np.ndarray, num_classes: int
) -> np.ndarray:
    params = patient.params
    if patient.features is not None:
        folds = suspect_labels.probabilities_from_features(
            patient.features[checked], given, families, folds=params.label_folds, seed=params.seed
        )
    else:
        names = [patient.images.names[position] for position in checked]
        precision = device.choose_precision(params.precision, patient.device)
        log.info(device.chosen(params, patient.device, precision))
        thumbnails = Split(patient.looks.thumbnails, checked, given.astype(np.int64), names)
        folds = suspect_labels.probabilities(
            replace(patient.splits, train=thumbnails, classes=tuple(map(str, range(num_classes)))),
            families,
            folds=params.label_folds,
            epochs=None if params.label_epochs == "auto" else params.label_epochs,
            flip=params.flip,
            seed=params.seed,
            device=patient.device,
            precision=precision,
        )
    filled = np.zeros((len(checked), num_classes))
    for fold, (held, probabilities) in enumerate(folds, 1):
        filled[held] = probabilities
        right = float((probabilities.argmax(1) == given[held]).mean())
        say(f"doctor: labels, fold {fold}/{params.label_folds}: {right:.1%} of {len(held):,} held out as labelled")
    return filled


def _copies_of_another_class(patient: Patient) -> dict[int, int]:
    """The position of an exact copy with another label, by the position of each image that has one."""
    pairs = duplicates.contradictions(patient.twins, patient.images.labels)
    images, twins = pairs["image"].tolist(), pairs["twin"].tolist()
    return dict(zip([*twins, *images], [*images, *twins], strict=True))
