"""OneCycle training as a tracked step: curves, best and last weights, and the model to serve."""

from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipeline import progress
from pipeline.history import lookup
from pipeline.params import LadderParams, TrainParams, TrainStepParams
from pipeline.progress import Part, say, show
from pipeline.resume import training_state
from pipeline.steps import outputs, rank
from pipeline.steps.step import Result, Step, SuggestedRate, tracked
from pipeline.tracking import store, views
from pipeline.tracking.run import Run, measured
from pipeline.training import ranks
from pipeline.training.calibration import Calibration
from pipeline.training.events import EpochEnd
from pipeline.training.recipe import Recipe
from pipeline.training.training import Training
from pipeline.training.validation import FEW

if TYPE_CHECKING:
    from pipeline.tracking.watch import Watch

NOT_OF_ONE_TRAINING = {"resume", "num_seeds", "devices", "shard_weights"}
SUGGESTION = "lr_range/suggestion"  # metric of a range test


def run(
    params: TrainStepParams,
    parent: Run | None = None,
    suggested: Mapping[str, Any] | None = None,
    ladder: LadderParams | None = None,
) -> Result:
    """Runs the training that `params` declare, once for each seed, or continues the run that `resume` names.

    suggested: the `SuggestedRate` of a range test that ran just before, as a mapping. ladder: for the range test of
    max_lr=auto; the default one if None.
    """
    if params.num_seeds == 1:
        return _run_one(params, parent, suggested, ladder)
    from pipeline.steps import seeds  # imported here, because its statistics take a while to import

    return seeds.run(params, _run_one)


def _run_one(
    params: TrainStepParams,
    parent: Run | None = None,
    suggested: Mapping[str, Any] | None = None,
    ladder: LadderParams | None = None,
) -> Result:
    params, mine = rank.joined(params)
    if mine.number:
        return rank.follow(params, mine)
    recipe = rank.prepared(params, mine)
    if params.resume:
        _check_same(recipe, params.resume)
    title = f"{params.set_name} {params.model}"
    everything = progress.alone(Part("train", "train", params.epochs))
    with everything, tracked("train", title, None, {}, parent, reopen=params.resume) as step:
        if params.resume:
            max_lr = float(lookup.params(params.resume, TrainParams).max_lr)
        else:
            max_lr = _max_lr(recipe, params, step.run, suggested, ladder or LadderParams())
            step.run.params({**params.model_dump(exclude=NOT_OF_ONE_TRAINING), "max_lr": max_lr})
            outputs.describe_input(step.run, recipe)
        training = recipe.one_cycle(max_lr)
        if params.resume:
            training_state.restore(training, params.resume)
            say(f"run {step.run.id} continues after update {training.log.num_steps}")
        training = rank.led(training, params, max_lr, mine)
        result = _train(step, f"{title} lr {max_lr:.3g}", recipe, params, training)
        ranks.leave()
        return result


def _check_same(recipe: Recipe, run_id: str) -> None:
    """Raises ValueError if the images, the number format or the starting weights have changed since the run started."""
    tags = store.stored_run(run_id).data.tags
    same = {"data.digest": recipe.splits.digest, "precision": recipe.precision}
    if recipe.pretrained is not None:
        same["weights"] = recipe.pretrained.identity
    for what, now in same.items():
        if (before := tags.get(what)) != now:
            raise ValueError(f"resume={run_id}: {what} is {now} here and was {before} when it was started")


def _max_lr(
    recipe: Recipe, params: TrainParams, run: Run, suggested: Mapping[str, Any] | None, ladder: LadderParams
) -> float:
    """The peak rate: the given one or, for `auto`, the suggestion of a range test of the same recipe on `ladder`."""
    if params.max_lr != "auto":
        return params.max_lr
    found = SuggestedRate(**suggested) if suggested else None
    if found is None or found.fingerprint != recipe.fingerprint(ladder):
        found = _stored_suggestion(recipe.fingerprint(ladder)) or _new_suggestion(recipe, ladder, run)
    if found.rate is None:
        raise ValueError(f"the range test of this recipe has no suggestion ({found.reason}): give max_lr")
    run.tags({"lr_range.run_id": found.run_id})
    say(f"max_lr {found.rate:.2e}, from range test {found.run_id}{f' ({found.doubt})' if found.doubt else ''}")
    if params.unfreeze_epoch:
        then = f"from epoch {params.unfreeze_epoch} on, the other layers learn at it too (lr_decay {params.lr_decay:g})"
        say(f"measured with freeze={params.freeze}; {then}; if validation falls then, give a lower max_lr")
    return found.rate


def _stored_suggestion(fingerprint: str) -> SuggestedRate | None:
    """The suggestion of a range test with `fingerprint`: the newest with a rate, else the newest, else None."""
    found = [
        SuggestedRate(
            fingerprint,
            test.info.run_id,
            test.data.metrics.get(SUGGESTION),
            test.data.tags.get("no_suggestion", ""),
            test.data.tags.get("doubt", ""),
        )
        for test in store.finished_runs("lr_range", {"range_test": fingerprint})
    ]
    return next((each for each in found if each.rate is not None), found[0] if found else None)


def _new_suggestion(recipe: Recipe, ladder: LadderParams, run: Run) -> SuggestedRate:
    from pipeline.steps import lr_range  # imported here, because it also draws

    _say_what_differs(recipe.identity(ladder))
    with progress.aside():
        result = lr_range.test(recipe, ladder, parent=run)
    return SuggestedRate(**result.handed["suggested"])


