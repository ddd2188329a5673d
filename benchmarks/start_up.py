"""Measures how long a start takes, in a separate process: the imports, up to the first update, or only the splits.

python -m benchmarks.start_up imports | first_update   prints seconds since the process began
python -m benchmarks.start_up splits <folder>          prints seconds for reading the splits, after the imports
"""

import importlib
import sys
import time
from types import ModuleType

import psutil


def imports() -> None:
    """Imports the packages that every training needs."""
    import mlflow  # noqa: F401
    import torch  # noqa: F401
    import torchvision  # noqa: F401


def first_update() -> None:
    """Runs `python -m pipeline train` on scanned digits until its first update is done."""
    from pipeline.__main__ import main

    imported = importlib.import_module

    def with_last_step(name: str, package: str | None = None) -> ModuleType:
        # The patch waits until main imports the step: the time of the imports is part of the measurement.
        module = imported(name, package)
        if name == "pipeline.steps.train":
            _leave_after_the_first_update()
        return module

    importlib.import_module = with_last_step
    main(["train", "--max_lr", "0.01"])


def _leave_after_the_first_update() -> None:
    from pipeline.training import training

    step = training.train_step

    def last_step(*arguments, **options):  # type: ignore[no-untyped-def]
        step(*arguments, **options)
        _print_age()
        raise KeyboardInterrupt

    training.train_step = last_step


def cached_splits(folder: str) -> None:
    """Times the loading of the splits of 60,000 images that are in the cache already."""
    from pipeline import data

    started = time.perf_counter()
    data.load("folder", data_dir=folder, image_size=32, valid_fraction=0.1, limit_train=0, limit_test=0)
    print(time.perf_counter() - started, flush=True)


def _print_age() -> None:
    """Prints the seconds since this process began."""
    print(time.time() - psutil.Process().create_time(), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "imports":
        imports()
        _print_age()
    elif sys.argv[1] == "first_update":
        first_update()
    else:
        cached_splits(sys.argv[2])
