"""Defaults for a folder of photos: network, size, batch and epochs."""

from collections import Counter
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.cache import TEST, TRAIN, VALID
from pipeline.data.decoder import sizes
from pipeline.data.folders import list_images
from pipeline.data.splits import TEST_FRACTION
from pipeline.models import timm_networks
from pipeline.params import DataParams

BACKBONE = "timm/tf_efficientnet_lite0"  # 4.7 M parameters, Apache-2.0; fast on a CPU: docs/photos.md
FROM_NOTHING = {"model": "resnet18", "width": 32, "max_lr": "auto", "lr_decay": 1.0}
STEPS_FROM_NOTHING = "lr_range,train,evaluate,explain"
SMALL, LARGE = 64, 128  # px, sizes of images that a network from nothing is trained on
LOOKED_AT = 256  # photos whose headers tell how large they are
LARGEST_BATCH, BATCHES_PER_EPOCH = 32, 8
UPDATES, FEWEST_EPOCHS, MOST_EPOCHS = 600, 4, 20  # of a fine-tuning
UNEVEN = 3.0  # ratio of class sizes, largest to smallest


def choose(given: Mapping[str, Any], is_probe: bool = False) -> tuple[dict[str, Any], list[str]]:
    """Values for parameters that `given` leaves open, and a line for each choice that says why.

    given: parameters by name, with the data_dir and labels of the folder. is_probe: whether they are of a probe alone,
    which needs pretrained weights, and has neither epochs nor batches. Raises ValueError for a folder that cannot be
    read, and for a probe without weights.
    """
    root = Path(str(given["data_dir"])).expanduser()
    found = list_images(root, str(given.get("labels", "")))
    files = [file for file in found.files if file.part == TRAIN]
    counts = Counter(file.label for file in files)
    chosen: dict[str, Any] = {}
    lines = []
    paths = [file.path for file in files]
    weights = str(given.get("weights", "none" if "model" in given else "default"))
    if is_probe and weights == "none":
        return {}, []  # the step refuses it
    if "model" not in given and weights in ("default", "none"):
        network, line = (
            _network(root, paths, is_probe) if weights == "default" else _from_nothing(root, paths, "weights=none")
        )
        chosen |= {name: value for name, value in network.items() if name not in given}
        lines.append(line)
    elif "image_size" not in given and weights == "none":
        chosen["image_size"] = _side(root, paths)
        lines.append(f"image_size={chosen['image_size']}: {LARGE} where half of the photos are as large, else {SMALL}")
    of_network = [*lines]
    number = _num_train(len(files), {file.part for file in found.files}, given)
    if "batch_size" not in given:
        chosen["batch_size"] = _batch_size(number)
        lines.append(f"batch_size={chosen['batch_size']}: some {number:,} photos to train on")
    if "epochs" not in given:
        batches = -(-number // int(given.get("batch_size", chosen.get("batch_size", 1))))
        chosen["epochs"] = min(MOST_EPOCHS, max(FEWEST_EPOCHS, UPDATES // batches))
        lines.append(f"epochs={chosen['epochs']}: some {UPDATES} updates, but {FEWEST_EPOCHS} to {MOST_EPOCHS} epochs")
    fewest, most = min(counts.values()), max(counts.values())
    if "class_weights" not in given and most > UNEVEN * fewest:
        chosen["class_weights"] = "balanced"
        lines.append(f"class_weights=balanced: {fewest:,} to {most:,} photos a class")
    return chosen, of_network if is_probe else lines


def _num_train(number: int, parts: Container[int], given: Mapping[str, Any]) -> int:
    """How many of `number` photos are left to train on, as splits are divided where no group goes together."""
    if TEST not in parts:
        number -= max(1, round(TEST_FRACTION * number))
    number = min(number, int(given.get("limit_train", 0)) or number)
    fraction = float(given.get("valid_fraction", DataParams.model_fields["valid_fraction"].default))
    if fraction and VALID not in parts:
        number -= max(1, round(fraction * number))
    return max(1, number)


def _batch_size(number: int) -> int:
    """Several batches an epoch, and none of one image at its end, which batch norms could not train on."""
    wanted = max(2, min(LARGEST_BATCH, number // BATCHES_PER_EPOCH))
    return next((size for size in range(wanted, number + 1) if number % size != 1), max(1, number))


def _network(root: Path, names: list[str], is_needed: bool) -> tuple[dict[str, Any], str]:
    """The pretrained backbone if its weights can be had, else a network from nothing; and why.

    Raises ValueError where it `is_needed` and cannot be had.
    """
    try:
        described = timm_networks.check(BACKBONE)
    except ValueError as error:
        if is_needed:
            raise
        return _from_nothing(root, names, f"no pretrained weights: {error}")
    size = described.input_size[-1]
    network = {"model": BACKBONE, "weights": "default", "image_size": size}
    return (
        network,
        f"model={BACKBONE}, weights=default, image_size={size}: pretrained on ImageNet ({described.license})",
    )


def _from_nothing(root: Path, names: list[str], why: str) -> tuple[dict[str, Any], str]:
    side = _side(root, names)
    network = {**FROM_NOTHING, "image_size": side, "weights": "none", "steps": STEPS_FROM_NOTHING}
    return network, f"{why}. Training from nothing at {side} px instead"


def _side(root: Path, names: list[str]) -> int:
    some = [names[position] for position in np.linspace(0, len(names) - 1, min(LOOKED_AT, len(names))).astype(int)]
    shorter = sizes(root, some, progress=False).min(axis=1)
    return LARGE if np.median(shorter[shorter > 0]) >= LARGE else SMALL
