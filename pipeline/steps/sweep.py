"""An Optuna study as a tracked step: one run per study, a child run per trial, any number of workers."""

import math
import multiprocessing
import signal
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path

import optuna
import torch
from optuna.trial import FrozenTrial

from pipeline import progress, streams
from pipeline.history.initial_weights import prepare
from pipeline.models import weights
from pipeline.params import LadderParams, SweepParams, TrainParams
from pipeline.progress import Part, say
from pipeline.results import plots
from pipeline.results.plots.style import offscreen
from pipeline.resume import interrupts
from pipeline.settings import command
from pipeline.steps import lr_range
from pipeline.steps.step import Result, Step, tracked
from pipeline.sweep import figures, study, workers
from pipeline.sweep.space import Space, parse
from pipeline.sweep.trials import Worker
from pipeline.text import without_passwords
from pipeline.tracking import lifecycle, store, views
from pipeline.tracking.run import Run
from pipeline.training import device
from pipeline.training.events import Failure
from pipeline.training.recipe import Recipe

FAILED, INTERRUPTED = 1, 130  # exit statuses of a worker


def run(params: SweepParams, parent: Run | None = None, ladder: LadderParams | None = None) -> Result:
    """Runs the study that `params` declare until it has its number of trials.

    ladder: for the range tests of lr_range_first; the default one if None.
    """
    if params.study_name == "auto":
        name = Path(params.experiment).stem if params.experiment != "none" else f"{params.dataset}_{params.model}"
        params = params.model_copy(update={"study_name": name})
    with study.answering(params.storage, Failure):
        return _run(params, parent, ladder or LadderParams())


def _run(params: SweepParams, parent: Run | None, ladder: LadderParams) -> Result:
    space = parse(params.space, params.to(TrainParams))
    recipe = _recipe(space)
    opened = study.open_or_create(params, space, recipe.splits.digest, recipe.precision)
    own = {**params.model_dump(), "storage": without_passwords(study.storage_url(params.storage))}
    tags = {"dataset": params.dataset, "model": params.model, "optuna.study": params.study_name}
    with ExitStack() as stack:
        with study.parent_run(params) as known:  # machines that start together get the same run
            reopen = known.id if store.find(known.id) else ""
            step = stack.enter_context(tracked("sweep", params.study_name, own, tags, parent, reopen))
            known.id = step.run.id
        run = step.run
        _describe(run, params, recipe)
        if not space.varies("model", "weights"):
            run.tags(weights.tags(recipe.pretrained))
        try:
            with progress.alone(Part("sweep", "sweep")):
                if params.lr_range_first:
                    _narrow(opened, space, recipe, ladder, run)
                _run_workers(params, space, recipe, run)
        finally:
            _report(run, opened, params)
        return _conclude(step, opened, params)


def _recipe(space: Space) -> Recipe:
    # Loaded with the largest batch, so that too few images raise an error before the first trial.
    fixed = space.base.batch_size
    largest = max(values.get("batch_size", fixed) for values in space.combinations(*space.varies("batch_size")))
    recipe = prepare(space.base.model_copy(update={"batch_size": largest}))
    if recipe.splits.valid is None:
        raise ValueError("valid_fraction=0: trials are compared on the validation split")
    return replace(recipe, params=space.base)


def _describe(run: Run, params: SweepParams, recipe: Recipe) -> None:
    run.tags({"device": recipe.device, "data.digest": recipe.splits.digest, "machine": device.describe(recipe.device)})
    run.dataset(recipe.splits.name, recipe.splits.digest, params.data_dir, "training")


def _narrow(opened: optuna.Study, space: Space, recipe: Recipe, ladder: LadderParams, run: Run) -> None:
    """Once per study, runs a range test per patch size. Their rates are tried first; other trials stay near them."""
    if study.is_narrowed(opened):
        return
    suggested = []
    for values in space.combinations(*space.varies("patch_size")):
        base = space.params(values)
        with progress.aside():
            result = lr_range.test(replace(recipe, params=base), ladder, parent=run)
        if rate := result.metrics.get("lr_range/suggestion"):
            suggested.append(rate)
            if space.allows("max_lr", rate):
                opened.enqueue_trial({**values, "max_lr": rate}, skip_if_exists=True)
            else:
                say(f"the suggested {rate:.2e} is not tried: it is not in the space")
    low, high = study.narrow(opened, space, suggested)
    say(f"max_lr of the other trials: {low:.2e} to {high:.2e}")


