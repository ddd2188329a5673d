"""All commands as one page: what each does, what it logs, which parameters it takes."""

import ast
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from pipeline.params import COMMANDS, STEPS, TOOLS, Declared
from pipeline.params.headings import HEADINGS
from reference import parameters
from reference.logged import COMPUTED_FILES, FILES, GUIDES, METRICS, MODULES, TAGS

PIPELINE = Path(__file__).resolve().parent.parent / "pipeline"
WRITERS = {"array", "bytes", "figure", "file", "growing_table", "json", "table", "text"}  # methods of a run, for files
SUFFIXES = {".csv", ".gif", ".html", ".json", ".npy", ".png", ".safetensors", ".txt", ".webp", ".xml"}
*FIRST_TOOLS, LAST_TOOL = (f"`{name}`" for name in TOOLS)
HEAD = f"""# All steps

This page is made from `pipeline/params` and `reference/logged.py`. Each step is one command:
`mlflow run . -e <step> -P name=value` or `python -m pipeline <step> --name value`. `mlflow run .` alone runs `main`.
{", ".join(FIRST_TOOLS)} and {LAST_TOOL} are commands of `python -m pipeline` only.

A step leaves an MLflow run (`predict` only with `images`). There may be runs below it: of each step of `main`, of each
trial of `sweep`, of each training of `learning_curve` or of several seeds, of the range test of `max_lr=auto`.

Every run has its parameters as `params.json`, and the tags `step` and `git.commit`. A run that failed or was
interrupted has the reason as tag `error`. One that failed also has a `traceback.txt`.
"""


def page() -> str:
    """The page in Markdown. Raises ValueError where a step, or a file that it logs, is not described."""
    check()
    return HEAD + "".join(_section(step, params) for step, params in COMMANDS.items())


def check() -> None:
    """Raises ValueError where the code logs a file that no words describe, or words describe what no code logs."""
    for step, modules in MODULES.items():
        written = {name for module in modules for name in logged_files(PIPELINE / module)}
        described = set(FILES.get(step, {}))
        if missing := {name for name in written if not any(fnmatchcase(name, each) for each in described)}:
            raise ValueError(f"step {step} logs {min(missing)}: describe it in reference/logged.py")
        if gone := {each for each in described if not any(fnmatchcase(name, each) for name in written)}:
            raise ValueError(f"reference/logged.py describes {min(gone)}, which step {step} does not log any more")
    if unknown := (STEPS.keys() ^ FILES.keys()) | (COMMANDS.keys() ^ GUIDES.keys()):
        raise ValueError(
            f"{min(unknown)}: reference/logged.py has the guide and the files of each command, and no other"
        )


def logged_files(path: Path) -> Iterator[str]:
    """Names of the files that a module logs, as far as they stand in it; `*` for what is computed."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assigned = [node for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)]
    constants = {ast.unparse(node.targets[0]): _text(node.value, {}) for node in assigned}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in WRITERS:
            for name in (_text(argument, constants) for argument in node.args[:2]):
                if Path(name).suffix in SUFFIXES or name.startswith("weights/"):
                    yield name


def _text(node: ast.expr, constants: dict[str, str]) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in node.values)
    if isinstance(node, ast.Name):
        return constants.get(node.id, "")
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _section(step: str, params: type[Declared]) -> str:
    title, guide = GUIDES[step]
    parts = ["", f"## {step}", "", f"{params.__doc__}", "", f"Guide: [{title}]({guide}).", ""]
    parts += [f"Parameters: {_parameters(step)}.", ""]
    if step in STEPS:
        files = {**FILES[step], **COMPUTED_FILES.get(step, {})}
        parts += [*_table("file", files), *_table("metric", METRICS[step]), *_table("tag", TAGS.get(step, {}))]
    else:
        parts += ["It leaves no run.", ""]
    return "\n".join(parts)


def _parameters(step: str) -> str:
    kinds = [kind for kind, steps in parameters.groups().items() if step in steps or not steps]
    return ", ".join(f"[{HEADINGS[kind.__name__]}](parameters.md#{parameters.anchor(kind)})" for kind in kinds)


def _table(what: str, rows: dict[str, str]) -> list[str]:
    if not rows:
        return []
    shown = [
        f"| {', '.join(f'`{name}`' for name in names.split(', '))} | {meaning} |" for names, meaning in rows.items()
    ]
    return [f"| {what} | what it holds |", "|---|---|", *shown, ""]
