"""Common to all tracked steps: what a run records first, how it ends, and what it hands to later steps."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic import FiniteFloat

from pipeline import progress
from pipeline.history.trained_model import ModelAndImages
from pipeline.params import TrainedModelParams
from pipeline.text import unmarked
from pipeline.tracking import artifact_folder, lifecycle, store
from pipeline.tracking.run import Run

TITLES = {
    "doctor": "Doctor",
    "lr_range": "Range test",
    "probe": "Probe",
    "sweep": "Sweep",
    "train": "Training",
    "seeds": "Seeds",
    "ensemble": "Ensemble",
    "learning_curve": "Learning curve",
    "robustness": "Robustness",
    "evaluate": "Evaluation",
    "explain": "Explanation",
    "predict": "Prediction",
    "report": "Report",
    "compare": "Comparison",
    "export": "Export",
}


@dataclass(frozen=True)
class Result:
    """The result of a step: its run, one line for people, its main numbers as metrics, and parameters for later steps.

    seconds: how long it took; None if that is not known, as after an interruption.
    """

    run_id: str
    summary: str
    metrics: dict[str, float]
    handed: dict[str, Any] = field(default_factory=dict)
    seconds: FiniteFloat | None = None


class SuggestedRate(NamedTuple):
    """The result of a range test."""

    fingerprint: str  # of the recipe, its rule and, for a rule on ladders, the ladder
    run_id: str
    rate: float | None  # None if there is no suggestion
    reason: str  # why there is none; else empty
    doubt: str = ""  # what makes the rate uncertain; else empty


@dataclass(frozen=True)
class Step:
    """A step under way."""

    run: Run
    title: str
    name: str

    def conclude(
        self,
        result: str,
        numbers: Mapping[str, float] | None = None,
        *,
        name: str = "",
        of: str = "",
        more: str = "",
        before: str = "",
        details: Sequence[str] = (),
        handed: Mapping[str, Any] | None = None,
    ) -> Result:
        """Names and describes the run, prints `result` on the terminal and returns it.

        name: a new name for the run, if any. of, more: Markdown around the result in the description.
        before: lines for the terminal above the result. details: lines below the result, in both places.
        """
        paragraphs = [*unmarked(result).splitlines(), "\n".join(f"- {unmarked(line)}" for line in details)]
        described = "\n\n".join(each for each in paragraphs if each)
        self.run.describe(name or self.name, f"**{self.title}**{of} — {described}{more}")
        first = f"{before}{self.title.lower()}: {result} (run {self.run.id})"
        progress.conclude("\n".join([first, *(f"  {line}" for line in details)]))
        return Result(self.run.id, f"{self.title}: {result}", dict(numbers or {}), handed=dict(handed or {}))

    def say_where(self, files: str) -> None:
        """Prints the run that has the `files` and, if they are on this machine, their folder."""
        folder = ""
        with suppress(ValueError):  # the store does not answer now: the run goes there later
            folder = artifact_folder.named(store.stored_run(self.run.id))
        progress.conclude(f"{self.title.lower()}: {files} in run {self.run.id}{folder}")


@contextmanager
def tracked(
    kind: str,
    name: str,
    params: Mapping[str, Any] | None,
    tags: Mapping[str, Any],
    parent: Run | None = None,
    reopen: str = "",
) -> Iterator[Step]:
    """A step of `kind` in a run with the given parameters and tags; `lifecycle.start` says how the run ends.

    params: None if they are logged later, or if a reopened run already has them.
    """
    with lifecycle.start(kind, name, parent, reopen) as run:
        if params is not None:
            run.params(params)
        run.tags(tags)
        yield Step(run, TITLES[kind], name)


@contextmanager
def about(
    trained: ModelAndImages, kind: str, name: str, params: TrainedModelParams, images: str, parent: Run | None
) -> Iterator[Step]:
    """A step that works on a finished training and its `images`, the name of a split."""
    dataset, model, splits = trained.params.dataset, trained.params.model, trained.splits
    title = f"{trained.params.set_name} {trained.network_name} {name}"
    tags = {"dataset": dataset, "model": model, "train.run_id": trained.run_id}
    own = {**params.model_dump(), "run_id": trained.run_id}
    with tracked(kind, title, own, tags, parent) as step:
        step.run.dataset(splits.name, splits.digest, params.data_dir or trained.params.data_dir, images)
        yield step
