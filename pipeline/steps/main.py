"""A whole experiment under one parent run: each step a child, each handed the one before."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.params import STEPS, MainParams, Params, SweepParams, TrainParams
from pipeline.progress import say
from pipeline.steps import evaluate, explain, lr_range, sweep, train
from pipeline.tracking import runs, store
from pipeline.tracking.runs import Result

RUN: dict[str, Callable[..., Result]] = {
    "lr_range": lr_range.run,
    "sweep": sweep.run,
    "train": train.run,
    "evaluate": evaluate.run,
    "explain": explain.run,
}

OF_SWEEPS = SweepParams.model_fields.keys() - TrainParams.model_fields.keys()


def run(params: MainParams) -> Result:
    """Runs the steps in order."""
    title = Path(params.experiment).stem if params.experiment != "none" else f"{params.dataset} {params.model}"
    with runs.start("main", title) as run:
        run.params(
            {
                **params.model_dump(exclude=set() if "sweep" in params.steps else OF_SWEEPS),
                "steps": ",".join(params.steps),
            }
        )
        run.tags({"dataset": params.dataset, "model": params.model})
        handed: dict[str, Any] = {}
        results = []
        for step in params.steps:
            say(f"== {step}")
            result = RUN[step](_own(step, params, handed), parent=run)
            results.append(result)
            handed |= result.handed
            run.tags({f"{step}.run_id": result.run_id})
            run.metrics(result.metrics)
        summary = "\n".join(result.summary for result in results)
        run.describe(title, summary.replace("\n", "\n\n"))
    say(f"\n{title}\n{summary}\nTracked in {store.uri()}, run {run.id}. Look at it with: make ui")
    return Result(run.id, summary, {})


def _own(step: str, params: MainParams, handed: dict[str, Any]) -> Params:
    kind = STEPS[step]
    return kind(
        **{name: getattr(params, name) for name in kind.model_fields}
        | {name: value for name, value in handed.items() if name in kind.model_fields}
    )
