"""Runs one step: python -m pipeline <step> [--name value ...]"""

import gc
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any

import click

from pipeline import streams
from pipeline.command_line import command_group
from pipeline.params import DataParams, Declared, TerminalParams
from pipeline.params.base import trimmed
from pipeline.resume import interrupts
from pipeline.settings import resolve, resumed, terminal
from pipeline.text import visible
from pipeline.tracking import journal
from pipeline.training.events import Failure

FAILED, BAD_INPUT, INTERRUPTED, TERMINATED = 1, 2, 130, 143


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one step, and returns the exit status.

    0: success; 1: no result; 2: bad input; 130: Ctrl-C; 143: SIGTERM. After 1 and 2, one line on stderr says why.
    """
    sys.excepthook = _report
    with streams.guarded():
        try:
            status = run_command(command_line(), arguments, "python -m pipeline")
        finally:
            gc.unfreeze()  # triton reports objects that are still frozen at the end as leaked
        _report_unsent()
        return status


def run_command(command: click.Command, arguments: Sequence[str] | None, name: str) -> int:
    """Runs `command`, called `name` in its help. Returns the exit status, as `main` does."""
    try:
        return _run_or_help(command, arguments, name)
    except (click.UsageError, ValueError) as error:
        message = error.format_message() if isinstance(error, click.UsageError) else str(error)
        return _refuse(visible(" ".join(message.split())))
    except Failure as error:
        print(f"error: {visible(str(error))}", file=sys.stderr)
        return FAILED
    except (KeyboardInterrupt, click.Abort) as error:
        # click turns both into an Abort.
        if isinstance(error.__cause__, interrupts.Terminated):
            print("terminated", file=sys.stderr)
            return TERMINATED
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def _run_or_help(command: click.Command, arguments: Sequence[str] | None, name: str) -> int:
    try:
        command.main(args=arguments, prog_name=name, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        return BAD_INPUT
    return 0


def command_line() -> click.Group:
    """The command with a sub-command for each step."""
    return command_group(_runner)


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Prints an unexpected error as Python does, but without passwords."""
    click.echo(visible("".join(traceback.format_exception(kind, error, trace)), keep="\n"), err=True, nl=False)


def _runner(step: str) -> Callable[..., None]:
    def run(**given: str | None) -> None:
        flags = {name: value for name, value in given.items() if value is not None}
        shown = terminal({name: flags.pop(name) for name in TerminalParams.model_fields if name in flags})
        # Imported late, so that --help and refusals do not wait for the terminal bar, torch and MLflow.
        from pipeline import progress

        with progress.quiet(shown.quiet):
            with _without_garbage_collection():
                params = _params(step, flags)
                _log_to_the_terminal()
                interrupts.raise_once()
                module = importlib.import_module(f"pipeline.steps.{step}")
            module.run(params)

    return run


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
    asked = trimmed(flags.get("resume", ""))
    if not asked or asked == "auto":
        params = _in_full(resolve(step, flags, _best_of, partial(_choose, step), _network_of))
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


def _report_unsent() -> None:
    if journal.left_behind:
        folders = ", ".join(str(folder) for folder in journal.left_behind)
        print(
            f"the tracking store has not received everything; `python -m pipeline sync` sends the rest from {folders}",
            file=sys.stderr,
        )


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


def _choose(step: str, flags: Mapping[str, Any]) -> dict[str, Any]:
    from pipeline.progress import say
    from pipeline.training import photo_defaults

    given = {"data_dir": DataParams.model_fields["data_dir"].default, **flags}
    chosen, lines = photo_defaults.choose(given, is_probe=step == "probe")
    for line in lines:
        say(line)
    return chosen


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


def _refuse(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    if run_id := os.environ.get("MLFLOW_RUN_ID"):
        from pipeline.tracking import lifecycle

        lifecycle.note_error(run_id, message)
    return BAD_INPUT


if __name__ == "__main__":
    sys.exit(main())
