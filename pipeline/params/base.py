"""The base class of all parameters (frozen, validated, read from text), and functions that read and write values."""

import json
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

Kind = TypeVar("Kind", bound="Declared")


class Declared(BaseModel):
    """Parameters that are frozen and validated on construction. Text such as `1e-3` is converted to its type."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        validate_default=True,
        defer_build=True,  # a command needs only its own schema
    )

    def to(self, kind: type[Kind], **changes: Any) -> Kind:
        """Parameters of `kind`, with the values of all parameters that both have, and with `changes`."""
        shared = {name: getattr(self, name) for name in kind.model_fields if name in type(self).model_fields}
        return kind(**{**shared, **changes})


class Params(Declared):
    experiment: str = Field(
        "auto",
        description="a YAML file of parameters; none: no file; auto: a file of experiments/ if one fits "
        "(<dataset>_<model>.yaml; else <dataset>.yaml for the default network; sweep_vit.yaml for a sweep of a vit); "
        "steps on finished runs read none",
    )


class CalibrationParams(Params):
    reject_above_error: Annotated[float, Field(gt=0, lt=1)] | Literal["auto"] = Field(
        "auto",
        description="an answer is unsure if its confidence is below a threshold: the lowest one at which at most this "
        "share of the sure answers on validation is wrong; auto: 0.02, or the training's value",
    )
    set_coverage: Annotated[float, Field(gt=0, lt=1)] | Literal["auto"] = Field(
        "auto",
        description="also answer with a set of classes, which holds the true class with at least this probability; "
        "auto: 0.9, or the training's value",
    )


@dataclass(frozen=True)
class Like:
    """For annotations: text must fully match `pattern`. The message for any other text is "should be" and `words`."""

    pattern: str
    words: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.checked, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "pattern": f"^({self.pattern})$"}

    def checked(self, text: str) -> str:
        """`text`. Raises ValueError if it does not match."""
        if not re.fullmatch(self.pattern, text):
            raise ValueError(f"should be {self.words}")
        return text


def trimmed(value: Any) -> Any:
    """Text without surrounding blanks and in lower case, like the ids of runs; any other value unchanged."""
    return value.strip().lower() if isinstance(value, str) else value


class DeviceParams(Params):
    device: Annotated[str, Like(r"auto|cpu|mps|cuda(:\d+)?", "auto, cpu, mps, cuda or cuda:<n>")] = Field(
        "auto", description="auto, cpu, mps, cuda or cuda:<n>; auto: the first of cuda, mps and cpu that works"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="number format (bf16 and fp16: by autocast); auto: bf16 if the hardware has it, else fp16 on a GPU "
        "that has it, else fp32; a CPU trains networks of depthwise convolutions and batch norms in fp32, which is "
        "faster",
    )


class SeedParams(Params):
    seed: int = Field(0, ge=0, lt=2**31, description="seed of weights, order, augmentation and noise; splits are fixed")


NAME_CHARACTERS = "letters, digits, blanks, dots and hyphens"
# The start of an id is enough if only one run has it; `history.lookup` completes it.
ID_START = "[0-9a-f]{4,32}"
RUN_ID_WORDS = "the id of a run, or at least its first 4 characters (0-9, a-f)"
NAMED_RUN = Like(ID_START, RUN_ID_WORDS)
RunId = Annotated[str, BeforeValidator(trimmed), NAMED_RUN]


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean x?` for the closest known name, or nothing."""
    close = get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def absolute(path: str) -> str:
    """The absolute path, so that a later step in another folder finds the same file; an empty path stays empty."""
    return path and str(Path(os.path.expanduser(path)).absolute())  # noqa: PTH111 - a Path raises without such a user


def as_text(value: Any) -> str:
    """A parameter's value as text, as in a flag and in MLflow."""
    if isinstance(value, dict):
        return json.dumps(value)
    if isinstance(value, list | tuple):
        parts = [str(each) for each in value]
        plain = ",".join(parts)
        return plain if comma_separated(plain) == parts else json.dumps(value)
    return str(value)


def check_database_url(url: str) -> None:
    """Raises ValueError if `url` is not the URL of a database."""
    from sqlalchemy.engine import make_url  # not at the top, because most commands need no database URL
    from sqlalchemy.exc import ArgumentError

    try:
        make_url(url)
    except (ArgumentError, ValueError):
        raise ValueError("is not the URL of a database, such as sqlite:///optuna.db") from None


def on_or_off(value: Any) -> Any:
    """`on` or `off` for true or false, because YAML reads these words as booleans; any other value unchanged."""
    return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value


def from_json(value: Any) -> Any:
    """The JSON value that a text holds; any other value unchanged."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, object_pairs_hook=_without_repetition)
    except json.JSONDecodeError:
        raise ValueError('as text, expected JSON such as {"patch_size": [2, 4]}') from None


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{repeated[0]} occurs {names.count(repeated[0])} times: keep one")
    return dict(pairs)


def comma_separated(value: Any) -> Any:
    """The list that a text holds: comma-separated, or JSON if values contain commas; any other value unchanged."""
    if not isinstance(value, str):
        return value
    if value.startswith("["):
        with suppress(ValueError, RecursionError):
            return json.loads(value)
    return value.split(",") if value else []


def integer(value: Any) -> Any:
    """The whole number that a text holds; any other value unchanged."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


Switch = Annotated[Literal["on", "off"], BeforeValidator(on_or_off)]


class FlipParams(Params):
    flip: Annotated[Literal["auto", "on", "off", "alternate"], BeforeValidator(on_or_off)] = Field(
        "auto",
        description="random mirroring; alternate: each image every other epoch; auto: on, except for digits, mnist and "
        "svhn",
    )


def _per_channel(value: Any) -> Any:
    """A number for each of red, green and blue; `auto` stays. Raises ValueError for anything else."""
    try:
        numbers = value if value == "auto" else tuple(float(each) for each in comma_separated(value))
    except (TypeError, ValueError):
        numbers = ()
    if numbers != "auto" and not (len(numbers) == 3 and all(0 <= each <= 1 for each in numbers)):
        raise ValueError("should be auto, or three numbers from 0 to 1, such as 0.485,0.456,0.406")
    return numbers


Channel = Annotated[float, Field(ge=0, le=1)]
PerChannel = Annotated[tuple[Channel, Channel, Channel] | Literal["auto"], BeforeValidator(_per_channel)]
