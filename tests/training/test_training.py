"""The training loop: its events, its numbers, and what it leaves unchanged."""

import copy

import pytest
import torch

from pipeline.data.batches import Batches, TrainBatches
from pipeline.training import optimizers, schedules
from pipeline.training.ema import MovingAverage
from pipeline.training.events import EpochEnd, StepEnd
from pipeline.training.training import Diverged, Training
from pipeline.training.update import predict, train_step
from tests.small import network, plain, squares

CPU = torch.device("cpu")


class Valid:
    def __init__(self, split, batch_size=7):
        self.batches = Batches(split, batch_size, CPU)

    def __iter__(self):
        return (plain(images, labels, None, None) for images, labels in self.batches)


def train(epochs=3, *, max_lr=0.2, num_images=66, precision="fp32", seed=0, **options):
    model = network(seed)
    batches = TrainBatches(squares(num_images), 16, CPU, seed=seed, augment=plain)
    optimizer = optimizers.build("sgd", model, lr=0.1, momentum=0.9, weight_decay=5e-4)
    schedule = schedules.one_cycle(
        optimizer,
        max_lr=max_lr,
        total_steps=epochs * len(batches),
        pct_start=0.3,
        div_factor=25,
        final_div_factor=1e4,
        anneal="cos",
        momentum=0.9,
    )
    training = Training(model, batches, optimizer, schedule, epochs=epochs, precision=precision, **options)
    return model, training.events()


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_training_learns_in_every_precision(precision):
    _, events = train(epochs=6, precision=precision, valid=Valid(squares(40, seed=9)))
    last = list(events)[-1]
    assert last.train_accuracy > 0.95
    assert last.valid_accuracy == 1.0


def test_a_training_yields_a_step_per_update_and_an_epoch_after_each_pass():
    _, events = train(epochs=2)
    events = list(events)
    assert [type(event) for event in events] == ([StepEnd] * 5 + [EpochEnd]) * 2
    steps = [event for event in events if isinstance(event, StepEnd)]
    assert [event.step for event in steps] == list(range(10))
    assert [event.num_images for event in steps[:5]] == [16, 16, 16, 16, 2]
    assert steps[-1].epoch == 2.0
    assert steps[0].lr == pytest.approx(0.2 / 25)
    assert steps[-1].lr == pytest.approx(0.2 / 25 / 1e4)
    epochs = [event for event in events if isinstance(event, EpochEnd)]
    assert [event.epoch for event in epochs] == [1, 2]
    assert epochs[0].valid_loss is epochs[0].valid_accuracy is None


def test_an_epoch_s_numbers_are_means_over_images_not_batches():
    _, events = train(epochs=1)
    *steps, epoch = list(events)
    assert epoch.train_loss == pytest.approx(sum(float(s.loss) * s.num_images for s in steps) / 66)
    assert epoch.train_accuracy == pytest.approx(sum(float(s.num_correct) for s in steps) / 66)


def test_two_seeded_runs_are_equal_to_the_bit():
    weights = []
    for _ in range(2):
        model, events = train()
        losses = [float(event.loss) for event in events if isinstance(event, StepEnd)]
        weights.append((losses, torch.cat([p.flatten() for p in model.parameters()])))
    assert weights[0][0] == weights[1][0]
    assert torch.equal(weights[0][1], weights[1][1])


def test_the_first_losses_of_a_seeded_training_are_the_recorded_ones():
    """If a refactor changes these losses, it has changed the training."""
    _, events = train(epochs=1, max_lr=0.02)
    losses = [float(event.loss) for event in events if isinstance(event, StepEnd)]
    assert losses == pytest.approx(GOLDEN, abs=2e-4)


GOLDEN = [1.97112, 1.79056, 1.17982, 1.00841, 1.35951]


def test_predict_is_right_with_a_ragged_last_batch_and_leaves_the_modes_unchanged():
    model, split = network().train(), squares(33)
    next(model.children()).eval()  # as in a frozen layer
    modes = [module.training for module in model.modules()]
    logits, labels = predict(model, Valid(split, 8))
    with torch.no_grad():
        whole = copy.deepcopy(model).eval()(plain(torch.from_numpy(split.source), None, None, None)[0])
    torch.testing.assert_close(logits, whole)
    assert labels.tolist() == split.labels.tolist()
    assert [module.training for module in model.modules()] == modes


