"""The command line: one command per step, one option per parameter, and helpful answers to unknown names."""

import re
from collections.abc import Callable, Container, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import click

from pipeline.experiment_file import old_name
from pipeline.params import COMMANDS, MOVED_COMMANDS, DataParams, Declared, TerminalParams, as_text, headings
from pipeline.params.base import nearest
from pipeline.text import visible

WIDEST_HELP = 110  # characters of a line
NAME_WIDTH = 30  # characters of the column of names in the help
TYPES = {"integer": "INTEGER", "number": "FLOAT", "string": "TEXT", "object": "JSON"}
TRUTH_VALUES = {"true", "false", "1", "0", "on", "off", "yes", "no", "t", "f", "y", "n"}  # that pydantic accepts


def command_group(runner: Callable[[str], Callable[..., None]]) -> click.Group:
    """A group with one command per step, which has one option per parameter; positional parameters are arguments."""
    group = _Steps(
        name="pipeline",
        help="Steps of an image-classification experiment, tracked in MLflow.",
        context_settings={"max_content_width": WIDEST_HELP},
    )
    for step, params in COMMANDS.items():
        parameters = [*options(params), *options(TerminalParams)]
        text = params.__doc__ or ""
        short, *_ = re.split(r"[:.](?: |$)", text)
        group.add_command(_Step(step, params=parameters, callback=runner(step), help=text, short_help=short))
    return group


class _Steps(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order in which they are used

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args[0] in MOVED_COMMANDS:
            ctx.fail(f"{args[0]} is now another command: {MOVED_COMMANDS[args[0]]}")
        if args[0] not in self.commands and not args[0].startswith("-"):
            ctx.fail(f"unknown step {args[0]}{nearest(args[0], COMMANDS)} (steps: {', '.join(COMMANDS)})")
        return super().resolve_command(ctx, args)


class _Step(click.Command):
    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the options in groups, under the headings of the docs."""
        rows = {param.opts[0].removeprefix("--"): self._row(param, ctx) for param in self.get_params(ctx)}
        groups = {**headings.groups(COMMANDS[self.name or ""]), **headings.groups(TerminalParams)}
        groups[headings.HEADINGS["TerminalParams"]].append("help")
        for heading, names in groups.items():
            with formatter.section(heading):
                # Names of equal width keep the texts of all groups in one column.
                formatter.write_dl([(rows[name][0].ljust(NAME_WIDTH), rows[name][1]) for name in names])

    def _row(self, param: click.Parameter, ctx: click.Context) -> tuple[str, str]:
        """How a parameter is given, and what it means."""
        if isinstance(param, click.Argument):
            schema = _schemas(COMMANDS[self.name or ""])[str(param.name)]
            return " ".join(param.get_usage_pieces(ctx)), schema["description"]
        return param.get_help_record(ctx) or ("", "")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for word in args:
            name = word.partition("=")[0]
            if name.startswith("--") and (answer := old_name(name.removeprefix("--"))):
                ctx.fail(f"{name} {answer}")
        step = self.name or ""
        given = _with_values(args, {f"--{name}" for name in _switches(step)})
        return super().parse_args(ctx, _words_as_options(step, _without_the_recipe(step, given)))


def _switches(step: str) -> set[str]:
    """The names of parameters that are true or false."""
    fields = {**COMMANDS[step].model_fields, **TerminalParams.model_fields}
    return {name for name, field in fields.items() if field.annotation is bool}


def _with_values(args: Sequence[str], switches: Container[str]) -> list[str]:
    """`args`, with `=true` added to each switch without a value. MLflow always passes a value."""
    given = []
    for word, following in zip_longest(args, args[1:]):
        is_alone = following is None or following.startswith("-") or _is_no_value(word, following)
        given.append(f"{word}=true" if word in switches and is_alone else word)
    return given


def _without_the_recipe(step: str, args: Sequence[str]) -> list[str]:
    """`args` without parameters of a recipe that `step` does not have, such as `epochs` of a range test; names them."""
    own, of_recipe = COMMANDS[step].model_fields, COMMANDS["main"].model_fields
    if not issubclass(COMMANDS[step], DataParams):
        return list(args)
    kept: list[str] = []
    place = 0
    while place < len(args):
        name, equals, value = args[place].removeprefix("--").partition("=")
        following = args[place + 1] if place + 1 < len(args) else "--"
        is_whole = equals or not following.startswith("--")
        if args[place].startswith("--") and name in of_recipe and name not in own and is_whole:
            click.echo(f"{name}={visible(value if equals else following)} is not used by {step}", err=True)
            place += 1 if equals else 2
        else:
            kept.append(args[place])
            place += 1
    return kept


def _words_as_options(step: str, args: Sequence[str]) -> list[str]:
    """`args` with words that belong to no option as the value of the option that takes words, if the step has one."""
    taking = [name for name, schema in _schemas(COMMANDS[step]).items() if schema.get("words")]
    if not taking:
        return list(args)
    kept, words, rest = [], [], iter(args)
    for word in rest:
        if not word.startswith("-"):
            words.append(word)
            continue
        kept.append(word)
        if "=" not in word and word != "--help" and (value := next(rest, None)) is not None:
            kept.append(value)
    return [*kept, f"--{taking[0]}={','.join(words)}"] if words else kept


def _is_no_value(switch: str, word: str) -> bool:
    """Whether `word` after a terminal switch is not its value but, for example, a photo.

    A step's own switch takes any word as its value.
    """
    return switch.removeprefix("--") in TerminalParams.model_fields and word.lower() not in TRUTH_VALUES


def options(params: type[Declared]) -> list[click.Parameter]:
    """One option of the command line for each parameter."""
    schemas = _schemas(params)
    return [_parameter(name, schemas[name], params) for name in params.model_fields]


def _schemas(params: type[Declared]) -> dict[str, Any]:
    return dict(params.model_json_schema().get("properties", {}))


def _parameter(name: str, schema: Mapping[str, Any], params: type[Declared]) -> click.Parameter:
    if schema.get("positional"):
        return click.Argument([name], nargs=-1)
    field = params.model_fields[name]
    text = schema["description"]
    if field.is_required():
        return click.Option([f"--{name}"], metavar=_values(schema), help=text, required=True)
    default = "" if field.default is False else as_text(field.default)
    return click.Option([f"--{name}"], metavar=_values(schema), help=f"{text} [{default}]" if default else text)


def _values(schema: Mapping[str, Any]) -> str:
    """The values that a parameter takes, such as `on|off` or `FLOAT|auto`; nothing for a switch."""
    if "anyOf" in schema:
        return "|".join(map(_values, schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return "|".join(map(str, schema.get("enum", [schema.get("const")])))
    if "prefixItems" in schema:
        return ",".join(map(_values, schema["prefixItems"]))
    if "items" in schema:
        return f"{_values(schema['items'])},..."
    return TYPES.get(schema.get("type", ""), "")
