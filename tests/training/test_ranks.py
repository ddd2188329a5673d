"""A training that ranks share is the training of one device, up to the order of sums. Here, ranks are CPU processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch

from pipeline.data.augmentation import Augmentation
from pipeline.data.batches import TrainBatches
from pipeline.params import TrainStepParams
from pipeline.steps import rank
from pipeline.training import ranks
from tests.conftest import PROJECT, Workplace
from tests.small import squares

# Each rank trains a recipe on noise, and rank 0 prints its losses and what validation says. Sharded weights start from
# the state of one device after update 2. One device continues from their state after update 4.
TRAIN = """
import copy, json, sys
from dataclasses import replace
from itertools import islice
import torch
from benchmarks.synthetic import splits
from pipeline.params import TrainStepParams
from pipeline.steps import rank
from pipeline.training import ranks
from pipeline.training.events import EpochEnd, StepEnd
from pipeline.training.recipe import Recipe
torch.set_num_threads(1)
mine = ranks.started()
if mine.size > 1:
    ranks.join(mine)
def results(given):
    images = splits(28, 4, size=8)
    images = replace(images, valid=images.train)
    params, state = TrainStepParams(**given), None
    shards = params.shard_weights == "on" and mine.size > 1
    recipe = Recipe(params, images, torch.device("cpu"), "fp32")
    training, before, events = recipe.one_cycle(0.02), recipe.one_cycle(0.02), []
    if shards:
        events += islice(before.events(), 2)
        training.load_state_dict(copy.deepcopy(before.state_dict()))
    training = rank.divided(training, params, mine)
    for event in training.events():
        events.append(event)
        if len(events) == 5 and not mine.number:
            state = copy.deepcopy(training.state_dict())
    losses = [float(event.loss) for event in events if isinstance(event, StepEnd)]
    again = recipe.one_cycle(0.02)
    if state:
        again.load_state_dict(state)
    continued = [float(event.loss) for event in again.events() if isinstance(event, StepEnd)] if shards else []
    ends = [[e.train_accuracy, e.valid_loss, e.valid_accuracy] for e in events if isinstance(e, EpochEnd)]
    seen = mine.sum(torch.tensor(float(sum(len(labels) for _, labels in mine.share(training.valid))))).item()
    return {"losses": losses, "ends": ends, "seen": seen, "continued": continued}
found = [results(given) for given in json.loads(sys.argv[1])]
if not mine.number:
    print(json.dumps(found))
