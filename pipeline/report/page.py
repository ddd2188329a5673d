"""Builds the page from templates, with the data of charts and pictures inside it."""

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.report import recipe, sections
from pipeline.report.record import Record, StepRecord

HERE = Path(__file__).parent
VENDORED = ("d3.min.js", "plot.umd.min.js")
SCRIPTS = (
    "charts.js",
    "training.js",
    "watched.js",
    "results.js",
    "tables.js",
    "sweep.js",
    "learning_curve.js",
    "robustness.js",
)


def build(record: Record) -> str:
    """The page about `record` as one HTML text. It fetches nothing and runs only its own scripts."""
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"shown": shown, "duration": duration}
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}  # keeps the order of columns
    environment.tests["number"] = lambda value: isinstance(value, int | float)
    scripts = [_text("vendor", name) for name in VENDORED] + [_text("templates", name) for name in SCRIPTS]
    return environment.get_template("page.html").render(
        record=record,
        steps=record.steps,
        policy=_policy(scripts),
        scripts=scripts,
        style=_text("templates", "style.css"),
        charted=sections.charted(record),
        sprites=sections.sprites(record),
        source=_source(record),
        parameters=recipe.parameters(_asked(record)),
        command=recipe.command(record),
        sections=sections,
    )


def shown(value: float | None, kind: str = "plain") -> str:
    """A number as the page writes it: `percent`, `points`, `rate`, `count`, `seconds`, or `plain` with four digits."""
    if value is None or value != value:
        return "–"
    return FORMATS[kind](value)


def duration(seconds: float) -> str:
    """Seconds as text, such as `4.5 s`, `3 min 20 s` or `2 h 5 min`."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


FORMATS = {
    "plain": lambda value: f"{value:.4g}",
    "percent": lambda value: f"{100 * value:.2f} %",
    "points": lambda value: f"{100 * value:.2f} points",
    "rate": lambda value: f"{value:.2e}",
    "count": lambda value: f"{value:,.0f}",
    "seconds": duration,
}


def _asked(record: Record) -> StepRecord:
    """The run whose parameters the page lists: an experiment's own, or else the training's if there is one."""
    return record.run if record.run.kind in ("main", "seeds", "sweep") else record.steps.get("train", record.run)


def _source(record: Record) -> dict[str, Any]:
    """Code, data and machine of the run, each from the first step that has recorded it."""
    every = [record.run, *record.steps.values()]
    names = {"commit": "git.commit", "dirty": "git.dirty", "data": "data.digest", "device": "device"}
    names |= {"machine": "machine", "precision": "precision", "dataset": "dataset", "model": "model"}
    names |= {"weights": "weights.source", "licence": "weights.licence"}
    found = {key: next((step.tags[tag] for step in every if step.tags.get(tag)), "") for key, tag in names.items()}
    folder = next((step.params["data_dir"] for step in every if step.params.get("data_dir")), "")
    return {**found, "images": (found["dataset"] == "folder" and Path(str(folder)).name) or found["dataset"]}


def _policy(scripts: list[str]) -> str:
    """A Content-Security-Policy that forbids every request and every script except these."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}; "
        "base-uri 'none'; form-action 'none'"
    )


def _text(folder: str, name: str) -> str:
    return (HERE / folder / name).read_text(encoding="utf-8")
