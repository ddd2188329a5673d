"""The pictures of the slider of maps over epochs: their size limit and their table."""

import numpy as np

from pipeline.report import sections
from pipeline.results import sprite


def test_the_largest_slider_stays_within_its_size_limit():
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (64, 3, 112, 112), dtype=np.uint8)
    maps = {epoch: draw.integers(0, 256, (64, 112, 112), dtype=np.uint8) for epoch in range(1, 61)}
    found = sprite.slider_files(images, [{"name": "x", "class": "y"}] * 64, maps)
    assert all(2**15 < len(content) <= sprite.SLIDER_BYTES for content, _ in found.values())
    assert len(found["maps"][1]) == 60 * 64 <= sections.WATCHED_MAPS


def test_a_map_with_a_single_point_is_not_blank_even_if_it_is_shrunk():
    maps = {epoch: np.zeros((2, 112, 112), dtype=np.uint8) for epoch in range(1, 200)}
    maps[5][1, 111, 111] = 255
    _, table = sprite.slider_files(np.zeros((2, 3, 112, 112), np.uint8), [{"name": "x", "class": "y"}] * 2, maps)[
        "maps"
    ]
    assert table.loc[~table["blank"], ["image", "epoch"]].to_numpy().tolist() == [[1, 5]]
    assert table["side"].max() < 112
