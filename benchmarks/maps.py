"""Tests whether maps find digits on texture, for every method of maps and a small network of every family.

python -m benchmarks.maps [seed] [family ...]

Each network learns to recognise the digits. Then its maps of unseen images are judged. Two measures know the place of
the digit: pointing and energy (`benchmarks.planted_objects`). The two measures of the step `explain` do not. The last
row says how often these two prefer the same of two maps, and how similar the maps stay if all weights are random. The
method that `auto` chooses is bold; `±` is the standard error over the images. Prints the table, and writes it to
build/maps.md.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import timm
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from torchvision.models import SwinTransformer

from benchmarks.contest import PROJECT
from benchmarks.planted_objects import NUM_CLASSES, Planted, energy, hits, plant
from pipeline import models
from pipeline.explain import attention, attribution
from pipeline.explain.judgement import judge, mean_and_error
from pipeline.models import CamTarget
from pipeline.training import device, optimizers
from pipeline.training.update import predict, train_step

BATCH, JUDGED = 64, 128
MOST_PIXELS = 15_000_000  # that are planted at a time, since 100 million take 14 GB
COLUMNS = "family | digits right | map | pointing | energy | faithfulness (ROAD) | insertion over deletion"


@dataclass(frozen=True)
class Family:
    """A small network of a family, and its training."""

    build: Callable[[int], nn.Module]  # takes the side of the images in px
    where: Callable[[nn.Module], CamTarget]
    side: int
    updates: int
    max_lr: float = 0.01
    fit: Callable[[nn.Module, Tensor], None] = lambda model, images: None  # sets weights that depend on images


def named(name: str, side: int, updates: int, max_lr: float = 0.01, **options: int) -> Family:
    """The family of the network that the pipeline calls `name`."""
    build = partial(_build, name, options)
    return Family(build, partial(models.cam_target, name), side, updates, max_lr, partial(models.fit_to_images, name))


def _build(name: str, options: dict[str, int], side: int) -> nn.Module:
    return models.build(name, num_classes=NUM_CLASSES, image_size=side, **options)


def timm_vit(name: str, updates: int) -> Family:
    """timm's small test network `name` with patches of 4 px instead of 16, so that a digit has 16 whole patches."""
    build = partial(_timm_vit, name)
    return Family(build, partial(models.cam_target, f"timm/{name}"), 32, updates, 0.02)


def _timm_vit(name: str, side: int) -> nn.Module:
    return timm.create_model(name, num_classes=NUM_CLASSES, img_size=side, patch_size=4)


def _swin(side: int) -> nn.Module:
    """torchvision's Swin, much smaller than the named sizes: two stages, windows of 3 tokens a side."""
    return SwinTransformer([2, 2], 32, [2, 2], [2, 4], [3, 3], num_classes=NUM_CLASSES)


def _swin_target(model: nn.Module) -> CamTarget:
    return CamTarget(model.get_submodule("norm"), lambda grid: grid.permute(0, 3, 1, 2))


FAMILIES: dict[str, Family] = {
    "vit, class token": named("vit", 24, 250, 0.005, patch_size=4, dim=64, depth=3, heads=2),
    "swin": Family(_swin, _swin_target, 24, 400, 0.005),
    "resnet18": named("resnet18", 24, 80, width=8),
    "resnet9": named("resnet9", 24, 80, width=16),
    "fast": named("fast", 32, 80, width=16),
    "ultimus": named("ultimus", 24, 200),
    "timm's vit, mean of the tokens": timm_vit("test_vit2", 800),
    "timm's vit, attention pooling": timm_vit("test_vit3", 600),
    "timm's vit, relative positions": timm_vit("test_vit_relpos", 300),
    "timm's coatnet": named("timm/test_coatnet", 96, 80),
    "timm's maxvit": named("timm/test_maxvit", 96, 80),
    "timm's convnext": named("timm/test_convnext", 96, 240, 0.02),
    "timm's resnet": named("timm/test_resnet", 96, 60),
    "timm's efficientnet": named("timm/test_efficientnet", 96, 80),
}


