"""python -m pictures.gallery [CIFAR10 [name=value ...]]   writes docs/gallery.md: a picture of each experiment's report

CIFAR10 is a folder with train/<class> and test/<class>, for the experiments on that data set. The other arguments set
parameters of these experiments, for example to shorten them, or of one of them: cifar10_vit.max_lr=1e-3. The gallery
uses the newest finished run of an experiment. It runs the experiment if the store in use has no finished run of it.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from pictures.browser import chromium, keep, status
from pipeline.experiment_file import EXPERIMENTS, read_experiment
from pipeline.history import run_record
from pipeline.params import STEPS, as_text
from pipeline.params.base import nearest
from pipeline.report import page as report
from pipeline.report.record import Record
from pipeline.settings import resolve
from pipeline.tracking import store

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PROJECT = EXPERIMENTS.parent
DOCS = PROJECT / "docs"
WATCHED = {"watch_images": "8"}  # so that the report has its slider
WIDTH = 1500  # px, for two columns
# Shows the graphical parts of a report in two columns, and hides the parts that are for reading.
LAYOUT = """
body { max-width: none; padding-bottom: 1rem; }
nav, details, #classes, #recipe, #source, #sweep .wide, #filters, #filtered, #confusion .panel { display: none; }
main { columns: 2; column-gap: 3rem; } section { break-inside: avoid; margin: 0 0 1.5rem; padding-top: 1rem; }
.errors { grid-template-columns: 1fr 1fr; }
.errors li:nth-child(n + 7) { display: none; } .beside { display: block; }
"""
PLACES = {"dataset": "folder", "data_dir": "/path/to/cifar10-jpeg"}
NOT_GIVEN = {"experiment", "storage", "study_name"}  # the experiment file or the store decides these
NOT_SHORTER = {"dataset", "data_dir", "watch_images", "device"}
HEAD = """# Gallery

This page shows a part of the report of every experiment in `experiments/`. A whole report has more. An experiment
leaves its report among its artifacts. `-e report` makes the report of a sweep alone.

A command makes this page, and runs the experiments that are missing:

```console
{command}
```
"""
ENTRY = """
## {name}

{result}

{how}, on {machine}, commit {commit}:

```console
{command}
```

![Report of {name}: {result}](gallery/{name}.png)
"""


@dataclass(frozen=True)
class Shown:
    """An experiment file, the step that runs it, and the other parameters that the gallery sets."""

    path: Path
    step: str
    given: Mapping[str, str]

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def flags(self) -> dict[str, str]:
        return {"experiment": str(self.path.relative_to(PROJECT)), **self.given}


def make(data_dir: str, shortened: Mapping[str, str]) -> None:
    """Makes the page and its pictures. Raises ValueError if there is no Chromium, or if an experiment fails."""
    entries = []
    with chromium() as browser:
        for shown in _experiments(data_dir, shortened):
            record = run_record.read(_newest(shown) or _run(shown))
            picture, result = _picture_and_result(browser, record)
            size = keep(picture, DOCS / "gallery" / f"{shown.name}.png")
            print(f"{shown.name}: {result} ({size / 1000:.0f} kB)")
            entries.append(_entry(shown, record, result))
    given = " ".join(quote(f"{name}={value}") for name, value in shortened.items())
    command = f'make gallery CIFAR10={PLACES["data_dir"]} GIVEN="{given}"' if data_dir else "make gallery"
    head = HEAD.format(command=command)
    (DOCS / "gallery.md").write_text(head + "".join(entries), encoding="utf-8")


def _experiments(data_dir: str, shortened: Mapping[str, str]) -> Iterator[Shown]:
    for path in sorted(EXPERIMENTS.glob("*.yaml")):
        content = read_experiment(path)
        if content.get("dataset") == "folder":  # an experiment on the user's own photos
            continue
        step = "sweep" if "space" in content and "steps" not in content else "main"
        has_validation = resolve(step, {"experiment": str(path)}).model_dump()["valid_fraction"] > 0
        given = dict(WATCHED) if step == "main" and has_validation else {}
        if content.get("dataset") == "cifar10" and data_dir:
            own = {name.removeprefix(f"{path.stem}."): value for name, value in shortened.items()}
            given |= {**PLACES, "data_dir": data_dir, **own}
        yield Shown(path, step, {name: value for name, value in given.items() if name in STEPS[step].model_fields})


def _newest(shown: Shown) -> str | None:
    """The id of the newest finished run of the experiment, with any other parameters."""
    for run in store.finished_runs(shown.step):
        if "mlflow.parentRunId" not in run.data.tags:
            with store.scratch() as folder:
                params = store.read_json(str(run.info.run_id), "params.json", folder)
            if params.get("experiment") == shown.flags["experiment"]:
                return str(run.info.run_id)
    return None


def _run(shown: Shown) -> str:
    words = [word for name, value in shown.flags.items() for word in (f"--{name}", value)]
    done = subprocess.run([sys.executable, "-m", "pipeline", shown.step, *words], cwd=PROJECT, check=False)
    if done.returncode or (run_id := _newest(shown)) is None:
        raise ValueError(f"{shown.name}: its run ended with exit status {done.returncode}")
    return run_id


def _picture_and_result(browser: "Browser", record: Record) -> tuple[bytes, str]:
    """A picture of the report, and the report's first sentence."""
    context = browser.new_context(viewport={"width": WIDTH, "height": 800}, color_scheme="light")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.html"
        file.write_text(report.build(record), encoding="utf-8")
        page = context.new_page()
        page.goto(file.as_uri())
        page.add_style_tag(content=LAYOUT)
        page.locator(".chart svg").first.wait_for()
        page.wait_for_timeout(500)  # time for all charts to draw in their new width
        result = page.locator(".result").inner_text()
        picture = page.screenshot(full_page=True)
    context.close()
    return picture, result


