"""Animations of frames with captions."""

import numpy as np
from PIL import Image

from pipeline.data.encoder import CAPTION_HEIGHT, write_gif


def test_every_frame_plays_in_its_order_below_its_caption(tmp_path):
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    frames = [np.full((20, 120, 3), colour, dtype=np.uint8) for colour in colours]
    write_gif(tmp_path / "a.gif", frames, ["epoch 1", "epoch 2", "epoch 3"], 0.4)
    with Image.open(tmp_path / "a.gif") as played:
        assert (played.n_frames, played.size, played.info["loop"]) == (3, (120, 20 + CAPTION_HEIGHT), 0)
        captions = []
        for number, colour in enumerate(colours):
            played.seek(number)
            pixels = np.asarray(played.convert("RGB")).astype(int)
            assert np.abs(pixels[CAPTION_HEIGHT:] - colour).max() < 16
            captions.append(pixels[:CAPTION_HEIGHT])
            assert played.info["duration"] == (1600 if number == 2 else 400)
    assert all(caption.std() > 10 for caption in captions)
    assert not np.array_equal(captions[0], captions[1])


def test_one_frame_is_a_picture(tmp_path):
    write_gif(tmp_path / "a.gif", [np.zeros((9, 60, 3), dtype=np.uint8)], ["epoch 1"], 0.4)
    with Image.open(tmp_path / "a.gif") as picture:
        assert picture.size == (60, 9 + CAPTION_HEIGHT)
