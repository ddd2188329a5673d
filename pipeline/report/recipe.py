"""The parameters of a run, and the command that repeats it."""

import re
import shlex
from dataclasses import dataclass

from pydantic.fields import FieldInfo

from pipeline.params import STEPS, as_text
from pipeline.report.record import Record, StepRecord
from pipeline.text import visible

# Not in the command: where and how the run was started, and the study, whose values are among the other parameters.
NOT_REPEATED = {"experiment", "resume", "storage", "run_id", "from_study"}
DECLARED_AS = {"seeds": "train"}
OWN_PATH = re.compile(r"^(sqlite:///)?[/~].*/(?=[^/]+/*$)")  # everything except the last part
NEVER_MARKED = {"resume", "storage"}  # not marked as differing from the default


@dataclass(frozen=True)
class Parameter:
    """One parameter of a run, as text."""

    name: str
    value: str
    default: str
    meaning: str
    differs: bool


def parameters(step: StepRecord) -> list[Parameter]:
    """The parameters of a run. A parameter that no longer exists has no default and no meaning."""
    fields = _fields(step)
    return [
        Parameter(
            visible(name),
            visible(_mailed(as_text(value))),
            visible(as_text(fields[name].default)) if name in fields else "",
            (fields[name].description or "") if name in fields else "",
            name not in NEVER_MARKED and _text(step, name) is not None,
        )
        for name, value in step.params.items()
    ]


def command(record: Record) -> str:
    """The command that repeats the run, with all parameters that differ from the defaults."""
    step = record.run
    given = {name: _text(step, name) for name in step.params if name not in NOT_REPEATED}
    words = [shlex.quote(visible(f"{name}={text}")) for name, text in given.items() if text is not None]
    entry = [] if step.kind == "main" else ["-e", DECLARED_AS.get(step.kind, step.kind)]
    if step.kind in ("evaluate", "explain"):
        words.append(shlex.quote(visible(f"run_id={step.tags.get('train.run_id', 'latest')}")))
    else:  # without it, a file of experiments/ may be used, even if all parameters are the defaults
        words.insert(0, "experiment=none")
    return " ".join(["mlflow run .", *entry, *(f"-P {word}" for word in words)])


def _fields(step: StepRecord) -> dict[str, FieldInfo]:
    return STEPS[DECLARED_AS.get(step.kind, step.kind)].model_fields


def _text(step: StepRecord, name: str) -> str | None:
    """A parameter's value as text; None if it is the default."""
    fields = _fields(step)
    value = step.params[name]
    if name not in fields or value == fields[name].default:
        return None
    return None if as_text(value) == as_text(fields[name].default) else _mailed(as_text(value))


def _mailed(text: str) -> str:
    """A parameter's value for a page that may be mailed: a path on this disk is cut to its last part."""
    return OWN_PATH.sub(r"\1", text)
