"""Where published weights lie on this machine once they have been downloaded."""

from pathlib import Path, PurePosixPath
from urllib.parse import urlparse

import torch

HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def of_address(address: str) -> Path:
    """Where torch keeps the file from `address`; it may not be there yet."""
    return Path(torch.hub.get_dir()) / "checkpoints" / PurePosixPath(urlparse(address).path).name


def has_repository(repository: str) -> bool:
    """Whether the hub's cache has the weights of `repository`, such as timm/resnet18.a1_in1k."""
    from huggingface_hub import try_to_load_from_cache  # not at the top: few networks need it

    return any(isinstance(try_to_load_from_cache(repository, file), str) for file in HUB_FILES)
