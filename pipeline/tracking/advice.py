"""What a person is told to do next: it holds in the folder, environment and store of this process."""

import shlex
from pathlib import Path

from pipeline.params import without_password
from pipeline.settings import EXPERIMENTS
from pipeline.tracking import store

PROJECT = EXPERIMENTS.parent


def command(step: str, **params: str) -> str:
    """What runs a step from here; `mlflow run .` would be of this project in its folder alone, and want conda."""
    flags = [word for name, value in params.items() for word in (f"--{name}", value)]
    return shlex.join(["python", "-m", "pipeline", step, *flags])


def look(run_id: str) -> str:
    """Where a run is kept, without a password, and how to look at it."""
    uri = store.uri()
    place = without_password(uri) if "://" in uri and set("@?") & set(uri) else uri
    if uri.startswith("http"):
        how = f"at {place}"
    elif Path.cwd() == PROJECT and Path(uri.removeprefix("sqlite:///")).resolve() == PROJECT / "mlflow.db":
        how = "with: make ui"
    else:  # without the address, MLflow shows what is in the working directory
        how = f"with: mlflow ui --backend-store-uri {shlex.quote(place)}"
    return f"Tracked in {place}, run {run_id}. Look at it {how}"
