"""The snippet of the documentation that reads photos for an exported model.onnx: it agrees with `predict`."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.data.decoder import INTERPOLATIONS, RESIZES
from pipeline.model_files import export
from pipeline.model_files.classifier import Classifier, parse
from tests.model_files.test_export import classifier

SNIPPET = Path(__file__).parent.parent.parent / "docs/snippets/onnx_probabilities.py"


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Large photos of soft colours and noise: wide, tall, turned by EXIF, transparent, small and grey."""
    folder = tmp_path_factory.mktemp("photos")
    draw = np.random.default_rng(0)
    coarse = Image.fromarray(draw.integers(0, 256, (30, 45, 3), dtype=np.uint8)).resize((2400, 1600))
    fine = np.asarray(coarse).astype(int) + draw.integers(-40, 40, (1600, 2400, 1))
    image = Image.fromarray(fine.clip(0, 255).astype(np.uint8))
    exif = image.getexif()
    exif[0x112] = 6
    image.save(folder / "wide.jpg", quality=90)
    image.rotate(90, expand=True).save(folder / "tall.webp", quality=90)
    image.save(folder / "turned.jpg", exif=exif)
    clear = image.resize((301, 200)).convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    clear.save(folder / "clear.png")
    image.resize((40, 31)).convert("L").save(folder / "small.png")
    return sorted(map(str, folder.iterdir()))


def snippet():
    spec = importlib.util.spec_from_file_location("snippet", SNIPPET)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("interpolation", "margin"), [*zip(INTERPOLATIONS, (0, 3), strict=True)])
@pytest.mark.parametrize("resize", RESIZES)
def test_the_snippet_agrees_with_predict_on_large_photos(paths, tmp_path, resize, interpolation, margin):
    trained = classifier("resnet9")
    with torch.no_grad():
        trained.model.head.weight.mul_(8)  # so that photos have clearly different probabilities
    read = {"resize": resize, "interpolation": interpolation, "margin": margin}
    trained = Classifier(trained.model, parse({**trained.description.model_dump(), **read}))
    export.write(trained, "onnx", tmp_path / "model.onnx", {})
    classes, found = snippet().probabilities(tmp_path / "model.onnx", paths)
    expected = trained.probabilities(np.stack([trained.read(path) for path in paths]))
    assert classes == trained.classes and np.abs(found - expected).max() < 1e-4
    assert expected.std(axis=0).max() > 0.005


def test_the_snippet_runs_as_a_program_and_prints_the_best_class_of_each_photo(paths, tmp_path):
    trained = classifier("resnet9")
    export.write(trained, "onnx", tmp_path / "model.onnx", {})
    done = subprocess.run([sys.executable, SNIPPET, tmp_path / "model.onnx", *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    best = trained.table(np.stack([trained.read(path) for path in paths]))["class"]
    assert [line.rsplit(": ", 1)[1].split()[0] for line in done.stdout.splitlines()] == best.tolist()
