"""Starting weights: which of their tensors fit a network, and where torchvision's weights come from."""

import hashlib
import pickle

import pytest
import torch
from torchvision.models import SqueezeNet1_1_Weights

from pipeline import models
from pipeline.models import timm_networks, weights
from pipeline.models.stages import head
from pipeline.models.weights import Pretrained, fitted
from tests.planted.ground import Payload

SMALL = {"width": 4, "patch_size": 4, "dim": 12, "depth": 2, "heads": 3}
OLD, NEW = ("cat", "dog", "cow"), ("bus", "car", "van")


def small(name="resnet9", num_classes=3, image_size=16, seed=0):
    torch.manual_seed(seed)
    return models.build(name, num_classes=num_classes, image_size=image_size, **SMALL)


def pretrained(model, classes=OLD, **changes):
    return Pretrained({**model.state_dict(), **changes}, "the file", "sha256 0", "a file", "", classes)


@pytest.mark.parametrize(
    ("classes", "note"),
    [
        (OLD, "its head is kept"),
        (NEW, "its head, of 3 other classes, is replaced by a fresh one"),
        (("bus", "car"), "its head of 3 classes is replaced by a fresh one of 2"),
    ],
)
def test_everything_but_the_head_of_other_classes_is_taken(classes, note):
    source, model = small(seed=1), small(num_classes=len(classes))
    result = fitted(model, pretrained(source), classes)
    assert result.head == note
    theirs = source.state_dict()
    fresh = {name for name, tensor in result.state.items() if not torch.equal(tensor, theirs[name])}
    assert fresh == (set() if classes == OLD else {"head.weight", "head.bias"})
    assert not any(result.state[name].any() for name in fresh)
    model.load_state_dict(result.state)


def test_weights_without_a_head_get_a_fresh_one():
    source = small()
    bare = {name: tensor for name, tensor in source.state_dict().items() if not name.startswith("head.")}
    assert fitted(small(), Pretrained(bare, "f", "f", "f", ""), OLD).head == "it has no head: a fresh one of 3 classes"


def test_positions_of_a_vision_transformer_are_interpolated_to_the_grid_of_its_images():
    source, model = small("vit", image_size=16), small("vit", image_size=32)
    state = fitted(model, pretrained(source), OLD).state
    assert state["encoder.pos_embedding"].shape == (1, 1 + 8 * 8, 12)
    before = source.state_dict()["encoder.pos_embedding"]
    corners = state["encoder.pos_embedding"][:, 1:].unflatten(1, (8, 8))[:, ::7, ::7]
    torch.testing.assert_close(corners, before[:, 1:].unflatten(1, (4, 4))[:, ::3, ::3])
    model.load_state_dict(state)


def test_weights_that_do_not_fit_are_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(timm_networks, "SEARCH_SECONDS", 0)  # none of these weights are timm's
    other = small("resnet18")
    with pytest.raises(ValueError, match=r"^the file: not weights of this network \(\d+ tensors differ: layer1"):
        fitted(small(), Pretrained({"x": torch.ones(1)}, "the file", "f", "f", ""), OLD)
    with pytest.raises(ValueError, match="not weights of this network"):
        fitted(small(), pretrained(other), OLD)
    with pytest.raises(ValueError, match=r"holds values that are not finite \(stem.0.weight\)"):
        fitted(small(), pretrained(small(), **{"stem.0.weight": torch.full((4, 3, 3, 3), torch.nan)}), OLD)
    with pytest.raises(ValueError, match="not weights of this network"):
        fitted(small(), pretrained(small(), **{"stem.0.weight": torch.ones(4, 3, 3, 3, dtype=torch.int64)}), OLD)
    with pytest.raises(ValueError, match="positions cannot be interpolated"):
        fitted(small("vit"), pretrained(small("vit"), **{"encoder.pos_embedding": torch.ones(1, 6, 12)}), OLD)


