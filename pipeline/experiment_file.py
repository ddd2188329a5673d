"""Reads experiment files: strict YAML without ambiguous values, whose keys must be parameters."""

import re
from pathlib import Path
from typing import Any

import yaml

from pipeline.params import REMOVED, RENAMED, STEPS
from pipeline.params.base import nearest

READ_ERRORS = (ValueError, LookupError, AttributeError, TypeError, RecursionError)  # of PyYAML, e.g. for `!!int x`

IDENTIFIER = re.compile(r"\w{1,40}")
QUOTATION = re.compile("['\"!]")  # marks a quoted text or a tag
KNOWN = {name for params in STEPS.values() for name in params.model_fields} - {"experiment"}
_OF_REPOSITORY = Path(__file__).resolve().parent.parent / "experiments"
# An installed package contains the files, where the repository has a link to them.
EXPERIMENTS = (
    _OF_REPOSITORY if (_OF_REPOSITORY / "digits.yaml").is_file() else Path(__file__).resolve().parent / "experiments"
)
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class _Ambiguous(Exception):
    """The file has a value with two possible meanings."""


class _Loader(yaml.SafeLoader):
    """Loads plain values without aliases. A few lines of aliases to aliases could expand to more than memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not supported: write the value out")
        return super().compose_node(parent, index)

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            _check_meaning(node)
        return node


def _check_meaning(node: yaml.Node, name: str = "") -> None:
    """Raises _Ambiguous for a key that occurs twice in a mapping, and for a number that YAML reads differently.

    YAML 1.1 reads 010 as 8 and 1:30 as 90. A flag would read 010 as 10, and refuse 1:30.
    """
    if isinstance(node, yaml.SequenceNode):
        for each in node.value:
            _check_meaning(each, name)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            full_key = f"{name}.{key.value}" if name else str(key.value)
            line = key.start_mark.line + 1
            if full_key in lines:
                raise _Ambiguous(f"{full_key} is in line {lines[full_key]} and again in line {line}: keep one")
            lines[full_key] = line
            _check_meaning(value, full_key)
    elif node.tag in NUMBERS and (number := yaml.SafeLoader("").construct_object(node)) != _as_decimal(node.value):
        raise _Ambiguous(f"{name}={node.value}: YAML reads this as {number}: write a plain decimal number")


def _as_decimal(text: str) -> float | None:
    for kind in (int, float):  # int first, because a float cannot hold all digits of a large whole number
        try:
            return kind(text)
        except ValueError:
            continue
    return None


def read_experiment(path: Path) -> dict[str, Any]:
    """The mapping in an experiment file. Raises ValueError that names the file, and the key if one is unknown."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ValueError(f"experiment {path}: {error.strerror or error}") from None
    except _Ambiguous as error:
        raise ValueError(f"experiment {path}: {error}") from None
    except (yaml.YAMLError, *READ_ERRORS) as error:
        raise ValueError(f"experiment {path}: not YAML{_where(error)}") from None
    if not isinstance(content, dict):
        raise ValueError(f"experiment {path}: expected `name: value` lines, found {type(content).__name__}")
    for key in content:
        if answer := old_name(str(key)):
            raise ValueError(f"experiment {path}: {key} {answer}")
        if key not in KNOWN:
            name = f" {key}" if IDENTIFIER.fullmatch(str(key)) else ""  # nothing else from the file is quoted
            raise ValueError(f"experiment {path}: unknown key{name}{nearest(str(key), KNOWN)}")
    return content


def _where(error: Exception) -> str:
    """The place and reason of a YAML error. It quotes nothing, as not every reader of the error may read the file."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or ""
    place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    reason = f": {problem}" if problem and not QUOTATION.search(problem) else ""
    return f"{place}{reason}"


def old_name(name: str) -> str:
    """The answer to a parameter's name from an earlier version; empty for any other name."""
    if name in RENAMED:
        return f"is now called {RENAMED[name]}"
    return f"was removed: {REMOVED[name]}" if name in REMOVED else ""
