"""python -m pipeline <step> [--name value ...]"""

import gc
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from types import TracebackType
from typing import Any

import click

from pipeline import streams
from pipeline.experiment_file import old_name
from pipeline.params import COMMANDS, MOVED_COMMANDS, Declared, TerminalParams
from pipeline.params.base import nearest, trimmed
from pipeline.resume import interrupts
from pipeline.settings import resolve, resumed, terminal
from pipeline.text import visible
from pipeline.tracking import journal
from pipeline.training.events import Failure

TRUTH_VALUES = {"true", "false", "1", "0", "on", "off", "yes", "no", "t", "f", "y", "n"}  # as pydantic takes them
FAILED, BAD_INPUT, INTERRUPTED, TERMINATED = 1, 2, 130, 143


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one step. Returns 0; 1 no result or 2 bad input, with one line on stderr; 130 Ctrl-C, 143 SIGTERM."""
    sys.excepthook = _report
    with streams.guarded():
        try:
            status = run_command(command_line(), arguments, "python -m pipeline")
        finally:
            gc.unfreeze()  # triton reports what is frozen to the very end as leaked
        _say_what_was_not_sent()
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
        # click makes an Abort of either.
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
    """A command per step, with an option per parameter, except for parameters that need no name."""
    group = _Steps(name="pipeline", help="Steps of an image-classification experiment, tracked in MLflow.")
    for step, params in COMMANDS.items():
        parameters = [*options(params), *options(TerminalParams)]
        group.add_command(_Step(step, params=parameters, callback=_runner(step), help=params.__doc__))
    return group


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Shows what nobody expected as Python does, but for passwords."""
    click.echo(visible("".join(traceback.format_exception(kind, error, trace)), keep="\n"), err=True, nl=False)


class _Steps(click.Group):
    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args[0] in MOVED_COMMANDS:
            ctx.fail(f"{args[0]} is now another command: {MOVED_COMMANDS[args[0]]}")
        if args[0] not in self.commands and not args[0].startswith("-"):
            ctx.fail(f"unknown step {args[0]}{nearest(args[0], COMMANDS)} (steps: {', '.join(COMMANDS)})")
        return super().resolve_command(ctx, args)


class _Step(click.Command):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for word in args:
            name = word.partition("=")[0]
            if name.startswith("--") and (answer := old_name(name.removeprefix("--"))):
                ctx.fail(f"{name} {answer}")
        return super().parse_args(ctx, _with_values(args, {f"--{name}" for name in _switches(self.name or "")}))


def _switches(step: str) -> set[str]:
    """Parameters that are true or false."""
    fields = {**COMMANDS[step].model_fields, **TerminalParams.model_fields}
    return {name for name, field in fields.items() if field.annotation is bool}


def _with_values(args: Sequence[str], switches: Container[str]) -> list[str]:
    """`args`, where a switch that stands alone is true: MLflow passes on none without its value."""
    given = []
    for word, following in zip_longest(args, args[1:]):
        is_alone = following is None or following.startswith("-") or _is_no_value(word, following)
        given.append(f"{word}=true" if word in switches and is_alone else word)
    return given


def _is_no_value(switch: str, word: str) -> bool:
    """Whether `word` behind a switch of the terminal is something else, such as a photo; a step's own take any."""
    return switch.removeprefix("--") in TerminalParams.model_fields and word.lower() not in TRUTH_VALUES


def options(params: type[Declared]) -> list[click.Parameter]:
    """An option of the command line for each parameter."""
    schemas = params.model_json_schema().get("properties", {})
    return [_parameter(name, schemas[name], params) for name in params.model_fields]


def _parameter(name: str, schema: Mapping[str, Any], params: type[Declared]) -> click.Parameter:
    if schema.get("positional"):
        return click.Argument([name], nargs=-1)
    field = params.model_fields[name]
    choices = "|".join(map(str, schema.get("enum", [])))
    metavar = choices or name.upper()
    if field.is_required():
        return click.Option([f"--{name}"], metavar=metavar, help=schema["description"], required=True)
    shown = ",".join(field.default) if isinstance(field.default, tuple) else field.default
    return click.Option([f"--{name}"], metavar=metavar, help=f"{schema['description']} [{shown}]")


def _runner(step: str) -> Any:
    def run(**given: str | None) -> None:
        flags = {name: value for name, value in given.items() if value is not None}
        shown = terminal({name: flags.pop(name) for name in TerminalParams.model_fields if name in flags})
        # Imported late, so that --help and refusals need not wait for what draws, nor for torch and MLflow.
        from pipeline import progress

        with progress.quiet(shown.quiet):
            with _nothing_collected():
                params = _params(step, flags)
                _log_to_the_terminal()
                interrupts.raise_once()
                module = importlib.import_module(f"pipeline.steps.{step}")
            module.run(params)

    return run


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """What is imported stays: to look for garbage in its million objects again and again takes a second of a start."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _params(step: str, flags: dict[str, str]) -> Declared:
    """The parameters of `step`; those of an interrupted run where `resume` names one, and its id in `resume`."""
    asked = trimmed(flags.get("resume", ""))
    if not asked or asked == "auto":
        params = _in_full(resolve(step, flags, _best_of))
        asked = getattr(params, "resume", "")
        if not asked:
            return params
    from pipeline.history import lookup
    from pipeline.resume import candidates

    if asked == "auto":
        return params.model_copy(update={"resume": candidates.same(step, params)})
    run_id, stored = candidates.find(step, asked)
    return resumed(step, flags, run_id, stored, _in_full, lookup.untrusted(run_id, stored))


def _in_full(params: Declared) -> Declared:
    from pipeline.history import lookup

    return lookup.in_full(params)


def _say_what_was_not_sent() -> None:
    if journal.left_behind:
        folders = ", ".join(str(folder) for folder in journal.left_behind)
        print(
            f"the tracking store did not take all; `python -m pipeline sync` will send it from {folders}",
            file=sys.stderr,
        )


def _best_of(study_name: str, storage: str) -> dict[str, Any]:
    from pipeline.sweep import study

    return study.best(study_name, storage)


class _Handler(logging.Handler):
    """Says it, above the bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        from pipeline.progress import tell

        tell(visible(self.format(record)))


def _log_to_the_terminal() -> None:
    """Shows what our modules log, once, though each step of an experiment loads the same data."""
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
