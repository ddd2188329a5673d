"""Runs one step: python -m pipeline <step> [--name value ...]"""

import gc
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import click

from pipeline import streams
from pipeline.command_line import command_group
from pipeline.params import COMMANDS, TerminalParams
from pipeline.resume import interrupts
from pipeline.settings import command, terminal
from pipeline.text import visible
from pipeline.tracking import journal
from pipeline.training.events import Failure

PROGRAM = "classifier-pipeline"  # as installed
FAILED, BAD_INPUT, INTERRUPTED, TERMINATED = 1, 2, 130, 143


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one step, and returns the exit status.

    0: success; 1: no result; 2: bad input; 130: Ctrl-C; 143: SIGTERM. After 1 and 2, one line on stderr says why.
    """
    sys.excepthook = _report
    with streams.guarded():
        try:
            status = run_command(command_line(), arguments, _program())
        finally:
            gc.unfreeze()  # triton reports objects that are still frozen at the end as leaked
        if lines := journal.unsent():
            print(lines, file=sys.stderr)
        return status


def _program() -> str:
    """The name of this program in its help, and in the variable that shell completion uses."""
    name = Path(sys.argv[0]).name
    return name if name == PROGRAM else "python -m pipeline"


def run_command(program: click.Command, arguments: Sequence[str] | None, name: str) -> int:
    """Runs `program`, called `name` in its help. Returns the exit status, as `main` does."""
    try:
        return _run_or_help(program, arguments, name)
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


def _run_or_help(program: click.Command, arguments: Sequence[str] | None, name: str) -> int:
    try:
        program.main(args=arguments, prog_name=name, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), flush=True)  # otherwise a full disk is noticed after the guard
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
        from pipeline import launch, progress

        with progress.quiet(shown.quiet):
            try:
                launch.start(step, flags, catches_signals=True)
            except KeyboardInterrupt:
                if "resume" in COMMANDS[step].model_fields:
                    progress.say(f"what is done is kept; to continue: {command(step, resume='latest')}")
                raise

    return run


def _refuse(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    if run_id := os.environ.get("MLFLOW_RUN_ID"):
        from pipeline.tracking import lifecycle

        lifecycle.note_error(run_id, message)
    return BAD_INPUT


if __name__ == "__main__":
    sys.exit(main())
