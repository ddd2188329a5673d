"""Photos per second of the documentation's Spark program, on two executors of a core each, beside `predict`.

taskset -c 0,1 python -m benchmarks.spark <model URI> <run id of its training> <folder> [rounds]   with the user's store

In each round, `predict` and Spark take turns. The first pass of a Spark application also starts its workers, which load
the network. The later passes show the speed of a long job.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.spark_cluster import Cluster

SNIPPETS = Path(__file__).resolve().parent.parent / "docs" / "snippets"
PASSES = 3  # of a Spark application
JOB = """
import sys, time
sys.path.insert(0, sys.argv[1])
from pyspark.sql import SparkSession
from spark_classes import classes

table = classes(SparkSession.builder.getOrCreate(), *sys.argv[2:4])
for _ in range(int(sys.argv[4])):
    started = time.monotonic()
    table.write.mode("overwrite").format("noop").save()
    print("seconds", time.monotonic() - started)
"""


def spark_seconds(model: str, folder: str, passes: int) -> list[float]:
    """The seconds of each pass over the photos by one application."""
    with tempfile.TemporaryDirectory() as name, Cluster(Path(name), 2) as cluster:
        (Path(name) / "job.py").write_text(JOB)
        submit = [str(Path(sys.executable).parent / "spark-submit"), "--master", cluster.url, f"{name}/job.py"]
        said = _run([*submit, str(SNIPPETS), model, folder, str(passes)], cluster.environment)
    return [float(line.split()[1]) for line in said.splitlines() if line.startswith("seconds")]


def predict_seconds(run_id: str, folder: str) -> float:
    """The seconds of one run of `predict`, from its start to its end."""
    started = time.monotonic()
    _run([sys.executable, "-m", "pipeline", "predict", "--run_id", run_id, "--images", folder, "--precision", "fp32"])
    return time.monotonic() - started


def _run(words: list[str], variables: Mapping[str, str] | None = None) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "2", **(variables or {})}
    if variables:
        del environment["OMP_NUM_THREADS"]  # Spark sets it to the cores of a task
    return subprocess.run(words, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def main(model: str, run_id: str, folder: str, rounds: str = "3") -> None:
    number = sum(path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp") for path in Path(folder).rglob("*"))
    print(f"{number} photos, cores {sorted(os.sched_getaffinity(0))}, load {os.getloadavg()[0]:.1f}")
    for _ in range(int(rounds)):
        print(f"predict {number / predict_seconds(run_id, folder):.1f} photos/s", flush=True)
        speeds = [f"{number / seconds:.1f}" for seconds in spark_seconds(model, folder, PASSES)]
        print(f"spark {', '.join(speeds)} photos/s by pass", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
