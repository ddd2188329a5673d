"""Runs steps in order under one parent run and stores each result: an experiment, or several seeds of a training."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from pipeline import progress
from pipeline.history import lookup
from pipeline.params import STEPS, LadderParams, LearningCurveParams, MainParams, Params, TrainParams, TrainStepParams
from pipeline.progress import Part, say
from pipeline.progress.table import table
from pipeline.resume import candidates
from pipeline.settings import message
from pipeline.steps.step import Result
from pipeline.tracking import owners, store
from pipeline.tracking.run import Run

CLIMBING = {"train", "sweep"}  # steps that run a range test first if they need one
RESULTS = "finished_steps.json"
NEVER_HANDED = {"data_dir", "labels", "storage", "register_as"}  # only the user says where to read and write
ALSO = {"train": ("suggested",), "evaluate": ("beside",)}  # values that a step gets besides its parameters
VALIDATED = "weights/best_valid_"  # start of the metrics of a training or a probe
RESULT_LIST = TypeAdapter(list[Result])

Steps = Mapping[str, Callable[..., Result]]  # the function of each step, by name


class Planned(NamedTuple):
    """A step, and the seed and the fold that it runs with."""

    step: str
    seed: int
    fold: int = 0  # 0: the images are not divided into folds
    changes: Mapping[str, int] = MappingProxyType({})  # other parameters, of a training on some of the images

    @property
    def turn(self) -> str:
        """The fold or the seed of the step, such as `seed 1`; with some of the images, also their number."""
        if self.changes:
            return f"{self.changes['limit_train']:,} images, seed {self.seed}"
        return f"fold {self.fold}" if self.fold else f"seed {self.seed}"


def repeated(params: MainParams | TrainStepParams, steps: Sequence[str]) -> list[Planned]:
    """The plan of `steps`: steps before the training run once; the training and later steps run once per seed.

    With folds, all steps run once per fold, since none of them may see the fold's images before its evaluation.
    """
    if params.folds and not params.fold and isinstance(params, MainParams):
        return [Planned(step, params.seed, fold) for fold in range(1, params.folds + 1) for step in steps]
    first = steps.index("train") if "train" in steps else len(steps)
    once = [Planned(step, params.seed, params.fold) for step in steps[:first]]
    seeds = range(params.seed, params.seed + params.num_seeds)
    return once + [Planned(step, seed, params.fold) for seed in seeds for step in steps[first:]]


def finished(run_id: str) -> list[Result]:
    """The results of the finished steps under a run, in order. Raises ValueError if the stored list is invalid."""
    if not run_id or RESULTS not in store.artifacts(run_id):
        return []
    with store.scratch() as folder:
        try:
            done = RESULT_LIST.validate_json(store.artifact(run_id, RESULTS, folder).read_bytes())
        except ValidationError:
            raise ValueError(f"resume={run_id}: its {RESULTS} is of another version of this project") from None
    if places := sorted({name for result in done for name in result.handed} & NEVER_HANDED):
        raise ValueError(f"resume={run_id}: its {RESULTS} hands on {', '.join(places)}, which no step does")
    return done


def follow(
    run: Run,
    plan: Sequence[Planned],
    params: MainParams | TrainStepParams | LearningCurveParams,
    how: Steps,
    done: Sequence[Result],
) -> list[Result]:
    """Runs the steps of `plan` after those `done`, below `run`, each with the results before it. Returns all results.

    `run` also logs the numbers of each step that is planned once.
    """
    times = Counter(each.step for each in plan)
    titles = _titles(plan)
    results: list[Result] = []
    handed: dict[str, Any] = {}
    with progress.steps(_parts(plan, titles, params.epochs)) as bar:
        for position, each in enumerate(plan):
            step = each.step
            if each.changes:
                handed = _rate(plan[:position], results, each)
            elif position and each.fold != plan[position - 1].fold:
                handed = {}  # an earlier fold has learned from the images of this one
            run.progress(position, len(plan))
            if position < len(done):
                result = done[position]
                say(f"== {titles[position]}: not run again, run {result.run_id} has finished it")
                bar.ended(position, result.seconds)
            else:
                say(f"== {titles[position]}")
                interrupted = _interrupted(params.resume, step) if params.resume and position == len(done) else ""
                with bar.step(position):
                    result = _run(each, how[step], params, run, handed, interrupted)
                if times[step] == 1:
                    run.tags({f"{step}.run_id": result.run_id})
                    run.metrics(result.metrics)
                run.json(RESULTS, [asdict(each) for each in (*results, result)])
            results.append(result)
            handed |= result.handed
            if step == "train" and (better := _better_of_probe_and_training(plan, results, params.select_by)):
                handed |= better
                run.tags({lookup.BETTER_TAG: better["run_id"]})
    return results


def table_of(plan: Sequence[Planned], results: Sequence[Result]) -> str:
    """The result of each step, as a table for standard error: step, seconds, result and run."""
    stream = progress.screen()
    rows = []
    for title, result in zip(_titles(plan), results, strict=True):
        seconds = "" if result.seconds is None else f"{result.seconds:.1f}"
        what = result.summary.partition(": ")[2]
        # A line of a terminal has no room for the id beside the result.
        rest = [f"{what}\nrun {result.run_id}"] if stream.isatty() else [result.run_id, what]
        rows.append([title, seconds, *rest])
    head = ["step", "seconds", *([] if stream.isatty() else ["run"]), "result"]
    return table(head, rows, stream, wraps="result", right="seconds")


def _run(
    planned: Planned,
    step: Callable[..., Result],
    params: MainParams | TrainStepParams | LearningCurveParams,
    parent: Run,
    handed: Mapping[str, Any],
    interrupted: str,
) -> Result:
    """The result of a step, which continues the run `interrupted` if there is one."""
    place = {"seed": planned.seed, "fold": planned.fold, "num_seeds": 1}
    own = _params_of(planned.step, params, {**handed, **place, "resume": interrupted, **planned.changes})
    also = {name: handed[name] for name in ALSO.get(planned.step, ()) if name in handed}
    if planned.step in CLIMBING:
        also["ladder"] = params.to(LadderParams)
    started = time.monotonic()
    result = step(own, parent=parent, **also)
    # The time before an interruption is not known.
    return result if interrupted else replace(result, seconds=time.monotonic() - started)


def _rate(before: Sequence[Planned], results: Sequence[Result], planned: Planned) -> dict[str, Any]:
    """The peak rate of the training `before` as `max_lr`, if it had as many images as `planned`; else empty."""
    size = planned.changes["limit_train"]
    if planned.step != "train" or not before or before[-1].changes["limit_train"] != size:
        return {}
    return {"max_lr": lookup.params(results[-1].run_id, TrainParams).max_lr}


def _parts(plan: Sequence[Planned], titles: Sequence[str], epochs: int) -> list[Part]:
    """The parts of the bar. The length of a training is its number of epochs."""
    lengths = [each.changes.get("epochs", epochs if each.step == "train" else 0) for each in plan]
    return [Part(title, each.step, length) for title, each, length in zip(titles, plan, lengths, strict=True)]


def _titles(plan: Sequence[Planned]) -> list[str]:
    is_series = len({each.turn for each in plan}) > 1
    return [f"{each.step}, {each.turn}" if is_series else each.step for each in plan]


def _better_of_probe_and_training(plan: Sequence[Planned], results: Sequence[Result], select_by: str) -> dict[str, str]:
    """The better one on validation as `run_id`, the other one as `beside`; empty without a probe.

    The training is the last of `results`; the probe is an earlier one of the same fold.
    """
    trained = results[-1]
    for each, probe in zip(plan, results, strict=False):
        if each.step != "probe" or each.fold != plan[len(results) - 1].fold:
            continue
        reached, known = (result.metrics.get(f"{VALIDATED}{select_by}") for result in (trained, probe))
        if reached is None or known is None or (reached < known if select_by == "loss" else reached > known):
            return {"run_id": trained.run_id, "beside": probe.run_id}
        numbers = f"probe {known:.4f}, trained network {reached:.4f}"
        say(f"validation {select_by}: {numbers}; the probe is kept, because it is no worse")
        return {"run_id": probe.run_id, "beside": trained.run_id}
    return {}


def _interrupted(run_id: str, step: str) -> str:
    """The run of `step` below an experiment's run that can continue; empty if there is none."""
    if step != "train":
        return ""  # the other steps are short, or store their own progress, as studies do
    is_own = owners.is_own(store.stored_run(run_id))
    for child in store.children(run_id, step):
        if is_own and not owners.is_own(child):  # another user put it there
            continue
        with suppress(ValueError):
            return candidates.find(step, child.info.run_id)[0]
    return ""


def _params_of(step: str, params: Params, handed: Mapping[str, Any]) -> Params:
    """The parameters of `step`, from those of the experiment and from what earlier steps hand on."""
    kind = STEPS[step]
    try:
        return params.to(kind, **{name: value for name, value in handed.items() if name in kind.model_fields})
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, each['loc']))} {message(each)}".strip() for each in error.errors())
        raise ValueError(f"{step} cannot take what it was handed ({'; '.join(problems)})") from None
