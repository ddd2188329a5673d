"""OneCycle training as a tracked step: curves, best and last weights, and the model to serve."""

import numpy as np
import pandas as pd

from pipeline.params import LrRangeParams, RecipeParams, TrainParams
from pipeline.progress import say, show
from pipeline.results import plots
from pipeline.steps import lr_range
from pipeline.tracking import checkpoint, runs, store
from pipeline.tracking.classifier import Classifier
from pipeline.tracking.runs import Result
from pipeline.training.assemble import Setup, fingerprint, fitting, model_options, prepare
from pipeline.training.events import EpochEnd

EXAMPLES = 2  # images stored beside the served model


def run(params: TrainParams, parent: runs.Run | None = None) -> Result:
    """Runs the training that `params` declare."""
    setup = prepare(params)
    with runs.start("train", f"{params.dataset} {params.model}", parent) as run:
        max_lr = _suggested_lr(setup, params, run) if params.max_lr == "auto" else params.max_lr
        name = f"{params.dataset} {params.model} lr {max_lr:.3g}"
        run.params({**params.model_dump(), "max_lr": max_lr})
        _describe_input(run, setup)
        return _train(run, name, setup, params, max_lr)


def _suggested_lr(setup: Setup, params: TrainParams, run: runs.Run) -> float:
    recipe = setup.recipe()
    same = store.finished_runs("lr_range", {"recipe": fingerprint(recipe)})
    for test in same:
        if "lr_range/suggestion" in test.data.metrics:
            run.tags({"lr_range.run_id": test.info.run_id})
            rate = test.data.metrics["lr_range/suggestion"]
            say(f"max_lr {rate:.2e}, from range test {test.info.run_id}")
            return float(rate)
    if same:
        reason = same[0].data.tags.get("no_suggestion", "")
        raise ValueError(f"the range test of this recipe has no suggestion ({reason}): give max_lr")
    _say_what_differs(recipe)
    own = {name: getattr(params, name) for name in RecipeParams.model_fields}
    lr_range.test(setup, LrRangeParams(**own), parent=run)
    return _suggested_lr(setup, params, run)


def _say_what_differs(recipe: dict[str, object]) -> None:
    others = store.finished_runs("lr_range", {name: str(recipe[name]) for name in ("dataset", "model")})
    if not others:
        return
    with store.scratch() as folder:
        other = store.read_json(others[0].info.run_id, "recipe.json", folder)
    differences = [
        f"{name} {other.get(name)} there, {value} here" for name, value in recipe.items() if other.get(name) != value
    ]
    say(f"range test {others[0].info.run_id} is of another recipe, not used: {'; '.join(differences)}")


def _describe_input(run: runs.Run, setup: Setup) -> None:
    params, splits = setup.params, setup.splits
    recipe = setup.recipe()
    run.json("recipe.json", recipe)
    run.tags({"dataset": params.dataset, "model": params.model, "recipe": fingerprint(recipe)})
    run.tags({"device": setup.device, "precision": setup.precision, "data.digest": splits.digest})
    run.dataset(splits.name, splits.digest, params.data_dir, "training")
    rows = [pd.DataFrame({"split": split, "index": index}) for split, index in splits.indices.items()]
    run.table("splits.csv", pd.concat(rows))
    report = splits.report
    if report.corrupt:
        run.table("corrupt.csv", pd.DataFrame(report.corrupt, columns=["file", "error"]))
    if left_out := {**report.skipped, **({"corrupt": len(report.corrupt)} if report.corrupt else {})}:
        counts = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        run.tags({"data.left_out": counts})
        say(f"files left out: {counts}")
    if splits.valid is None:
        say("no validation split: all of train is trained on, and the best weights are the last")


def _train(run: runs.Run, name: str, setup: Setup, params: TrainParams, max_lr: float) -> Result:
    training = fitting(setup, params, max_lr)
    with store.scratch() as folder:
        best: EpochEnd | None = None
        try:
            for event in show(training.events, name, training.steps_per_epoch, params.epochs):
                if isinstance(event, EpochEnd):
                    is_best = best is None or _merit(event) > _merit(best)
                    for file in ["last.safetensors", *(["best.safetensors"] if is_best else [])]:
                        checkpoint.save(folder / file, training.evaluated.state_dict(), _description(setup, event))
                    best = event if is_best else best
                run.record(event)  # last: an epoch that shows in MLflow has its weights kept
        finally:
            # Also after Ctrl-C or a diverged loss: the epochs that are done are worth keeping.
            run.table("steps.csv", run.steps())
            if not run.epochs().empty:
                run.figure("curves.png", plots.curves(run.epochs(), run.steps(), name))
            if best is not None:
                run.files(folder, "weights")
        assert best is not None
        classifier = Classifier.load(folder / "best.safetensors")
        example = setup.splits.train.take(np.arange(min(EXAMPLES, len(setup.splits.train))))
        uri = run.model(folder / "best.safetensors", example, classifier.table(example))
        return _conclude(run, name, best, uri)


def _merit(event: EpochEnd) -> tuple[float, ...]:
    # Without validation the last epoch is the best; ties in accuracy go to the lower loss.
    if event.valid_accuracy is None or event.valid_loss is None:
        return (event.epoch,)
    return (event.valid_accuracy, -event.valid_loss)


def _description(setup: Setup, event: EpochEnd) -> dict[str, object]:
    return {
        "network": {"name": setup.params.model, "options": model_options(setup.params)},
        "image_size": setup.params.image_size,
        "classes": list(setup.splits.classes),
        "mean": list(setup.splits.mean),
        "std": list(setup.splits.std),
        "epoch": event.epoch,
    }


def _conclude(run: runs.Run, name: str, best: EpochEnd, uri: str) -> Result:
    numbers = {"best/epoch": float(best.epoch)}
    if best.valid_accuracy is None:
        result = f"train accuracy {best.train_accuracy:.2%} after epoch {best.epoch}, without validation"
    else:
        numbers["best/valid_accuracy"] = best.valid_accuracy
        result = f"validation accuracy {best.valid_accuracy:.2%} at epoch {best.epoch}"
    run.metrics(numbers)
    run.describe(name, f"**Training** — {result}\n\nServed model: `{uri}`")
    say(f"training: {result} (run {run.id})")
    return Result(run.id, f"Training: {result}", numbers, handed={"run_id": run.id})
