"""A pretrained network that is small, for steps on folders of photos."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from pipeline.models import timm_networks
from pipeline.training import photo_defaults

BACKBONE = "timm/test_efficientnet"  # a tiny network that timm has for tests


@pytest.fixture
def weights(workplace, monkeypatch):
    """A backbone with its weights in the folder where a user puts them."""
    monkeypatch.setattr(photo_defaults, "BACKBONE", BACKBONE)
    monkeypatch.setenv("XDG_CACHE_HOME", workplace.environment["XDG_CACHE_HOME"])
    torch.manual_seed(0)
    file = timm_networks.weights_folder() / "test_efficientnet.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(timm.create_model("test_efficientnet", num_classes=1000).state_dict(), file)
    return file
