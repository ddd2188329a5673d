"""What a run was asked to do, and how to ask for it again."""

import re
import shlex
from dataclasses import dataclass

from pydantic.fields import FieldInfo

from pipeline.params import STEPS, as_text
from pipeline.report.record import Record, StepRecord
from pipeline.text import visible

# Where and how it was run, rather than what; and a study, whose values stand among the others and may be others by now.
APART = {"experiment", "resume", "storage", "run_id", "from_study"}
DECLARED_AS = {"seeds": "train"}
OWN_PATH = re.compile(r"^(sqlite:///)?[/~].*/(?=[^/]+/*$)")  # all of it but its last part
OF_NO_INTEREST = {"resume", "storage"}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a run, as text."""

    name: str
    value: str
    default: str
    meaning: str
    differs: bool


def parameters(step: StepRecord) -> list[Parameter]:
    """Those of a run, in the order of their declaration; what is declared no more has no default and no meaning."""
    fields = _fields(step)
    return [
        Parameter(
            visible(name),
            visible(_mailed(as_text(value))),
            visible(as_text(fields[name].default)) if name in fields else "",
            (fields[name].description or "") if name in fields else "",
            name not in OF_NO_INTEREST and _text(step, name) is not None,
        )
        for name, value in step.params.items()
    ]


def command(record: Record) -> str:
    """What repeats the run: its parameters that are not the defaults, the experiment file's among them."""
    step = record.run
    given = {name: _text(step, name) for name in step.params if name not in APART}
    words = [shlex.quote(visible(f"{name}={text}")) for name, text in given.items() if text is not None]
    entry = [] if step.kind == "main" else ["-e", DECLARED_AS.get(step.kind, step.kind)]
    if step.kind in ("evaluate", "explain"):
        words.append(shlex.quote(visible(f"run_id={step.tags.get('train.run_id', 'latest')}")))
    else:  # even where all is as by default: without it, a file of experiments/ may be taken
        words.insert(0, "experiment=none")
    return " ".join(["mlflow run .", *entry, *(f"-P {word}" for word in words)])


def _fields(step: StepRecord) -> dict[str, FieldInfo]:
    return STEPS[DECLARED_AS.get(step.kind, step.kind)].model_fields


def _text(step: StepRecord, name: str) -> str | None:
    """A parameter's value as text where it is not the default, else None."""
    fields = _fields(step)
    value = step.params[name]
    if name not in fields or value == fields[name].default:
        return None
    return None if as_text(value) == as_text(fields[name].default) else _mailed(as_text(value))


def _mailed(text: str) -> str:
    """A parameter's value for a page that may be mailed: of a path on the own disk, its last part alone."""
    return OWN_PATH.sub(r"\1", text)