def _say_what_differs(wanted: Mapping[str, object]) -> None:
    """Prints why the newest range test of the same images and network is not used, if there is one."""
    others = store.finished_runs("lr_range", {name: str(wanted[name]) for name in ("dataset", "model")})
    if not others:
        return
    with store.scratch() as folder:
        try:
            other = store.read_json(others[0].info.run_id, "recipe.json", folder)
        except ValueError as error:
            differences = str(error)
        else:
            differences = "; ".join(
                f"{name} {other.get(name)} there, {value} here"
                for name, value in wanted.items()
                if other.get(name) != value
            )
    say(f"range test {others[0].info.run_id} is not used, as it is of another recipe, rule or ladder: {differences}")


def _train(step: Step, name: str, recipe: Recipe, params: TrainStepParams, training: Training) -> Result:
    run = step.run
    # A training that was killed at its very end has logged the numbers of its end already.
    logged = store.stored_run(run.id).data.metrics if params.resume else {}
    watch = _watch(run, recipe, training) if params.watch_images else None
    with store.scratch() as folder:
        try:
            with closing(training_state.checkpointed(training, run, params.checkpoint_minutes, watch)) as events:
                done = training.log.num_steps
                for _ in show(events, training.steps_per_epoch, params.epochs, done):
                    pass
            calibrations = _calibrate(recipe, training, params)
        except BaseException:
            # The epochs so far are also useful after Ctrl-C or a diverged loss. If there is no room for them, the user
            # needs to see what stopped the training, not that error.
            with suppress(Exception):
                _log_results(run, name, recipe, training, folder, {})
            raise
        _log_results(run, name, recipe, training, folder, calibrations)
        if "best" in calibrations:
            outputs.log_calibration(run, calibrations["best"], logged)
        if watch is not None:
            watch.conclude(folder, sum(epoch.seconds for epoch in training.log.epochs))
        best = training.log.best
        assert best is not None
        uri = outputs.log_model(run, recipe.splits, best.epoch, folder)
        if not params.keep_checkpoints:
            run.no_states_once_finished()
        return _conclude(step, name, best, params.select_by, len(recipe.splits.valid or ()), uri, logged)


def _watch(run: Run, recipe: Recipe, training: Training) -> "Watch":
    # The code that draws maps takes seconds to import, so other trainings do not import it.
    from pipeline.tracking.watch import Watch

    return Watch(run, recipe, training)


def _calibrate(recipe: Recipe, training: Training, params: TrainParams) -> dict[str, Calibration]:
    """The calibrations of the best and the last weights; empty without validation images."""
    found: dict[str, Calibration] = {}
    # The other ranks, which hold parts of a sharded network, have ended.
    network = recipe.model(params.seed) if training.ranks.shards else training.evaluated
    for kind in ("best", "last"):
        if kind == "last" and training.weights["last"] is training.weights["best"]:
            known = found.get("best")
        else:
            network.load_state_dict(training.weights[kind])
            known = outputs.calibrate(recipe.splits, network, recipe.precision, params)
        found |= {} if known is None else {kind: known}
    return found


def _log_results(
    run: Run, name: str, recipe: Recipe, training: Training, folder: Path, calibrations: Mapping[str, Calibration]
) -> None:
    """Logs the curves, and the weights of the best and of the last epoch."""
    from pipeline.results import plots  # imported here, so that the first update does not wait for matplotlib

    log = training.log
    run.table("steps.csv", log.steps())
    if log.best is None or not training.weights:
        return
    epochs = pd.DataFrame([{"epoch": epoch.epoch, **measured(epoch)} for epoch in log.epochs])
    run.figure("curves.png", plots.curves(epochs, log.steps(), name, log.best.epoch))
    for kind, epoch in (("best", log.best), ("last", log.epochs[-1])):
        outputs.log_weights(run, recipe, kind, training.weights[kind], epoch.epoch, folder, calibrations.get(kind))


def _conclude(
    step: Step, name: str, best: EpochEnd, select_by: str, num_valid: int, uri: str, logged: Mapping[str, float]
) -> Result:
    from pipeline.results import metrics  # imported here, so that the first update does not wait for it

    numbers = {"weights/best_epoch": float(best.epoch)}  # the UI shows this group below train and valid
    if best.valid_accuracy is None:
        result = f"train accuracy {best.train_accuracy:.2%} after epoch {best.epoch}, without validation"
    else:
        of_valid = {each.removeprefix("valid/"): value for each, value in measured(best).items() if "valid/" in each}
        numbers |= {f"weights/best_valid_{each}": value for each, value in of_valid.items()}
        name = f"{name} valid {best.valid_accuracy:.2%}"
        reached = metrics.accuracy_in_words(best.valid_accuracy, num_valid)
        is_by_accuracy = select_by == "accuracy" or num_valid < FEW
        by = "" if is_by_accuracy else f", the best by {select_by} ({of_valid[select_by]:.4f})"
        result = f"validation accuracy {reached} at epoch {best.epoch}{by}"
    step.run.metrics(outputs.missing(numbers, logged))
    curves = step.run.view("Curves of all trainings", views.CURVES)
    more = f"\n\n{curves}, train and valid in one. Served model: `{uri}`"
    return step.conclude(result, numbers, name=name, more=more, handed={"run_id": step.run.id})