def test_validation_does_not_change_the_training():
    plain_run = [float(e.loss) for e in train()[1] if isinstance(e, StepEnd)]
    validated = [float(e.loss) for e in train(valid=Valid(squares(20)))[1] if isinstance(e, StepEnd)]
    assert plain_run == validated


def test_leaving_the_loop_stops_the_training():
    model, events = train()
    for event in events:
        if event.step == 2:
            break
    weights = copy.deepcopy(model.state_dict())
    assert not torch.equal(weights["0.weight"], network().state_dict()["0.weight"])
    events.close()
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())


def test_a_non_finite_loss_names_step_and_rate():
    _, events = train(epochs=9, max_lr=1e20)
    with pytest.raises(Diverged, match=r"^the loss became (nan|inf) at step \d+ with lr \d"):
        list(events)


def test_the_averaged_model_is_the_one_validated():
    model = network()
    averaged = MovingAverage(model, 0.9)
    batches = TrainBatches(squares(64), 16, CPU, seed=0, augment=plain)
    optimizer = optimizers.build("sgd", model, lr=0.1, momentum=0.9, weight_decay=0)
    schedule = schedules.ladder(optimizer, min_lr=0.01, max_lr=0.2, num_steps=8)
    valid = Valid(squares(40, seed=9))
    training = Training(model, batches, optimizer, schedule, epochs=2, precision="fp32", valid=valid, ema=averaged)
    last = list(training.events())[-1]
    logits, labels = predict(averaged.module, valid)
    assert last.valid_loss == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item())
    assert not torch.equal(averaged.module[0].weight, model[0].weight)


def test_class_weights_weigh_each_image_of_the_training_loss_and_not_validation():
    model = network()
    images, labels = next(iter(Valid(squares(16), 16)))
    weights = torch.tensor([4.0, 1.0, 0.5, 0.5])
    still = optimizers.build("sgd", model, lr=0.0, momentum=0, weight_decay=0)
    with torch.no_grad():
        each = torch.nn.functional.cross_entropy(copy.deepcopy(model)(images), labels, reduction="none")
    loss, _ = train_step(copy.deepcopy(model), images, labels, still, "fp32", 0.0, weights)
    assert loss.item() == pytest.approx(((each * weights[labels]).sum() / weights[labels].sum()).item(), rel=1e-5)

    valid = Valid(squares(40, seed=9))
    trained, events = train(epochs=1, class_weights=weights, valid=valid)
    last = list(events)[-1]
    logits, known = predict(trained, valid)
    assert last.valid_loss == pytest.approx(torch.nn.functional.cross_entropy(logits, known).item())
    unweighted, others = train(epochs=1)
    list(others)
    assert not torch.equal(trained[0].weight, unweighted[0].weight)


@pytest.mark.parametrize("soft", [False, True])
def test_label_smoothing_does_not_depend_on_class_weights(soft):
    """Trains on images that clearly belong to the common of two classes, until the loss is lowest."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 2))
    images, labels = torch.ones(8, 3, 1, 1), torch.zeros(8, dtype=torch.int64)
    targets = torch.nn.functional.one_hot(labels, 2).float() if soft else labels
    optimizer = optimizers.build("sgd", model, lr=1.0, momentum=0, weight_decay=0)
    weights = torch.tensor([0.5, 50.0])
    for _ in range(300):
        train_step(model, images, targets, optimizer, "fp32", 0.2, weights)
    assert model(images).softmax(1)[:, 0].tolist() == pytest.approx([0.9] * 8, abs=1e-3)


def test_soft_targets_count_their_largest_class():
    model = network()
    optimizer = optimizers.build("sgd", model, lr=0.0, momentum=0, weight_decay=0)
    images, labels = next(iter(Valid(squares(16), 16)))
    soft = torch.nn.functional.one_hot(labels, 4) * 0.7 + 0.075
    hard = train_step(copy.deepcopy(model), images, labels, optimizer, "fp32", 0.0)
    mixed = train_step(copy.deepcopy(model), images, soft, optimizer, "fp32", 0.0)
    smoothed = train_step(copy.deepcopy(model), images, labels, optimizer, "fp32", 0.3)
    assert hard[1] == mixed[1]
    assert mixed[0].item() == pytest.approx(smoothed[0].item(), rel=1e-5)
