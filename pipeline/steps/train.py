"""OneCycle training as a tracked step: curves, best and last weights, and the model to serve."""

from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline import progress
from pipeline.data.tree import in_words
from pipeline.params import LrRangeParams, RecipeParams, TrainParams, TrainStepParams
from pipeline.progress import Part, conclude, say, show
from pipeline.tracking import checkpoint, runs, store, views
from pipeline.tracking.keeping import kept, restore
from pipeline.tracking.run import Run, measured
from pipeline.tracking.runs import Result
from pipeline.tracking.starting import prepare
from pipeline.training import compiling, machine
from pipeline.training.assemble import fitting
from pipeline.training.events import EpochEnd
from pipeline.training.fitting import Fitting
from pipeline.training.setup import Setup, fingerprint, model_options

if TYPE_CHECKING:
    from pipeline.tracking.watching import Watch

NOT_OF_ONE_TRAINING = {"resume", "num_seeds"}
SUGGESTION = "lr_range/suggestion"  # metric of a range test
EXAMPLES = 2  # images stored beside the served model


def run(params: TrainStepParams, parent: Run | None = None) -> Result:
    """Runs the training that `params` declare, once for each of its seeds, or goes on with what `resume` names."""
    if params.num_seeds == 1:
        return _run_one(params, parent)
    from pipeline.steps import seeds  # here, as its statistics take a while to import

    return seeds.run(params, _run_one)


def _run_one(params: TrainStepParams, parent: Run | None = None) -> Result:
    setup = prepare(params)
    compiling.check(params.compile, setup.device)
    if params.watch_images and setup.splits.valid is None:
        raise ValueError(f"watch_images={params.watch_images}: there is no validation split to take them from")
    if params.resume:
        _check_same(setup, params.resume)
    title = f"{params.dataset} {params.model}"
    all_of_it = progress.alone(Part("train", "train", params.epochs))
    with all_of_it, runs.start("train", title, parent, reopen=params.resume) as run:
        if params.resume:
            max_lr = _stored_rate(params.resume)
        else:
            max_lr = _suggested_lr(setup, params, run) if params.max_lr == "auto" else params.max_lr
            if params.max_lr == "auto" and params.unfreeze_epoch:
                then = f"from epoch {params.unfreeze_epoch} on the rest learns at it too (lr_decay {params.lr_decay:g})"
                say(f"measured with freeze={params.freeze}: {then}; give max_lr if validation falls then")
            run.params({**params.model_dump(exclude=NOT_OF_ONE_TRAINING), "max_lr": max_lr})
            _describe_input(run, setup)
        training = fitting(setup, params, max_lr)
        if params.resume:
            restore(training, params.resume)
            say(f"going on with run {run.id} after update {training.history.num_steps}")
        return _train(run, f"{title} lr {max_lr:.3g}", setup, params, training)


def _stored_rate(run_id: str) -> float:
    with store.scratch() as folder:
        return float(TrainParams(**store.read_json(run_id, "params.json", folder)).max_lr)


def _check_same(setup: Setup, run_id: str) -> None:
    """Raises ValueError where the images or the number format are not those the run was started with."""
    tags = store.stored_run(run_id).data.tags
    same = {"data.digest": setup.splits.digest, "precision": setup.precision}
    if setup.pretrained is not None:
        same["weights"] = setup.pretrained.identity
    for what, now in same.items():
        if (before := tags.get(what)) != now:
            raise ValueError(f"resume={run_id}: {what} is {now} here and was {before} when it was started")


def _suggested_lr(setup: Setup, params: TrainParams, run: Run) -> float:
    recipe = setup.recipe()
    same = store.finished_runs("lr_range", {"recipe": fingerprint(recipe)})
    for test in same:
        if SUGGESTION in test.data.metrics:
            return _taken(run, test.info.run_id, test.data.metrics[SUGGESTION])
    if same:
        raise _without_suggestion(same[0].data.tags.get("no_suggestion", ""))
    from pipeline.steps import lr_range  # here, as it draws too

    _say_what_differs(recipe)
    own = {name: getattr(params, name) for name in RecipeParams.model_fields}
    with progress.aside():
        result = lr_range.test(setup, LrRangeParams(**own), parent=run)
    if SUGGESTION in result.metrics:
        return _taken(run, result.run_id, result.metrics[SUGGESTION])
    raise _without_suggestion(result.summary.partition(lr_range.NO_SUGGESTION)[-1])


def _taken(run: Run, test_id: str, rate: float) -> float:
    run.tags({"lr_range.run_id": test_id})
    say(f"max_lr {rate:.2e}, from range test {test_id}")
    return float(rate)


def _without_suggestion(reason: str) -> ValueError:
    return ValueError(f"the range test of this recipe has no suggestion ({reason}): give max_lr")


def _say_what_differs(recipe: dict[str, object]) -> None:
    others = store.finished_runs("lr_range", {name: str(recipe[name]) for name in ("dataset", "model")})
    if not others:
        return
    with store.scratch() as folder:
        try:
            other = store.read_json(others[0].info.run_id, "recipe.json", folder)
        except ValueError as error:
            say(f"range test {others[0].info.run_id} is of another recipe, not used: {error}")
            return
    differences = [
        f"{name} {other.get(name)} there, {value} here" for name, value in recipe.items() if other.get(name) != value
    ]
    say(f"range test {others[0].info.run_id} is of another recipe, not used: {'; '.join(differences)}")