def train(family: Family, seed: int) -> nn.Module:
    """A network of the family, trained to recognise planted digits."""
    torch.manual_seed(seed)
    model = family.build(family.side).train()
    parts = _planted(family, seed)
    first = next(parts)
    family.fit(model, first.images)
    optimizer = optimizers.build("muon", model, lr=family.max_lr, momentum=0.9, weight_decay=0.01)
    schedule = OneCycleLR(optimizer, family.max_lr, family.updates, pct_start=0.2, cycle_momentum=False)
    for planted in chain([first], parts):
        for images, labels in zip(planted.images.split(BATCH), planted.labels.split(BATCH), strict=True):
            train_step(model, images, labels, optimizer, "fp32", 0.0)
            schedule.step()
    return model.eval()


def _planted(family: Family, seed: int) -> Iterator[Planted]:
    """The images of all updates, in parts that fit into memory. Every part has an even seed of its own."""
    at_a_time = MOST_PIXELS // family.side**2 // BATCH
    for start in range(0, family.updates, at_a_time):
        num_updates = min(at_a_time, family.updates - start)
        yield plant(BATCH * num_updates, family.side, 2 * (seed + 1000 * start))


def rows(family: Family, model: nn.Module, planted: Planted, seed: int) -> Iterator[str]:
    """The table's rows: one for each method that the network supports and each control, and one for the agreement."""
    images, labels, boxes = planted.images[:JUDGED], planted.labels[:JUDGED], planted.boxes[:JUDGED]
    chosen = attribution.choose(attribution.AUTO, model, family.where(model), images)
    others = attribution.METHODS if chosen in attention.METHODS else attribution.CAMS
    methods = [chosen, *(method for method in others if method != chosen)]
    judged = judge(family.where, model, images, labels, methods, seed)
    for _, row in judged.scores.iterrows():
        maps = judged.maps[row["source"]]
        pointing = [_with_error(*mean_and_error(found(maps, boxes))) for found in (hits, energy)]
        removed = _with_error(row["faithfulness"], row["standard_error"])
        inserted = _with_error(row["insertion"], row["insertion_error"])
        name = f"**{row['source']}**" if row["source"] == chosen else row["source"]
        yield " | ".join([name, *pointing, removed, inserted])
    last = judged.randomisation["similarity"].iloc[-1]
    yield f"same preference {judged.agreement:.0%}; alike when random {last:.2f} | | | |"


def _with_error(mean: float, error: float) -> str:
    return f"{mean:.2f} ± {error:.2f}"


def main(seed: int, asked: Sequence[str]) -> None:
    """Prints the table of the families in `asked`, or of all if it is empty, and writes build/maps.md."""
    if unknown := [name for name in asked if name not in FAMILIES]:
        raise SystemExit(f"no family is called {unknown[0]} (families: {'; '.join(FAMILIES)})")
    device.choose("cpu")
    out = PROJECT / "build" / "maps.md"
    out.parent.mkdir(exist_ok=True)
    lines = [f"| {COLUMNS} |", f"|{'---|' * (COLUMNS.count('|') + 1)}"]
    print("\n".join(lines), flush=True)
    for name in asked or FAMILIES:
        family = FAMILIES[name]
        model, planted = train(family, seed), plant(512, family.side, 2 * seed + 1)
        logits, labels = predict(model, zip(planted.images.split(BATCH), planted.labels.split(BATCH), strict=True))
        right = f"{(logits.argmax(1) == labels).float().mean():.0%} of {NUM_CLASSES}"
        for line in rows(family, model, planted, seed):
            lines.append(f"| {name} | {right} | {line} |")
            print(lines[-1], flush=True)
        print(f"{name}: after {time.process_time():.0f} s of the processor", file=sys.stderr, flush=True)
    out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 0, sys.argv[2:])
