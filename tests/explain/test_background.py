"""Where maps lie: a class that is known by what surrounds the object stands out."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.explain import background
from tests.conftest import Workplace

DRAW = np.random.default_rng(0)


def test_the_border_is_half_of_an_even_map_and_a_blank_map_has_none():
    maps = np.zeros((5, 20, 31), np.float32)
    maps[0] = 0.3
    maps[1, 10, 15] = 1  # in the middle
    maps[2, 0, 15] = maps[2, 10, 30] = 1  # at two edges
    maps[3, 0, 0] = maps[3, 10, 15] = 1
    np.testing.assert_allclose(background.border_shares(maps), [0.5, 0, 1, 0.5, np.nan], atol=1e-6)


def test_equally_many_images_of_each_predicted_class_are_chosen_evenly_over_the_split():
    predicted = np.repeat([0, 1, 2], [400, 40, 4])
    chosen = background.choose(predicted, 3)
    assert np.bincount(predicted[chosen]).tolist() == [32, 32]  # four images say too little
    assert chosen[0] == 0 and chosen[31] == 399
    assert len(background.choose(predicted[:4], 1)) == 0


@pytest.mark.parametrize(
    ("means", "outstanding"), [((0.5, 0.5, 0.5), []), ((0.7, 0.4, 0.4), ["a"]), ((0.5, 0.45, 0.45), [])]
)
def test_only_a_class_far_above_the_others_stands_out(means, outstanding):
    shares = np.concatenate([DRAW.normal(mean, 0.05, 20) for mean in means])
    table = background.by_class(shares, np.repeat([0, 1, 2], 20), "abc")
    assert [*table["class"][table["stands_out"]]] == outstanding
    assert bool(background.finding(table)) == bool(outstanding)


def draw(kind):
    """A noisy photo whose bees have petals around them, and whose ants and wasps are discs of a colour."""
    pixels = DRAW.integers(90, 150, (48, 48, 3))
    y, x = np.mgrid[-24:24, -24:24]
    if kind == "bee":
        pixels[np.maximum(abs(x), abs(y)) > 18] = (230, 60, 200)
    else:
        pixels[x**2 + y**2 < 60] = {"ant": (20, 20, 20), "wasp": (240, 220, 20)}[kind]
    return Image.fromarray(pixels.astype(np.uint8))


def test_explain_says_which_class_is_known_by_the_border_of_its_photos(tmp_path, capsys):
    for kind in ("ant", "bee", "wasp"):
        for part, number in (("train", 24), ("test", 10)):
            folder = tmp_path / "photos" / part / kind
            folder.mkdir(parents=True)
            for place in range(number):
                draw(kind).save(folder / f"{place}.png")
    place = Workplace(tmp_path)
    network = {"model": "resnet9", "width": 8, "image_size": 48, "batch_size": 12, "epochs": 5, "max_lr": 0.01}
    own = {"crop_padding": 0, "num_images": 2, "steps": "train,explain"}
    images = {"experiment": "none", "dataset": "folder", "data_dir": tmp_path / "photos"}
    assert place.run("main", **images, **network, **own) == 0
    (run,) = place.runs("explain")
    path = place.client.download_artifacts(run.info.run_id, "explain/border.csv", str(tmp_path))
    table = pd.read_csv(path)
    assert [*table["class"][table["stands_out"]]] == ["bee"] == [table["class"][0]]
    assert table["border_share"][0] > 0.5 > table["other_classes"][0]
    said = " of what speaks for bee lies on the border of the image"
    assert said in capsys.readouterr().err and said in run.data.tags["mlflow.note.content"]
    assert 0 < run.data.metrics["explain/border_share"] < 1
