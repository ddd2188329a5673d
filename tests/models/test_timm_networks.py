"""A contract that every timm network keeps, tested on timm's own small networks, one or more per family."""

import json

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import PretrainedCfg, save_for_hf

from pipeline import models
from pipeline.explain.attribution import class_maps, is_blank
from pipeline.model_files import export
from pipeline.model_files.classifier import Classifier, parse
from pipeline.models import timm_networks, weights
from pipeline.models.features import with_features
from pipeline.models.stages import head, stages
from pipeline.training import optimizers
from pipeline.training.update import train_step

SMALL = timm.list_models("test_*")
OF_BIRDS = {"mean": (0.4, 0.5, 0.6), "num_classes": 5}
SIZE, CLASSES = 64, ("a", "b", "c")


def build(name, seed=0):
    torch.manual_seed(seed)
    model = models.build(f"timm/{name}", num_classes=len(CLASSES), image_size=SIZE)
    last = head(model)[1]
    torch.nn.init.normal_(last.weight, std=0.1)  # some heads start at zero, which would hide the rest
    return model


@pytest.fixture
def images():
    return torch.randn(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", SMALL)
def test_a_timm_network_learns_has_a_map_and_has_stages_with_every_parameter(name, images):
    model = build(name)
    held = [parameter for stage in stages(model) for parameter in stage.parameters] + [*head(model)[1].parameters()]
    assert {id(parameter) for parameter in held} == {id(parameter) for parameter in model.parameters()}
    optimizer = optimizers.build("adamw", model.train(), lr=3e-3, momentum=0.9, weight_decay=0.0)
    losses = [train_step(model, images, torch.tensor([0, 1, 2, 0]), optimizer, "fp32", 0.0)[0] for _ in range(8)]
    assert min(losses[4:]) < losses[0]
    maps = class_maps(model, models.cam_target(f"timm/{name}", model), images, torch.tensor([0, 1, 2, 0]), "gradcam")
    assert maps.shape == (4, SIZE, SIZE)
    assert not is_blank(maps).all()
    logits, features = with_features(model.eval(), images)
    assert torch.isfinite(features).all() and logits.shape == (4, len(CLASSES))


@pytest.mark.parametrize("name", SMALL)
def test_weights_of_the_same_classes_are_taken_whole_and_another_head_is_replaced(name):
    model, other = build(name), build(name, seed=1)
    start = weights.Pretrained(other.state_dict(), "here", "id", "here", "", CLASSES)
    model.load_state_dict(weights.fitted(model, start, CLASSES).state)
    assert all(torch.equal(tensor, model.state_dict()[key]) for key, tensor in other.state_dict().items())
    of_more = models.build(f"timm/{name}", num_classes=7, image_size=SIZE)
    fitted = weights.fitted(model, weights.Pretrained(of_more.state_dict(), "here", "id", "here", ""), CLASSES)
    assert fitted.head == "its head of 7 classes is replaced by a fresh one of 3"


@pytest.mark.parametrize("name", ["test_efficientnet", "test_vit"])
def test_an_exported_timm_network_gives_the_same_answers(name, tmp_path):
    described = parse(
        {
            "network": {"name": f"timm/{name}", "options": {}},
            "image_size": SIZE,
            "classes": CLASSES,
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
        }
    )
    classifier, file = Classifier(build(name).eval(), described), tmp_path / "model.onnx"
    export.write(classifier, "onnx", file, {})
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, SIZE, SIZE), dtype=np.uint8)
    assert export.difference(classifier, "onnx", file, pixels) < export.TOLERANCE


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"timm has no network of that name; did you mean timm/resnet18\?"):
        models.build("timm/resnet18x", num_classes=2, image_size=32)


def test_weights_put_by_hand_are_found_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = timm_networks.weights_folder() / "test_efficientnet.safetensors"
    file.parent.mkdir(parents=True)
    save_file(timm.create_model("test_efficientnet", num_classes=1000).state_dict(), file)
    start = weights.of_timm("timm/test_efficientnet", "default")
    assert start.mean is not None and start.image_size == 160
    repository = "https://huggingface.co/timm/test_efficientnet.r160_in1k"
    assert (start.origin, start.licence) == (f"file {file.name}, as {repository}", "apache-2.0")
    assert "timm" in start.source and start.identity == weights.of_timm("timm/test_efficientnet", "default").identity
    file.write_bytes(b"no weights")
    with pytest.raises(ValueError, match="not a safetensors file"):
        weights.of_timm("timm/test_efficientnet", "default")


@pytest.mark.parametrize(("stated", "licence"), [({"license": "mit"}, "mit"), ({}, "not stated")])
def test_weights_of_a_repository_come_from_the_hub_s_cache_with_their_licence_and_mean(
    tmp_path, monkeypatch, stated, licence
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    kept = tmp_path / "models--somebody--birds"
    (kept / "snapshots/0").mkdir(parents=True)
    (kept / "refs").mkdir()
    (kept / "refs/main").write_text("0")
    network = timm.create_model("test_vit", num_classes=5)
    save_for_hf(network, kept / "snapshots/0", model_config={"pretrained_cfg": {**OF_BIRDS, **stated}})
    config = json.loads((kept / "snapshots/0/config.json").read_text())
    if not stated:
        del config["pretrained_cfg"]["license"]  # it is the licence of the network that these weights come from
    (kept / "snapshots/0/config.json").write_text(json.dumps(config))
    start = weights.of_timm("timm/test_vit", "hf-hub:somebody/birds")
    assert (start.origin, start.licence) == ("https://huggingface.co/somebody/birds", licence)
    assert (start.mean, start.image_size) == (OF_BIRDS["mean"], 160)
    assert torch.equal(start.state["head.weight"], network.head.weight)


def test_weights_with_positions_for_another_image_size_are_refused_and_the_message_names_their_size():
    state = timm.create_model("test_vit", pretrained=False).state_dict()
    start = weights.Pretrained(state, "the weights", "w", "w", "mit", mean=(0.5, 0.5, 0.5), image_size=160)
    with pytest.raises(
        ValueError, match=r"\(1 tensors differ: pos_embed\); only positions differ, so give image_size=160$"
    ):
        weights.fitted(build("test_vit"), start, CLASSES)


def test_without_a_network_one_line_says_where_to_put_which_file(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        ValueError, match=r"does not answer .*put model.safetensors of timm/test_vit\S* at \S+"
    ) as caught:
        timm_networks.check("timm/test_vit")
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"get model\.safetensors of a/b and give its path as weights"):
        timm_networks.published("timm/test_vit", "hf-hub:a/b")
    with pytest.raises(ValueError, match="timm has none of that name"):
        timm_networks.published("timm/test_vit", "no_such_tag")


def test_weights_with_an_address_of_their_own_are_searched_there(tmp_path, monkeypatch):
    address = "http://127.0.0.1:9/test_vit-0123.pth"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    described = PretrainedCfg(url=address, architecture="test_vit")
    monkeypatch.setattr("timm.models.get_pretrained_cfg", lambda *_, **__: described)
    wanted = f"{address} does not answer .*put its weights, as a safetensors file, at \\S+test_vit.safetensors"
    with pytest.raises(ValueError, match=wanted):
        timm_networks.check("timm/test_vit")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "test_vit-0123.pth").touch()  # where torch keeps what it has downloaded
    assert timm_networks.check("timm/test_vit") is described
