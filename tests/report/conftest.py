"""One real experiment with hostile names, which all tests of the report use."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Workplace

CLASSES = [
    "<script>alert(1)<script>",
    "=cmd|' '!A1",
    "two\nlines",
    "\"'><img src=x onerror=alert(1)>",
    "\u202egnp",
    "true",
]
EXPERIMENT = {
    "experiment": "none",
    "dataset": "folder",
    "steps": "lr_range,sweep,train,evaluate,explain",
    "model": "vit",
    "image_size": 16,
    "dim": 24,
    "depth": 1,
    "heads": 2,
    "batch_size": 16,
    "epochs": 2,
    "lr_rule": "steepest",
    "ladder_steps": 40,
    "num_repeats": 2,
    "num_trials": 3,
    "pruner": "none",
    "study_name": "report",
    "space": json.dumps({"max_lr": {"low": 1e-3, "high": 1e-2, "log": True}, "patch_size": [4, 8]}),
    "num_images": 3,
    "watch_images": 3,
}
RUN_NAME = "</script><script>alert(1)</script>"


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("hostile") / "<b>photos"
    draw = np.random.default_rng(0)
    for tint, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for i in range(24):
            pixels = draw.integers(0, 200, (16, 16, 3), dtype=np.uint8)
            pixels[..., tint % 3] += 40 * (tint // 3) + 15
            Image.fromarray(pixels).save(root / name / f"<i>{i}.png")
    return root


@pytest.fixture(scope="session")
def experiment(photos, tmp_path_factory):
    """(workplace of the experiment, id of its run)."""
    workplace = Workplace(tmp_path_factory.mktemp("workplace"))
    assert workplace.run("main", **EXPERIMENT, data_dir=photos) == 0
    (run,) = workplace.runs("main")
    return workplace, run.info.run_id


@pytest.fixture(scope="session")
def renamed(experiment):
    """The experiment's report, made again after its run got a very hostile name."""
    workplace, run_id = experiment
    workplace.client.update_run(run_id, name=RUN_NAME)
    assert workplace.run("report", run_id=run_id) == 0
    return report_of(workplace, run_id)


def report_of(workplace, run_id) -> Path:
    """The file of the report that is stored with a run."""
    folder = workplace.folder / "read" / run_id
    folder.mkdir(parents=True, exist_ok=True)
    return Path(workplace.client.download_artifacts(run_id, "report.html", str(folder)))
