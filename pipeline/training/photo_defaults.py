"""Defaults for a folder of photos: network, image size, batch size and epochs."""

import sys
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.cache import TEST, TRAIN, VALID
from pipeline.data.decoder import sizes
from pipeline.data.folders import list_images
from pipeline.data.splits import TEST_FRACTION, evenly_spaced
from pipeline.models import timm_networks
from pipeline.models.weights import published_size
from pipeline.params import DataParams
from pipeline.text import shown

BACKBONE = "timm/tf_efficientnet_lite0"  # 4.7 M parameters, Apache-2.0; fast on a CPU: docs/photos.md
FROM_NOTHING = {"model": "resnet18", "width": 32, "max_lr": "auto", "lr_decay": 1.0}
STEPS_FROM_NOTHING = "lr_range,train,evaluate,explain"
SMALL, LARGE = 64, 128  # px, image sizes to train from nothing
LOOKED_AT = 256  # photos whose headers are read to find their size
LARGEST_BATCH, BATCHES_PER_EPOCH = 32, 8
UPDATES, FEWEST_EPOCHS, MOST_EPOCHS = 600, 4, 20  # of a fine-tuning
OF_A_PROBE = ("model", "weights", "image_size")  # a probe has no use for the other choices
FIRST_SIDE = 5 / 7  # share of image_size for the images of the first updates, rounded to a multiple of GRID
GRID = 32  # px that become one cell of a backbone's grid
UNEVEN = 3.0  # ratio of the largest to the smallest class, above which classes get weights

Choice = tuple[str, Any, str]  # parameter, value, and a line that says why
KEPT_NORMS: Choice = (
    "freeze_norms",
    "on",
    "freeze_norms=on: batch norms, if the network has any, keep the statistics of their weights",
)
RATE: Choice = (
    "max_lr",
    1e-3,
    "max_lr=0.001: measured with AdamW and EfficientNet-Lite0 on photos; max_lr=auto runs a range test instead",
)


def choose(given: Mapping[str, Any], is_probe: bool = False) -> tuple[dict[str, Any], list[str]]:
    """Values for the parameters that `given` leaves open, and a line for each choice that says why.

    given: parameters by name, with the data_dir and labels of the folder. is_probe: whether they are for a probe alone,
    which needs pretrained weights and has no epochs or batches. Raises ValueError for a folder that cannot be read, and
    for a probe without weights.
    """
    root = Path(str(given["data_dir"])).expanduser()
    found = list_images(root, str(given.get("labels", "")))
    files = [file for file in found.files if file.part == TRAIN]
    weights = str(given.get("weights", "none" if "model" in given else "default"))
    if is_probe and weights == "none":
        return {}, []  # the step raises an error that says why
    network = _network(given, weights, root, [shown(file.path) for file in files], is_probe)
    if is_probe:
        network = [choice for choice in network if choice[0] in OF_A_PROBE]
    number = _num_train(len(files), {file.part for file in found.files}, given)
    of_training = () if is_probe else _of_training(given, number, Counter(file.label for file in files))
    open_ones = [(name, value, line) for name, value, line in (*network, *of_training) if name not in given]
    return {name: value for name, value, _ in open_ones}, list(dict.fromkeys(line for *_, line in open_ones if line))


def _network(given: Mapping[str, Any], weights: str, root: Path, names: list[str], is_probe: bool) -> list[Choice]:
    """Network, starting weights and size, if `given` leaves them open.

    Raises ValueError if a probe has no pretrained weights.
    """
    if "model" not in given and weights == "default":
        try:
            return _pretrained(timm_networks.check(BACKBONE), given)
        except ValueError as error:
            if is_probe:
                raise
            return _from_nothing(f"no pretrained weights: {error}", _side(root, names), given)
    if "model" not in given and weights == "none":
        return _from_nothing("weights=none", _side(root, names), given)
    if weights == "none":
        side = _side(root, names)
        sides = "at least" if side == LARGE else "less than"
        return [("image_size", side, f"image_size={side}: most photos have {sides} {LARGE} px on their shorter side")]
    if size := published_size(str(given.get("model", "")), weights):
        return [("image_size", size, f"image_size={size}: as in the weights' own training"), KEPT_NORMS, *_rate(given)]
    return [KEPT_NORMS, *_rate(given)]


