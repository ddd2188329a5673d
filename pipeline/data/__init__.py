"""Loads an image set, by name or from a folder, as train, validation and test splits of uint8 images."""

import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.data import cache, folders, named_sets
from pipeline.data.cache import TEST, VALID, Decoded
from pipeline.data.parts import photos
from pipeline.data.splits import TEST_FRACTION, Report, Split, Splits, divide
from pipeline.data.tree import in_words
from pipeline.text import shown

__all__ = ["DATASETS", "Report", "Split", "Splits", "load"]

log = logging.getLogger(__name__)

FOLDER = "folder"
DATASETS = (*named_sets.SETS, FOLDER)
MAX_NAMED = 10  # the log names at most 10 left-out files, and at most 10 classes that have too few images


def load(
    dataset: str,
    *,
    data_dir: str | Path,
    image_size: int,
    valid_fraction: float,
    limit_train: int,
    limit_test: int,
    limit_seed: int = 0,
    labels: str = "",
    valid_as_test: bool = False,
    folds: int = 0,
    fold: int = 0,
    resize: str = "crop",
    interpolation: str = "bicubic",
    margin: int = 0,
    progress: bool = True,
) -> Splits:
    """The splits of `dataset`, with RGB uint8 images of `image_size` px. The cache makes later calls fast.

    dataset: one of DATASETS. "folder" reads `data_dir` itself. The other sets are stored in `data_dir`.
    valid_fraction: share of train that becomes the validation split, in [0, 1).
    limit_train, limit_test: number of images, 0 for all. limit_seed: chooses the train images.
    labels: a CSV file that lists the images of the folder.
    valid_as_test: uses the validation part of a folder as the test split. The folder must have no test part.
    folds: number of parts of the train and validation images, or 0. fold: the part that is the test split, from 1.
    resize: makes images square, a key of `RESIZES`. interpolation: scales them, one of `INTERPOLATIONS`.
    margin: extra px stored on every side of the images, for `Split.with_margin`.
    Raises ValueError for mistakes that the user can fix. Its message is one line that says what to do.
    """
    if dataset not in DATASETS:
        raise ValueError(f"dataset={dataset} is not known: use one of {', '.join(DATASETS)}")
    if not 0 <= valid_fraction < 1:
        raise ValueError(f"valid_fraction={valid_fraction:g} must be at least 0 and less than 1")
    if image_size < 1 or limit_train < 0 or limit_test < 0:
        raise ValueError("image_size must be at least 1, limit_train and limit_test at least 0")
    if folds and not fold:
        raise ValueError(f"folds={folds}: give fold=1 to {folds}; only main runs all of them")
    # Path methods raise if there is no such user, or if a folder may not be entered.
    root, stored_size = Path(os.path.expanduser(data_dir)), image_size + 2 * margin  # noqa: PTH111
    if dataset == FOLDER:
        decoded, listing = folders.read(
            root, stored_size, labels=labels, resize=resize, interpolation=interpolation, progress=progress
        )
        has_test = TEST in decoded.parts
        if valid_as_test:
            decoded = _with_valid_as_test(decoded, root)
        name, flip = shown(root.resolve().name), True
        left_out = sorted([*listing.left_out, *decoded.corrupt])
        report = Report(dict(+listing.skipped), dict(listing.unread), left_out, listing.remarks)
        groups = {shown(path): shown(group) for path, group in listing.groups.items()}
        columns = {
            shown(name): {shown(path): shown(value) for path, value in cells.items()}
            for name, cells in listing.columns.items()
        }
    else:
        decoded = named_sets.read(dataset, root, stored_size, interpolation=interpolation, progress=progress)
        name, flip, report, has_test = dataset, named_sets.SETS[dataset].flip, Report(), True
        groups, columns = {}, {}
    if decoded.images.shape[-1] != stored_size:
        raise ValueError(f"the cached images of {dataset} in {cache.folder()} are of another size: remove them")
    _log_report(report)
    splits = divide(
        decoded,
        name,
        flip=flip,
        report=report,
        valid_fraction=valid_fraction,
        limit_train=limit_train,
        limit_test=limit_test,
        limit_seed=limit_seed,
        folds=folds,
        fold=fold,
        margin=margin,
    )
    splits = replace(splits, groups=groups, columns=columns)
    if folds:
        log.info("fold %d of %d is the test split: %s", fold, folds, photos(len(splits.test)))
    elif not has_test:
        log.info("%s has no test part: %s", root, _origin_of_splits(splits, VALID in decoded.parts, valid_as_test))
    _warn_of_small_classes(splits)
    return splits


def _with_valid_as_test(decoded: Decoded, root: Path) -> Decoded:
    if TEST in decoded.parts:
        raise ValueError(f"valid_as_test=on: data_dir={root} has a test part: leave valid_as_test off")
    if VALID not in decoded.parts:
        raise ValueError(f"valid_as_test=on: data_dir={root} has no validation part that could be the test part")
    return replace(decoded, parts=np.where(decoded.parts == VALID, TEST, decoded.parts))


def _origin_of_splits(splits: Splits, has_valid: bool, valid_as_test: bool) -> str:
    """Says which images became each split of a folder that has no test part."""
    num_train, num_test = len(splits.train), len(splits.test)
    num_valid = 0 if splits.valid is None else len(splits.valid)
    if valid_as_test:
        return (
            f"its validation part, {photos(num_test)}, is the test split; "
            f"of the train part, {num_train:,} train and {num_valid:,} validate"
        )
    fifth = f"{TEST_FRACTION:.0%} of train, stratified, become the test split: {photos(num_test)}"
    if has_valid:
        whole = f"{num_train:,} train, and its validation part, {photos(num_valid)}, validates"
        return f"{fifth}; {whole} (valid_as_test=on makes that part the test split)"
    return f"{fifth}; {num_train:,} train, {num_valid:,} validate"


def _warn_of_small_classes(splits: Splits) -> None:
    trained, tested = (np.bincount(each.labels, minlength=len(splits.classes)) for each in (splits.train, splits.test))
    unmeasured = "its accuracy cannot be measured"
    for fault, is_affected, consequence in (
        ("one train image and no test image of", (tested == 0) & (trained == 1), unmeasured),
        ("no test image of", (tested == 0) & (trained > 1), unmeasured),
        ("one train image of", (tested > 0) & (trained == 1), "the network can learn little about it"),
    ):
        names = [splits.classes[label] for label in np.flatnonzero(is_affected)]
        if names:
            more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
            log.warning("%s class %s%s: %s", fault, ", ".join(names[:MAX_NAMED]), more, consequence)


def _log_report(report: Report) -> None:
    for remark in report.remarks:
        log.warning("%s", remark)
    for path, reason in report.left_out[:MAX_NAMED]:
        log.warning("%s left out: %s", path, reason)
    if len(report.left_out) > MAX_NAMED:
        log.warning("and %d more files left out", len(report.left_out) - MAX_NAMED)
    if report.unread:
        log.warning("photos left out: %s", in_words(report.unread))