def _describe_input(run: Run, setup: Setup) -> None:
    params, splits = setup.params, setup.splits
    recipe = setup.recipe()
    run.json("recipe.json", recipe)
    run.tags({"dataset": params.dataset, "model": params.model, "recipe": fingerprint(recipe)})
    run.tags({"device": setup.device, "precision": setup.precision, "data.digest": splits.digest})
    if setup.pretrained is not None:
        run.tags({"weights": setup.pretrained.identity})
    run.tags({"machine": machine.describe(setup.device)})
    run.dataset(splits.name, splits.digest, params.data_dir, "training")
    rows = [
        pd.DataFrame({"split": split, "index": index, "name": getattr(splits, split).names})
        for split, index in splits.indices.items()
    ]
    run.table("splits.csv", pd.concat(rows))
    report = splits.report
    if report.left_out:
        run.table("left_out.csv", pd.DataFrame(report.left_out, columns=["file", "reason"]))
    named = {"named in left_out.csv": len(report.left_out)}
    if counts := in_words({**report.skipped, **report.unread, **named}):
        run.tags({"data.left_out": counts})
        say(f"files left out: {counts}")
    if splits.valid is None:
        say("no validation split: all of train is trained on, and the best weights are the last")


def _train(run: Run, name: str, setup: Setup, params: TrainStepParams, training: Fitting) -> Result:
    watch = _watch(run, setup, training) if params.watch_images else None
    with store.scratch() as folder:
        try:
            with closing(kept(training, run, params.checkpoint_minutes, watch)) as events:
                done = training.history.num_steps
                for _ in show(events, training.steps_per_epoch, params.epochs, done):
                    pass
        except BaseException:
            # Also after Ctrl-C or a diverged loss the epochs that are done are worth keeping; where the machine has
            # no room for that any more, what stopped the training is what a person needs to hear.
            with suppress(Exception):
                _keep(run, name, setup, training, folder)
            raise
        _keep(run, name, setup, training, folder)
        if watch is not None:
            watch.conclude(folder, sum(epoch.seconds for epoch in training.history.epochs))
        best = training.history.best
        assert best is not None
        example = setup.splits.train.take(np.arange(min(EXAMPLES, len(setup.splits.train))))
        uri = run.model(folder / "best.safetensors", example, best.epoch)
        if not params.keep_checkpoints:
            run.no_states_once_finished()
        return _conclude(run, name, best, uri)


def _watch(run: Run, setup: Setup, training: Fitting) -> "Watch":
    # What draws maps takes seconds to import, which other trainings need not wait for.
    from pipeline.tracking.watching import Watch

    return Watch(run, setup, training)


def _keep(run: Run, name: str, setup: Setup, training: Fitting, folder: Path) -> None:
    """Logs what the training has told, and the weights of its best and of its last epoch."""
    from pipeline.results import plots  # here, as the first update need not wait for matplotlib

    history = training.history
    run.table("steps.csv", history.steps())
    if history.best is None or training.best is None or training.last is None:
        return
    epochs = pd.DataFrame([{"epoch": epoch.epoch, **measured(epoch)} for epoch in history.epochs])
    run.figure("curves.png", plots.curves(epochs, history.steps(), name))
    for kind, weights, epoch in (
        ("best", training.best, history.best),
        ("last", training.last, history.epochs[-1]),
    ):
        file = f"{kind}.safetensors"
        checkpoint.save(folder / file, weights, _description(setup, epoch))
        run.file(folder / file, f"weights/{file}")


def _description(setup: Setup, event: EpochEnd) -> dict[str, object]:
    start = setup.pretrained
    return {
        "network": {"name": setup.params.model, "options": model_options(setup.params)},
        "image_size": setup.params.image_size,
        "resize": setup.params.resize,
        "interpolation": setup.interpolation,
        "margin": setup.params.margin,
        "classes": list(setup.splits.classes),
        "mean": list(setup.splits.mean),
        "std": list(setup.splits.std),
        "epoch": event.epoch,
        "started_from": None if start is None else start.source,
    }


def _conclude(run: Run, name: str, best: EpochEnd, uri: str) -> Result:
    numbers = {"weights/best_epoch": float(best.epoch)}  # a group that the UI shows below train and valid
    if best.valid_accuracy is None:
        result = f"train accuracy {best.train_accuracy:.2%} after epoch {best.epoch}, without validation"
    else:
        numbers["weights/best_valid_accuracy"] = best.valid_accuracy
        name = f"{name} valid {best.valid_accuracy:.2%}"
        result = f"validation accuracy {best.valid_accuracy:.2%} at epoch {best.epoch}"
    run.metrics(numbers)
    curves = run.view("Curves of all trainings", views.CURVES)
    run.describe(name, f"**Training** — {result}\n\n{curves}, train and valid in one. Served model: `{uri}`")
    conclude(f"training: {result} (run {run.id})")
    return Result(run.id, f"Training: {result}", numbers, handed={"run_id": run.id})
