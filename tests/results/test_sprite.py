"""Sheets of small images for a report: positions, opacity, size, and which images are chosen."""

import io

import numpy as np
import pandas as pd
from PIL import Image

from pipeline.results import sprite


def flat(colours, side):
    return np.repeat(np.repeat(np.array(colours, np.uint8)[:, :, None, None], side, 2), side, 3)


def cut(file, place):
    sheet = np.asarray(Image.open(io.BytesIO(file)))
    return sheet[place.top : place.top + place.side, place.left : place.left + place.side]


def test_the_table_has_the_position_of_each_image():
    draw = np.random.default_rng(0)
    colours = draw.integers(0, 256, (50, 3))
    file, places = sprite.sprite(flat(colours, 16), 64)
    assert len(places) == 50
    for colour, place in zip(colours, places.itertuples(), strict=True):
        middle = cut(file, place)[4:-4, 4:-4]
        assert np.abs(middle.astype(int) - colour).max() < 12


def test_opacity_is_kept_and_large_images_are_shrunk():
    file, places = sprite.sprite(flat([[255, 0, 0, 0], [255, 0, 0, 255]], 100), 40)
    assert places["side"].tolist() == [40, 40]
    clear, full = (cut(file, place) for place in places.itertuples())
    assert clear[..., 3].max() < 10 and full[..., 3].min() > 245


def test_even_noise_stays_within_the_size_limit():
    noise = np.random.default_rng(0).integers(0, 256, (400, 3, 64, 64), dtype=np.uint8)
    file, _ = sprite.sprite(noise, 64)
    assert 2**18 < len(file) <= sprite.MAX_BYTES


def test_chosen_images_represent_every_cell_errors_first_and_most_confident_first():
    draw = np.random.default_rng(0)
    table = pd.DataFrame({"true": draw.integers(0, 3, 900), "predicted": draw.integers(0, 3, 900)})
    table["correct"] = table["true"] == table["predicted"]
    table["confidence"] = draw.random(900)
    chosen = sprite.choose(table, 100)
    assert len(chosen) == 100
    errors = chosen[~chosen["correct"]].groupby(["true", "predicted"]).size()
    assert len(errors) == 6 and errors.max() - errors.min() <= 1
    for (true, predicted), own in chosen.groupby(["true", "predicted"]):
        cell = table[(table["true"] == true) & (table["predicted"] == predicted)]
        assert own["confidence"].tolist() == cell["confidence"].nlargest(len(own)).tolist()
    everything = sprite.choose(table, 10_000)
    assert everything.groupby(["true", "predicted"]).size().max() == sprite.PER_CELL
    assert len(everything[everything["correct"]].groupby("true")) == 3
