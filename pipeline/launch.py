"""Starts a step: resolves its parameters, shows its log on the terminal, imports and runs it."""

import gc
import importlib
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from pipeline.params import DataParams, Declared
from pipeline.params.base import trimmed
from pipeline.resume import interrupts
from pipeline.settings import resolve, resumed
from pipeline.text import visible


def start(step: str, flags: dict[str, str], *, catches_signals: bool) -> Any:
    """Runs `step` with the parameters that `flags` give as text. Returns its result, if it has one.

    catches_signals: whether Ctrl-C and SIGTERM close the run before they end the program. Raises ValueError for bad
    input, `Failure` if there is no result although the input was right.
    """
    with _without_garbage_collection():
        params = _params(step, flags)
        _log_to_the_terminal()
        if _runs_in_ranks(step, params, flags):
            return None
        if catches_signals:
            interrupts.raise_once()
        module = importlib.import_module(f"pipeline.steps.{step}")
    return module.run(params)


def _runs_in_ranks(step: str, params: Declared, flags: dict[str, str]) -> bool:
    """Runs `step` once for each of its `devices`, if it has several and torchrun has not started it; returns whether.

    Raises ValueError if torchrun has started a step that ranks cannot share.
    """
    num_devices = getattr(params, "devices", 1)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        if step != "train":
            raise ValueError(f"torchrun can start the step train, not {step}, which one process runs")
        if (number := getattr(params, "num_seeds", 1)) > 1:
            raise ValueError(f"num_seeds={number}: torchrun can start one training; give num_seeds=1")
        return False
    if num_devices == 1:
        return False
    from pipeline.steps import torchrun

    torchrun.check(num_devices, str(getattr(params, "device", "auto")))
    torchrun.start(step, flags, num_devices)
    return True


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Inside this context, no garbage is collected. Searching a million imported objects would take a second."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _params(step: str, flags: dict[str, str]) -> Declared:
    """The parameters of `step`. If `resume` names an interrupted run, its parameters, with its id in `resume`."""
    if step == "train" and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")):
        flags = {"resume": "auto", **flags}  # torchrun has restarted the ranks
    asked = trimmed(flags.get("resume", ""))
    if not asked or asked == "auto":
        params = _in_full(resolve(step, flags, _best_of, partial(_photo_defaults, step), _network_of))
        asked = getattr(params, "resume", "")
        if not asked:
            return params
    from pipeline.history import lookup
    from pipeline.resume import candidates

    if asked == "auto":
        return params.model_copy(update={"resume": candidates.with_same_params(step, params)})
    run_id, stored = candidates.find(step, asked)
    return resumed(step, flags, run_id, stored, _in_full, lookup.foreign_author(run_id, stored))


def _in_full(params: Declared) -> Declared:
    from pipeline.history import lookup

    return lookup.in_full(params)


def _best_of(study_name: str, storage: str) -> dict[str, Any]:
    from pipeline.sweep import study

    return study.best(study_name, storage)


def _network_of(given: Mapping[str, Any]) -> dict[str, Any]:
    from pipeline.history import initial_weights
    from pipeline.progress import say

    found = initial_weights.network_of(given)
    if shown := [f"{name}={found[name]}" for name in ("model", "image_size") if name in found]:
        say(f"{', '.join(shown)}: as weights={given['weights']} are")
    return found


def _photo_defaults(step: str, flags: Mapping[str, Any]) -> dict[str, Any]:
    from pipeline.progress import say
    from pipeline.training import photo_defaults

    given = {"data_dir": DataParams.model_fields["data_dir"].default, **flags}
    chosen, lines = photo_defaults.choose(given, is_probe=step == "probe" or _probes_parts(step, flags))
    for line in lines:
        say(line)
    return chosen


def _probes_parts(step: str, flags: Mapping[str, Any]) -> bool:
    """Whether a learning curve of photos takes probes: by default, if the network has pretrained weights."""
    learner = flags.get("learner", "auto")
    is_pretrained = flags.get("weights", "none" if "model" in flags else "default") != "none"
    return step == "learning_curve" and (learner == "probe" or (learner == "auto" and is_pretrained))


class _Handler(logging.Handler):
    """Prints log messages above the bar, if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        from pipeline.progress import tell

        tell(visible(self.format(record)))


def _log_to_the_terminal() -> None:
    """Shows the log messages of this project, each only once: several steps of an experiment load the same data."""
    shown: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        is_first = message not in shown
        shown.add(message)
        return is_first

    handler = _Handler()
    handler.addFilter(is_new)
    ours = logging.getLogger("pipeline")
    ours.handlers = [handler]
    ours.setLevel(logging.INFO)
