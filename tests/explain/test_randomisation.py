"""Networks lose what they learned, at once and part by part; and how similar two maps are."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from pipeline import models
from pipeline.explain.randomisation import cascade, randomised_copy, similarity
from pipeline.models import MODELS
from pipeline.models.ensemble import Ensemble


def build(name):
    torch.manual_seed(0)
    return models.build(name, num_classes=4, image_size=16, width=4, patch_size=4, dim=12, depth=2, heads=3)


@pytest.mark.parametrize("name", MODELS)
def test_randomised_copy_keeps_nothing_that_was_learned(name):
    model = build(name)
    for tensor in model.state_dict().values():
        tensor.copy_(torch.full_like(tensor, 7))
    before = torch.random.get_rng_state()
    copy, again, other = (randomised_copy(model, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all((tensor == 7).all() for tensor in model.state_dict().values())
    assert all((tensor != 7).all() for tensor in copy.values())
    assert all(torch.equal(copy[key], again[key]) for key in copy)
    weights = [key for key, tensor in copy.items() if tensor.ndim > 1]
    assert all((copy[key] != other[key]).any() for key in weights)


def test_a_randomised_copy_of_a_vit_has_logits_other_than_0():
    model = build("vit")
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert not model(images).any()
    assert randomised_copy(model, 0)(images).all()


@pytest.mark.parametrize("name", [*MODELS, "timm/test_vit", "timm/test_convnext", "squeezenet1_1"])
def test_a_cascade_randomises_the_head_first_and_everything_in_the_end(name):
    model = build(name) if name in MODELS else models.build(name, num_classes=4, image_size=64)
    for tensor in model.state_dict().values():
        tensor.copy_(torch.full_like(tensor, 7))
    left = []
    for part, network in cascade(model, 1):
        kept = {key for key, tensor in network.state_dict().items() if (tensor == 7).all()}
        left.append((part, kept))
    everything = set(model.state_dict())
    first, lost = left[0][0], everything - left[0][1]
    assert lost and all(key.startswith(f"{first}.") for key in lost)
    assert all(after < before for (_, before), (_, after) in pairwise(left))
    assert left[-1][1] == set()
    unlearned = randomised_copy(model, 1).state_dict()
    assert all(torch.equal(tensor, unlearned[key]) for key, tensor in network.state_dict().items())
    assert all((tensor == 7).all() for tensor in model.state_dict().values())


def test_all_members_of_an_ensemble_lose_the_same_part_at_a_time():
    members = [build("resnet9"), randomised_copy(build("resnet9"), 7)]
    before = [nn.utils.parameters_to_vector(member.parameters()) for member in members]
    names = []
    for name, network in cascade(Ensemble(members), 3):  # with other seeds than the members have
        after = [nn.utils.parameters_to_vector(member.parameters()) for member in network.members]
        assert all((one != other).any() for one, other in zip(before, after, strict=True))
        names, before = [*names, name], after
    assert names == [name for name, _ in cascade(members[0], 3)]


def test_similarity_is_the_rank_correlation_of_each_pair_and_0_where_nothing_stands_out():
    draw = np.random.default_rng(0)
    one, other = (draw.random((3, 8, 8)).astype(np.float32) for _ in range(2))
    one[0] = one[0].round(1)  # some pixels are equal
    other[1], other[2] = one[1] ** 3, 0.5
    expected = [spearmanr(one[0].ravel(), other[0].ravel()).statistic, 1, 0]
    np.testing.assert_allclose(similarity(one, other), expected, atol=1e-12)
