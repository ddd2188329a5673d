"""The documentation's program for Spark, on a cluster of two executors, gives the answers of `predict`."""

import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlparse

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from benchmarks.spark_cluster import Cluster, Missing
from pipeline.text import from_cell
from tests.conftest import PROJECT, Workplace

SNIPPET = PROJECT / "docs/snippets/spark_classes.py"
CLASSES = {0: "nought", 1: "a one.", 4: "=4"}  # names that a program could take for a number or a formula
RECIPE = {"experiment": "none", "dataset": "folder", "image_size": 16, "width": 8, "batch_size": 16, "epochs": 4}
# Runs the same job twice in one application; the workers then say how often they have loaded a model.
COUNT = """
import os, sys
import pandas as pd
from pyspark.sql import SparkSession
sys.path.insert(0, {folder!r})
from spark_classes import classes

def loads(batches):
    from mlflow.pyfunc.spark_model_cache import SparkModelCache as Cache
    list(batches)
    yield pd.DataFrame({{"process": [os.getpid()], "models": [len(Cache._models)], "again": [Cache._cache_hits]}})

spark = SparkSession.builder.getOrCreate()
table = classes(spark, "models:/digits@champion", {photos!r})
print("tasks", table.rdd.getNumPartitions())
for _ in range(2):
    table.write.mode("overwrite").format("noop").save()
counts = spark.range(8, numPartitions=8).mapInPandas(loads, "process long, models long, again long")
counts.toPandas().drop_duplicates("process").to_csv({result!r}, index=False)
"""


@pytest.fixture
def cluster(tmp_path):
    try:
        cluster = Cluster(tmp_path, 2)
    except Missing as missing:
        pytest.skip(str(missing))
    with cluster:
        yield cluster


@pytest.fixture
def photos(tmp_path):
    """Scanned digits as JPEG and PNG files of several sizes. Some are in the folder of another class."""
    digits = load_digits()
    draw = np.random.default_rng(0)
    for part, start, count in (("train", 0, 100), ("test", 100, 40)):
        for number, name in CLASSES.items():
            folder = tmp_path / "photos" / part / name
            folder.mkdir(parents=True)
            images = digits.images[digits.target == number][start : start + count]
            for place, image in enumerate(images):
                pixels = Image.fromarray((image * 15.9).astype(np.uint8)).resize(tuple(draw.integers(16, 90, 2)))
                pixels.save(folder / f"{place}.{'jpg' if place % 2 else 'png'}")
    return tmp_path / "photos"


def submit(cluster, place, *words):
    done = subprocess.run(
        [Path(sys.executable).parent / "spark-submit", "--master", cluster.url, *words],
        cwd=place.folder,
        env={**place.environment, **cluster.environment, "MLFLOW_TRACKING_URI": place.uri},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return done.stdout


@pytest.mark.slow
def test_spark_gives_the_answers_of_predict_and_each_worker_loads_the_network_once(cluster, photos, tmp_path):
    place = Workplace(tmp_path)
    assert place.run("train", **RECIPE, data_dir=photos, max_lr=0.01) == 0
    assert place.run("evaluate", register_as="digits") == 0
    (photos / "test" / "broken.jpg").write_bytes(b"no photo")
    assert place.run("predict", images=photos / "test", precision="fp32", top_k=3) == 0
    (predicted,) = place.runs("predict")
    file = place.client.download_artifacts(predicted.info.run_id, "predictions.csv", str(tmp_path))
    expected = pd.read_csv(file).set_index("path")

    # A limit for the files of a task, so that there are several tasks.
    small = ("--conf", "spark.sql.files.maxPartitionBytes=1000000")
    submit(cluster, place, *small, SNIPPET, "models:/digits@champion", photos / "test", tmp_path / "classes")
    table = pd.read_parquet(tmp_path / "classes")
    table.index = [unquote(urlparse(path).path) for path in table.pop("path")]
    assert len(table) == len(expected) + 1 == 121
    left_out = table.loc[str(photos / "test" / "broken.jpg")]
    assert left_out["class"] == "" and left_out[["unsure", "unlike"]].all()
    assert len(left_out["set"]) == 0
    assert left_out[[f"p/{name}" for name in CLASSES.values()]].eq(0).all()
    table = table.loc[expected.index]
    for name in ("class", "unsure", "unlike"):
        assert (table[name].astype(str) == expected[name].astype(str).str.removeprefix("'")).all(), name
    assert expected["unsure"].nunique() == 2
    assert [[*names] for names in table["set"]] == [json.loads(from_cell(names)) for names in expected["set"]]
    for rank, column in (("class", "confidence"), ("class_2", "probability_2"), ("class_3", "probability_3")):
        names = "p/" + expected[rank].str.removeprefix("'")
        found = np.array([table.loc[path, name] for path, name in names.items()])
        assert np.abs(found - expected[column]).max() < 1e-6

    result, program = tmp_path / "counts.csv", tmp_path / "count.py"
    words = {"folder": str(SNIPPET.parent), "photos": str(photos / "test"), "result": str(result)}
    program.write_text(COUNT.format(**words))
    num_tasks = int(submit(cluster, place, *small, program).split("tasks ")[1].split()[0])
    counts = pd.read_csv(result)
    assert len(counts) == 2  # a worker process for each executor
    assert (counts["models"] == 1).all()
    assert counts["again"].sum() == 2 * num_tasks - 2 >= 8
