"""The base of all parameters: frozen, validated, read from text; and how a value is written as text again."""

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
    """Frozen, validated on construction; text such as `1e-3` is read as its type."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        validate_default=True,
        defer_build=True,  # only the schema of the command that is given is needed
    )

    def to(self, kind: type[Kind], **changes: Any) -> Kind:
        """The parameters of `kind`, with the values of these that it has too, and with `changes`."""
        shared = {name: getattr(self, name) for name in kind.model_fields if name in type(self).model_fields}
        return kind(**{**shared, **changes})


class Params(Declared):
    experiment: str = Field(
        "auto",
        description="a YAML file of parameters; none; auto: of experiments/ <dataset>_<model>.yaml, <dataset>.yaml "
        "with the default model, sweep_vit.yaml for a sweep of a vit; none for what looks at finished runs",
    )


@dataclass(frozen=True)
class Like:
    """In an annotation: text that fully matches `pattern`; `words`, which complete "should be", refuse any other."""

    pattern: str
    words: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.checked, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "pattern": f"^({self.pattern})$"}

    def checked(self, text: str) -> str:
        """`text`. Raises ValueError where it does not match."""
        if not re.fullmatch(self.pattern, text):
            raise ValueError(f"should be {self.words}")
        return text


def trimmed(value: Any) -> Any:
    """Text without blanks around it and in lower case, as the ids of runs are; anything else as it is."""
    return value.strip().lower() if isinstance(value, str) else value


NAME_CHARACTERS = "letters, digits, blanks, dots and hyphens"
# The start of an id will do where it is of one run only; `history.lookup` finds the rest.
ID_START = "[0-9a-f]{4,32}"
OF_A_RUN = "the id of a run, or its first characters, 4 or more of 0-9 and a-f"
NAMED_RUN = Like(ID_START, OF_A_RUN)
RunId = Annotated[str, BeforeValidator(trimmed), NAMED_RUN]


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean x?` for the closest known name, or nothing."""
    close = get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def absolute(path: str) -> str:
    """The path as it leads to the same file or folder wherever a later step is run; none (empty) stays none."""
    return path and str(Path(os.path.expanduser(path)).absolute())  # noqa: PTH111 - a Path raises without such a user


def as_text(value: Any) -> str:
    """A parameter's value as a flag takes it, and as MLflow keeps it."""
    if isinstance(value, dict):
        return json.dumps(value)
    if isinstance(value, list | tuple):
        plain = ",".join(value)
        return plain if comma_separated(plain) == list(value) else json.dumps(value)
    return str(value)


def check_database_url(url: str) -> None:
    """Raises ValueError where that is no URL of a database."""
    from sqlalchemy.engine import make_url  # here, as most commands are given none
    from sqlalchemy.exc import ArgumentError

    try:
        make_url(url)
    except (ArgumentError, ValueError):
        raise ValueError("is no URL of a database, such as sqlite:///optuna.db") from None


def on_or_off(value: Any) -> Any:
    """`value`, with a bare on or off, which YAML reads as true and false, as the word again."""
    return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value


def from_json(value: Any) -> Any:
    """Text as the JSON it is; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, object_pairs_hook=_without_repetition)
    except json.JSONDecodeError:
        raise ValueError('as text, expected JSON such as {"patch_size": [2, 4]}') from None


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{repeated[0]} stands there {names.count(repeated[0])} times: keep one")
    return dict(pairs)


def comma_separated(value: Any) -> Any:
    """Text as the list it names, as JSON where values have commas of their own; anything else as it is."""
    if not isinstance(value, str):
        return value
    if value.startswith("["):
        with suppress(ValueError, RecursionError):
            return json.loads(value)
    return value.split(",") if value else []


def integer(value: Any) -> Any:
    """Text as the whole number it names; anything else as it is."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


Switch = Annotated[Literal["on", "off"], BeforeValidator(on_or_off)]
