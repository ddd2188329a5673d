"""The memory of an update is known before it runs, and the user gets a warning if it is too much."""

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from benchmarks.synthetic import splits
from pipeline import models
from pipeline.params import TrainParams
from pipeline.training import costs, preflight
from pipeline.training.recipe import Recipe


def outline(name, size, **options):
    return models.outline(name, num_classes=10, image_size=size, **options).to("meta").train()


def test_the_counted_memory_is_what_an_update_keeps():
    model = models.build("resnet9", num_classes=10, image_size=32, width=4)
    weights = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    kept = {}

    def keep(tensor):
        if (place := tensor.untyped_storage().data_ptr()) not in weights:
            kept[place] = tensor  # kept alive, so that its address is not used again
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        answers = model(torch.rand(8, 3, 32, 32))
    assert answers.requires_grad
    really = sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / 8
    assert 0.9 < costs.kept(outline("resnet9", 32, width=4), 32, "fp32") / really < 1.1


def test_a_frozen_network_keeps_nothing_for_an_update():
    model = outline("resnet9", 32, width=4)
    everything = costs.kept(model, 32, "fp32")
    for parameter in [*model.parameters()][:-1]:
        parameter.requires_grad_(False)
    assert costs.kept(model, 32, "fp32") < everything / 10
    assert costs.kept(nn.Identity(), 32, "fp32") == 0


def test_a_batch_too_large_for_the_memory_gives_a_warning_with_a_size_that_fits():
    def warned(batch_size):
        params = TrainParams(model="resnet18", image_size=224, batch_size=batch_size)
        return preflight.warnings(Recipe(params, splits(64, size=224), torch.device("cpu"), "fp32"))

    (line,) = warned(10**6)
    assert line.startswith("batch_size=1000000 of 224 px keeps some 230119 GiB for an update, and ")
    assert warned(int(line.split("batch_size=")[-1].split()[0])) == []