def _pretrained(described: Any, given: Mapping[str, Any]) -> list[Choice]:
    size = described.input_size[-1]
    first = round(_number(given, "image_size", size) * FIRST_SIDE / GRID) * GRID
    network = {"model": BACKBONE, "weights": "default", "image_size": size}
    open_ones = ", ".join(f"{name}={value}" for name, value in network.items() if name not in given)
    line = f"{open_ones}: pretrained on ImageNet ({described.license})"
    smaller = f"first_size={first}: the first half of the updates see smaller images, which saves time"
    chosen = [(name, value, line) for name, value in network.items()]
    return [*chosen, ("first_size", first, smaller), KEPT_NORMS, *_rate(given)]


def _rate(given: Mapping[str, Any]) -> list[Choice]:
    """The measured rate, for the optimizer that it was measured with. Any other needs a range test."""
    return [RATE] if given.get("optimizer", "adamw") == "adamw" else []


def _from_nothing(why: str, side: int, given: Mapping[str, Any]) -> list[Choice]:
    network = {**FROM_NOTHING, "image_size": side, "weights": "none", "steps": STEPS_FROM_NOTHING}
    line = f"{why}. Training from nothing at {_number(given, 'image_size', side):g} px instead"
    return [(name, value, line) for name, value in network.items()]


def _of_training(given: Mapping[str, Any], number: int, counts: Mapping[str, int]) -> Iterator[Choice]:
    """Batch size, epochs and class weights for `number` photos to train on. `counts` has the photos of each class."""
    batch = int(_number(given, "batch_size", 0)) or _batch_size(number)
    yield "batch_size", batch, f"batch_size={batch}: some {number:,} photos to train on"
    epochs = min(MOST_EPOCHS, max(FEWEST_EPOCHS, UPDATES // -(-number // batch)))
    yield "epochs", epochs, f"epochs={epochs}: about {UPDATES} updates, within {FEWEST_EPOCHS} to {MOST_EPOCHS} epochs"
    fewest, most = min(counts.values()), max(counts.values())
    if most > UNEVEN * fewest:
        yield "class_weights", "balanced", f"class_weights=balanced: {fewest:,} to {most:,} photos a class"


def _number(given: Mapping[str, Any], name: str, default: float) -> float:
    """A given number, or `default`. Invalid text counts as not given: the check of all parameters rejects it later."""
    try:
        value = float(given.get(name, default))
    except (TypeError, ValueError):
        return default
    return value if 0 <= value < sys.maxsize else default


def _num_train(number: int, parts: Container[int], given: Mapping[str, Any]) -> int:
    """How many of `number` photos remain to train on, if the splits are divided image by image, without groups."""
    if TEST not in parts:
        number -= max(1, round(TEST_FRACTION * number))
    number = min(number, int(_number(given, "limit_train", 0)) or number)
    fraction = _number(given, "valid_fraction", DataParams.model_fields["valid_fraction"].default)
    if fraction and VALID not in parts:
        number -= max(1, round(fraction * number))
    return max(1, number)


def _batch_size(number: int) -> int:
    """A size that gives several batches per epoch and no last batch of one image, which batch norms cannot train on."""
    wanted = max(2, min(LARGEST_BATCH, number // BATCHES_PER_EPOCH))
    return next((size for size in range(wanted, number + 1) if number % size != 1), max(1, number))


def _side(root: Path, names: list[str]) -> int:
    return LARGE if median_side(root, names) >= LARGE else SMALL


def median_side(root: Path, names: list[str]) -> float:
    """The median of the shorter sides (px) of the photos `names` below `root`, estimated from some of them.

    Names are as `shown` writes them. The result is NaN if none of these photos can be read.
    """
    some = [names[position] for position in evenly_spaced(len(names), LOOKED_AT)]
    shorter = sizes(root, some, progress=False).min(axis=1)
    return float(np.median(shorter[shorter > 0]))
