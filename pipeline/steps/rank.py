"""A training that several ranks share: rank 0 tracks it, and the others follow."""

import signal
from dataclasses import replace
from typing import Any

from pipeline import progress
from pipeline.history import initial_weights
from pipeline.params import TrainStepParams
from pipeline.steps.step import Result
from pipeline.tracking import store
from pipeline.training import device, ranks
from pipeline.training.ranks import Ranks
from pipeline.training.recipe import Recipe
from pipeline.training.training import Training

# Words in the errors of a rank whose connection to another rank has ended.
CONNECTION_ENDED = ("closed by peer", "Connection reset", "Broken pipe")
FAILED = 1  # exit status


def joined(params: TrainStepParams) -> tuple[TrainStepParams, Ranks]:
    """The parameters with the device of this rank, and the ranks, connected. Without torchrun, nothing changes."""
    found = ranks.started()
    if found.size == 1 and params.shard_weights == "on":
        progress.say("shard_weights=on has no effect on one device")
    if found.size > 1:
        params = params.model_copy(update={"device": device.of_worker(params.device, ranks.local_number())})
        ranks.join(found)
    return params, found


def prepared(params: TrainStepParams, mine: Ranks) -> Recipe:
    """The recipe. Rank 0 loads the images first, so that the others find them in the cache.

    Raises ValueError if the ranks cannot share its batches, or if they have other code or images.
    """
    if mine.number:
        mine.agree(None)  # waits until rank 0 has loaded the images
    recipe = initial_weights.prepare(params)
    if params.resume:
        recipe = _in_its_format(recipe, params.resume)
    if mine.size > 1:
        ranks.check_shares(params.batch_size, len(recipe.splits.train), mine.size)
    if not mine.number:
        mine.agree(None)
    mine.check_equal("the recipe, with its images,", recipe.fingerprint())
    return recipe


def _in_its_format(recipe: Recipe, run_id: str) -> Recipe:
    """`recipe` in the number format in which the run was started, if nobody gave a format and the device can use it."""
    started = store.stored_run(run_id).data.tags.get("precision", "")
    is_usable = started in ("fp32", "bf16") or (started == "fp16" and recipe.device.type == "cuda")
    if recipe.params.precision != "auto" or started == recipe.precision or not is_usable:
        return recipe
    progress.say(f"number format {started}, as at the start of the run; {recipe.precision} would change its numbers")
    return replace(recipe, precision=started)


def led(training: Training, params: TrainStepParams, max_lr: float, mine: Ranks) -> Training:
    """`training` as rank 0 runs it. The other ranks begin with the same rate and state."""
    if mine.size > 1:
        mine.agree({"max_lr": max_lr, "state": training.state_dict() if training.log.num_steps else None})
    return divided(training, params, mine)


def divided(training: Training, params: TrainStepParams, mine: Ranks) -> Training:
    """`training` as this rank runs it."""
    training = ranks.divided(training, mine, params.sync_norms == "on")
    if mine.size == 1 or params.shard_weights == "off":
        return training
    from pipeline.training import sharding  # imported here, because torch's FSDP2 takes a second to import

    return sharding.sharded(training)


def follow(params: TrainStepParams, mine: Ranks) -> Result:
    """Trains with the other ranks, and tracks nothing. If another rank ends too early, this one ends without a word."""
    try:
        with progress.quiet():
            recipe = prepared(params, mine)
            plan: dict[str, Any] = mine.agree(None)
            training = recipe.one_cycle(plan["max_lr"])
            if plan["state"] is not None:
                training.load_state_dict(plan["state"])
            training = divided(training, params, mine)
            if training.ranks.shards:
                _ignore_signals()  # rank 0 saves the state on an interrupt, and needs the parts of this rank
            for _ in training.events():
                pass
    except (KeyboardInterrupt, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in CONNECTION_ENDED):
            raise
        _ignore_signals()  # this process ends anyway, and torchrun may send a signal to end it as well
        raise SystemExit(FAILED) from None
    ranks.leave()
    return Result("", "", {})


def _ignore_signals() -> None:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