def _run_workers(params: SweepParams, space: Space, recipe: Recipe, run: Run) -> None:
    """Runs trials in this process and, if there are more workers, in other processes."""
    threads = torch.get_num_threads()
    threads_each = max(1, threads // params.sweep_workers)
    context = _context() if params.sweep_workers > 1 else multiprocessing.get_context("spawn")
    first, *rest = _spaces(space, params.sweep_workers)
    is_quiet = progress.is_quiet()
    others = [
        context.Process(target=_work, args=(params, each, store.uri(), run.id, number, threads_each, is_quiet))
        for number, each in enumerate(rest, 1)
    ]
    try:
        for worker in others:
            worker.start()
        torch.set_num_threads(threads_each)
        Worker(params, first, recipe, run).run()
        for worker in others:
            worker.join()
    finally:
        torch.set_num_threads(threads)
        for worker in others:
            if worker.pid is not None:
                worker.terminate()  # like Ctrl-C: the worker closes its trial and its run
                worker.join()


def _spaces(space: Space, num_workers: int) -> list[Space]:
    """The space of each worker. On a machine with several GPUs, the workers take them in turn."""
    devices = [device.of_worker(space.base.device, number) for number in range(num_workers)]
    return [replace(space, base=space.base.model_copy(update={"device": each})) for each in devices]


def _context() -> SpawnContext | ForkServerContext:
    """The context that starts workers: a server that imports everything once and forks, if the system supports it.

    For several workers, this is minutes faster than a separate start of each.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipeline.sweep.fork_server", "pipeline.steps.sweep"])
    resource_tracker.ensure_running()  # starts first, because its start unblocks Ctrl-C
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # also blocked in the server, until it can handle it
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    return context


@streams.guarded()
def _work(
    params: SweepParams, space: Space, store_uri: str, run_id: str, number: int, threads: int, is_quiet: bool
) -> None:
    """Runs trials as worker `number`, in a process of its own."""
    try:
        interrupts.raise_once()
        store.use(store_uri)
        torch.set_num_threads(threads)
        with progress.quiet(is_quiet), study.answering(params.storage, Failure), lifecycle.attached(run_id) as run:
            Worker(params, space, _recipe(space), run, number).run()
    except Failure as error:
        say(f"worker {number} of the sweep: {error}")
        raise SystemExit(FAILED) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def _report(run: Run, opened: optuna.Study, params: SweepParams) -> None:
    """Logs the trials so far, as tables and figures."""
    run.table("study.csv", figures.trials(opened))
    if not study.completed(opened):
        return
    for name, table in figures.tables(opened).items():
        run.table(name, table)
    if not (rates := figures.rate_table(opened)).empty:
        run.figure("patch_size_max_lr.png", plots.patch_size_by_rate(rates, params.objectives[0]))
    with offscreen():
        for name, figure in figures.figures(opened, params.objectives):
            run.figure(name, figure)


def _why_none(trials: list[FrozenTrial], params: SweepParams) -> str:
    """Why no trial is complete: the first error, or what the pruned trials have in common."""
    errors = [trial.user_attrs["error"] for trial in trials if "error" in trial.user_attrs]
    if errors:
        return f"first error: {errors[0]}"
    reports = [value for trial in trials for value in trial.intermediate_values.values()]
    if not all(map(math.isfinite, reports)):
        return f"{params.objectives[0]} was not a finite number: lower max_lr"
    return "pruner=none in a new study lets every trial end"


def _conclude(step: Step, opened: optuna.Study, params: SweepParams) -> Result:
    run, trials = step.run, opened.get_trials(deepcopy=False)
    states = Counter(trial.state.name.lower() for trial in trials if workers.is_finished(trial))
    counts = ", ".join(f"{number} {state}" for state, number in states.most_common()).replace("fail", "failed")
    done = study.completed(opened)
    if not done:
        raise Failure(f"study {params.study_name} has no complete trial ({counts}; {_why_none(trials, params)})")
    best, objective = done[0], params.objectives[0]
    values = ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in best.params.items()
    )
    result = f"{counts}; best {objective} {best.values[0]:.4f} by trial {best.number}: {values}"
    numbers = {f"sweep/best_{objective.replace('/', '_')}": best.values[0]}
    run.metrics(numbers)
    run.tags({f"best.{name}": value for name, value in best.params.items()})
    tried = list(dict.fromkeys(name for trial in done for name in trial.params))
    run.keep_view(views.of_study(run.id, tried, objective))
    winner = run.link(f"Trial {best.number}", str(best.user_attrs.get("mlflow.run_id", run.id)))
    more = (
        f"\n\n{winner} was the best; {run.view('compare all trials', run.id)}. "
        f"Train with it: `{command('train', from_study=params.study_name)}`"
    )
    name = f"{params.study_name} {objective} {best.values[0]:.4f}"
    return step.conclude(result, numbers, name=name, more=more, handed=best.params)
