"""All parameters as one page: name, values, default, meaning and steps, read from the models in pipeline/params."""

from collections.abc import Mapping
from typing import Any

from pydantic.fields import FieldInfo

from pipeline.params import COMMANDS, Declared, TerminalParams, as_text
from pipeline.params.base import Like
from pipeline.params.headings import HEADINGS, own

HEAD = """# All parameters

This page is made from `pipeline/params`, where each parameter is declared once.

Give a parameter as `-P name=value` to `mlflow run`, as `--name value` to `python -m pipeline`, or as `name: value` in
an experiment file. A flag beats the experiment file, and the experiment file beats the default.
"""
TYPES = {"integer": "whole number", "number": "number", "boolean": "true or false", "string": "text", "object": "JSON"}
PLAIN = str.maketrans({"[": r"\[", "*": r"\*", "<": "&lt;"})  # text that Markdown leaves as it stands
MOST = 2**31  # a bound that only makes a number fit its type


def page() -> str:
    """The page in Markdown. Raises ValueError where a class has no title, or a parameter no description."""
    return HEAD + "".join(_section(kind, steps) for kind, steps in groups().items())


def groups() -> dict[type[Declared], list[str]]:
    """Each class that declares parameters, in the order of `HEADINGS`, with the commands that take them."""
    found: dict[type[Declared], list[str]] = {TerminalParams: []}
    for step, params in COMMANDS.items():
        for kind in reversed(params.__mro__):
            if issubclass(kind, Declared) and own(kind):
                found.setdefault(kind, []).append(step)
    if unknown := {kind.__name__ for kind in found} - HEADINGS.keys():
        raise ValueError(f"{min(unknown)} declares parameters: give it a heading in pipeline/params/headings.py")
    order = list(HEADINGS)
    return dict(sorted(found.items(), key=lambda item: order.index(item[0].__name__)))


def anchor(kind: type[Declared]) -> str:
    """The address of a class's section on the page."""
    return HEADINGS[kind.__name__].lower().replace(" ", "-")


def _section(kind: type[Declared], steps: list[str]) -> str:
    takers = ", ".join(f"[{step}](steps.md#{step})" for step in steps) or "every command"
    schemas = kind.model_json_schema()["properties"]
    parts = [f"## {HEADINGS[kind.__name__]}", f"Taken by {takers}."]
    parts += [_parameter(kind, name, schemas[name]) for name in own(kind)]
    return "\n" + "\n\n".join(parts) + "\n"


def _parameter(kind: type[Declared], name: str, schema: Mapping[str, Any]) -> str:
    field = kind.model_fields[name]
    if not field.description:
        raise ValueError(f"{kind.__name__}.{name} has no description")
    likes = [entry.words for entry in field.metadata if isinstance(entry, Like)]
    taken = likes[0].translate(PLAIN) if likes else values(schema)
    return f"### {name}\n\n{field.description.translate(PLAIN)}\n\n- Values: {taken}\n- Default: {_default(field)}"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default in ("", (), {}):
        return "empty"
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else as_text(field.default)}`"


def values(schema: Mapping[str, Any]) -> str:
    """Which values a parameter takes, in words, from its JSON schema."""
    if "anyOf" in schema:
        return ", or ".join(values(each) for each in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "prefixItems" in schema:
        return f"{len(schema['prefixItems'])} numbers, {', '.join(_bounds(schema['prefixItems'][0]))}"
    if schema.get("type") == "array":
        return f"a list of {values(schema.get('items', {}))}"
    return ", ".join([TYPES[schema.get("type", "string")], *_bounds(schema)])


def _bounds(schema: Mapping[str, Any]) -> list[str]:
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    high, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    if low is not None and high is not None:
        return [f"{low:,} to {high:,}"]
    words = {"at least": low, "above": above, "at most": high, "below": None if below == MOST else below}
    return [f"{word} {bound:,}" for word, bound in words.items() if bound is not None]