def _entry(shown: Shown, record: Record, result: str) -> str:
    """The text of the gallery about an experiment, from the record of its run."""
    changed = _changed(shown, record)
    shorter = [text for name, text in changed.items() if name not in NOT_SHORTER]
    given = {name: as_text(PLACES.get(name, record.run.params[name])) for name in changed}
    entry = [] if shown.step == "main" else ["-e", shown.step]
    words = [f"-P {quote(f'{name}={value}')}" for name, value in given.items()]
    tags = {name: value for step in (*record.steps.values(), record.run) for name, value in step.tags.items()}
    return ENTRY.format(
        name=shown.name,
        result=result,
        how=f"**Shortened** ({'; '.join(shorter)})" if shorter else "In full",
        machine=tags.get("machine", "a machine that was not recorded"),
        commit=tags.get("git.commit", "unknown")[:7],
        command=" ".join(["mlflow run .", *entry, "-P", f"experiment={shown.flags['experiment']}", *words]),
    )


def _changed(shown: Shown, record: Record) -> dict[str, str]:
    """The parameters of the run that differ from the experiment's file: name -> the difference in words."""
    declared = resolve(shown.step, {"experiment": str(shown.path)}).model_dump(mode="json")
    return {
        name: f"`{name}={as_text(value)}`, not `{as_text(declared[name])}`"
        for name, value in record.run.params.items()
        if name in declared.keys() - NOT_GIVEN and value != declared[name]
    }


def main(arguments: Sequence[str]) -> None:
    """Makes the gallery. Raises ValueError for wrong arguments, and for the reasons that `make` has."""
    data_dir, *given = arguments or [""]
    if wrong := [word for word in given if "=" not in word]:
        raise ValueError(f"{wrong[0]}: expected name=value")
    known = {*STEPS["main"].model_fields, *STEPS["sweep"].model_fields}
    for word in given:
        name = word.partition("=")[0].rpartition(".")[2]
        if name not in known:
            raise ValueError(f"{word}: no parameter is called {name}{nearest(name, known)}")
    make(data_dir and str(Path(data_dir).resolve()), dict(word.split("=", 1) for word in given))


if __name__ == "__main__":
    sys.exit(status(lambda: main(sys.argv[1:])))