ranks.leave()
"""
COMMON = {"model": "resnet9", "width": 4, "image_size": 8, "batch_size": 8, "epochs": 2, "crop_padding": 2}
RECIPES = [
    {**COMMON, "optimizer": "sgd", "cutout": 2, "class_weights": "balanced", "label_smoothing": 0.1},
    {**COMMON, "optimizer": "sgd", "ema_decay": 0.5, "crop_area": 0.5, "checkpoint_activations": "on"},
    {**COMMON, "sync_norms": "off"},
    {**COMMON, "optimizer": "sgd", "shard_weights": "on", "ema_decay": 0.5, "clip_grad_norm": 0.5, "batch_size": 12},
    {**COMMON, "optimizer": "adamw", "shard_weights": "on", "checkpoint_activations": "on", "batch_size": 12},
]
SHARDED = slice(3, None)


def trained(size):
    """The results of RECIPES with `size` ranks."""
    start = [] if size == 1 else ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
    program = ["-c", TRAIN] if size == 1 else ["--no-python", sys.executable, "-c", TRAIN]
    done = subprocess.run(
        [sys.executable, *start, *program, json.dumps(RECIPES)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_two_ranks_train_what_one_device_trains_up_to_the_order_of_sums():
    alone, shared = trained(1), trained(2)
    for one, two in zip(alone[:2], shared[:2], strict=True):
        assert two["losses"] == pytest.approx(one["losses"], rel=1e-5)
        assert two["seen"] == one["seen"] == 28  # validation counts each image once
        for ours, theirs in zip(two["ends"], one["ends"], strict=True):
            assert ours == pytest.approx(theirs, rel=1e-5)
    assert shared[2]["losses"] != pytest.approx(alone[2]["losses"], rel=1e-3)  # norms of a rank's own share
    for one, two in zip(alone[SHARDED], shared[SHARDED], strict=True):
        assert two["losses"] == pytest.approx(one["losses"], rel=1e-3)  # AdamW divides by small numbers
        assert two["losses"][:3] == pytest.approx(one["losses"][:3], rel=1e-5)
        assert two["continued"] == pytest.approx(two["losses"][4:], rel=1e-3)
        assert two["seen"] == one["seen"] == 28  # 3 batches, so one rank has more than the other
        for ours, theirs in zip(two["ends"], one["ends"], strict=True):
            assert ours == pytest.approx(theirs, rel=1e-3)


@pytest.mark.parametrize("given", [{"optimizer": "muon"}, {"watch_images": 2}, {"compile": "on"}])
def test_parameters_that_sharded_weights_do_not_support_are_refused(given):
    with pytest.raises(ValueError, match=f"shard_weights=on: .*{next(iter(given))}"):
        TrainStepParams(shard_weights="on", **given)


def test_on_one_device_a_line_says_that_shard_weights_has_no_effect(capsys):
    assert rank.joined(TrainStepParams(shard_weights="on"))[1].size == 1
    assert "shard_weights=on has no effect on one device" in capsys.readouterr().err


@pytest.fixture
def workplace(tmp_path):
    return Workplace(tmp_path)  # of each test alone, since each expects one run


@pytest.mark.slow
def test_a_command_trains_on_two_devices_in_one_run(workplace):
    words = {"experiment": "none", "model": "resnet9", "width": 4, "batch_size": 64, "limit_train": 256, "epochs": 1}
    words |= {"device": "cpu", "precision": "fp32", "max_lr": 0.02, "devices": 2}
    _, err = workplace.start("train", **words).communicate(timeout=600)
    [run] = workplace.runs("train")
    assert run.info.status == "FINISHED" and run.data.metrics["valid/accuracy"] >= 0, err
    assert err.count("training: validation accuracy") == 1


LONG = {"experiment": "none", "model": "resnet9", "width": 4, "image_size": 8, "crop_padding": 1, "batch_size": 64}
LONG |= {"epochs": 80, "device": "cpu", "precision": "fp32", "max_lr": 0.02}


def kill_rank_1(command, workplace):
    """Kills rank 1 of a training after its first epoch. Returns the time."""
    while not any("valid/accuracy" in run.data.metrics for run in workplace.runs("train")):
        assert command.poll() is None, command.communicate()
        time.sleep(0.5)
    ranks_of = {each.environ().get("RANK"): each for each in psutil.Process(command.pid).children(recursive=True)}
    ranks_of["1"].kill()
    return time.monotonic()


def assert_each_epoch_once(run, workplace):
    assert run.info.status == "FINISHED"
    points = workplace.client.get_metric_history(run.info.run_id, "valid/accuracy")
    assert len(points) == len({point.step for point in points}) == LONG["epochs"]


@pytest.mark.slow
def test_a_killed_rank_ends_the_run_and_one_device_continues_it(workplace):
    command = workplace.start("train", **LONG, devices=2)
    killed_at = kill_rank_1(command, workplace)
    _, err = command.communicate(timeout=60)
    assert command.returncode == 1 and time.monotonic() - killed_at < 30
    assert "error: SIGKILL ended rank 1 of the training; resume=auto continues it" in err
    [run] = workplace.runs("train")
    assert run.info.status in ("FAILED", "KILLED")  # rank 0 loses its peer, or torchrun ends it
    assert workplace.run("train", **LONG, devices=1, resume="auto") == 0
    [run] = workplace.runs("train")
    assert_each_epoch_once(run, workplace)


@pytest.mark.slow
def test_torchrun_s_restart_continues_from_the_newest_state(workplace):
    flags = [word for name, value in LONG.items() for word in (f"--{name}", str(value))]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    command = subprocess.Popen(
        [sys.executable, *torchrun, "-m", "pipeline", "train", *flags],
        cwd=workplace.folder,
        env={**workplace.environment, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    kill_rank_1(command, workplace)
    _, err = command.communicate(timeout=600)
    assert command.returncode == 0, err
    [run] = workplace.runs("train")
    assert f"run {run.info.run_id} continues after update" in err
    assert_each_epoch_once(run, workplace)


@pytest.mark.slow
def test_sharded_weights_of_an_interrupted_training_are_saved_and_one_device_continues(workplace):
    words = {**LONG, "limit_train": 640, "ema_decay": 0.9}  # 576 images to train on: 9 updates in an epoch
    command = workplace.start("train", **words, devices=2, shard_weights="on")
    while num_epochs(workplace) < 3:
        assert command.poll() is None, command.communicate()
        time.sleep(0.5)
    command.send_signal(signal.SIGINT)
    _, err = command.communicate(timeout=120)
    before = num_epochs(workplace)
    resumed = workplace.start("train", **words, resume="auto")
    _, err = resumed.communicate(timeout=600)
    assert resumed.returncode == 0, err
    [run] = workplace.runs("train")
    assert before <= int(re.search(r"after update (\d+)", err)[1]) / 9 <= before + 1  # the state of the interrupt
    assert_each_epoch_once(run, workplace)


def num_epochs(workplace):
    histories = [
        workplace.client.get_metric_history(run.info.run_id, "valid/accuracy") for run in workplace.runs("train")
    ]
    return sum(map(len, histories))


def test_torchrun_starts_only_a_training(workplace, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert workplace.run("models") == 2
    first, *_ = capsys.readouterr().err.splitlines()
    assert first == "error: torchrun can start the step train, not models, which one process runs"


def test_the_shares_of_all_ranks_are_the_batch_of_one_device_with_its_augmentation():
    augment = Augmentation(8, (0.5,) * 3, (0.2,) * 3, 4, crop_padding=2, flip="random", cutout=3)
    whole = TrainBatches(squares(26), 8, torch.device("cpu"), seed=0, augment=augment)
    parts = [list(whole.divided(number, 3).epoch(1)) for number in range(3)]
    for number, (images, labels) in enumerate(whole.epoch(1)):
        assert torch.equal(torch.cat([part[number][0] for part in parts]), images)
        assert torch.equal(torch.cat([part[number][1] for part in parts]), labels)


@pytest.mark.parametrize(
    ("batch_size", "message"),
    [
        (9, "batch_size=9: 2 devices cannot share it; give a multiple of 2, such as 10"),
        (8, "batch_size=8: the last batch of an epoch has 3 of 27 images, and 2 devices need 4 or more; give another"),
    ],
)
def test_batches_that_ranks_cannot_share_are_refused_in_one_line(batch_size, message):
    with pytest.raises(ValueError, match=message):
        ranks.check_shares(batch_size, 27, 2)
    ranks.check_shares(8, 28, 2)