def test_index_tables_of_a_network_cannot_be_changed_by_weights():
    outline = models.outline("swin_t", num_classes=3, image_size=64)
    state = outline.state_dict()
    name = next(each for each in state if each.endswith("relative_position_index"))
    fitted(outline, Pretrained(state, "the file", "f", "f", ""), OLD)
    with pytest.raises(ValueError, match="differs from its table"):
        fitted(outline, Pretrained({**state, name: state[name] + 10**6}, "the file", "f", "f", ""), OLD)


# Weights of torchvision. These tests fetch them from the address of a file, not from the network.


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Weights of squeezenet1_1 as torchvision publishes them: a pickle of tensors with its checksum in its name."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    model = models.build("squeezenet1_1", num_classes=1000, image_size=64)
    torch.save(model.state_dict(), tmp_path / "w")
    digest = hashlib.sha256((tmp_path / "w").read_bytes()).hexdigest()
    path = (tmp_path / "w").rename(tmp_path / f"squeezenet1_1-{digest[:8]}.pth")
    monkeypatch.setattr(SqueezeNet1_1_Weights.IMAGENET1K_V1.value, "url", path.as_uri())
    return path, tmp_path / "home" / "hub" / "checkpoints" / path.name, model


@pytest.mark.parametrize("wanted", ["default", "IMAGENET1K_V1", "SqueezeNet1_1_Weights.IMAGENET1K_V1"])
def test_torchvision_s_weights_are_fetched_with_their_mean_image_size_and_classes(published, wanted):
    _, kept, model = published
    found = weights.of_torchvision("squeezenet1_1", wanted)
    assert kept.is_file()
    assert found.identity == "SqueezeNet1_1_Weights.IMAGENET1K_V1"
    address = SqueezeNet1_1_Weights.IMAGENET1K_V1.url
    assert (found.origin, found.licence) == (f"{found.identity}, {address}", "not stated")
    assert (found.mean, found.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (found.image_size, found.interpolation, len(found.classes)) == (224, "bilinear", 1000)
    ours = models.build("squeezenet1_1", num_classes=3, image_size=64)
    result = fitted(ours, found, OLD)
    assert result.head == "its head of 1000 classes is replaced by a fresh one of 3"
    ours.load_state_dict(result.state)
    first = next(iter(model.state_dict()))
    assert torch.equal(ours.state_dict()[first], model.state_dict()[first])
    assert head(ours)[0] == "classifier.1"


def test_weights_put_into_the_folder_by_hand_need_no_network(published):
    path, kept, _ = published
    kept.parent.mkdir(parents=True)
    path.rename(kept)
    assert weights.of_torchvision("squeezenet1_1", "default").state


def test_without_a_network_the_error_says_which_file_to_put_where(published, monkeypatch):
    _, kept, _ = published
    address = "http://127.0.0.1:9/squeezenet1_1-12345678.pth"
    monkeypatch.setattr(SqueezeNet1_1_Weights.IMAGENET1K_V1.value, "url", address)
    with pytest.raises(ValueError, match="cannot be fetched") as error:
        weights.of_torchvision("squeezenet1_1", "default")
    assert "\n" not in str(error.value)
    assert address in str(error.value)
    assert str(kept.with_name("squeezenet1_1-12345678.pth")) in str(error.value)


def test_a_file_that_is_not_as_published_is_not_opened(published, tmp_path):
    _, kept, _ = published
    kept.parent.mkdir(parents=True)
    kept.write_bytes(pickle.dumps(Payload(tmp_path / "executed")))
    with pytest.raises(ValueError, match="not what torchvision published"):
        weights.of_torchvision("squeezenet1_1", "default")
    assert not (tmp_path / "executed").exists()


def test_an_unknown_name_of_torchvision_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"none of that name for resnet50 \(it has IMAGENET1K_V1, IMAGENET1K_V2\)"):
        weights.of_torchvision("resnet50", "IMAGENET1K_V9")
