"""Features of a pretrained network for all photos that the doctor examines."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.data.folders import list_images
from pipeline.history import initial_weights
from pipeline.models import timm_networks
from pipeline.params import DataParams, DoctorParams, ProbeParams
from pipeline.progress import conclude, meter
from pipeline.steps import probe
from pipeline.text import shown
from pipeline.training import photo_defaults, recipe

# px. On smaller photos, the doctor trains small networks instead: they see 32 px, which is nearly all of such a photo,
# and need far less time.
LEAST_SIDE = 64


@dataclass(frozen=True)
class Features:
    """Features (D,) float32 of photos by name, and the size (px) at which the network saw the photos."""

    by_name: dict[str, np.ndarray]
    image_size: int

    def of(self, names: Sequence[str]) -> np.ndarray:
        """The features (N, D) of the photos called `names`."""
        return np.stack([self.by_name[name] for name in names])


def find(params: DoctorParams) -> Features | None:
    """The features of each photo; None for small photos, and None without weights, which a line says.

    They are the input of the head of the network that photos are trained with by default, at the size of its weights.
    The cache keeps them.
    """
    root = Path(params.data_dir).expanduser()
    names = [shown(file.path) for file in list_images(root, params.labels).files]
    if photo_defaults.median_side(root, names) < LEAST_SIDE:
        return None
    try:
        network = photo_defaults.BACKBONE
        size = timm_networks.check(network).input_size[-1]
        of_images = {name: getattr(params, name) for name in DataParams.model_fields if name != "experiment"}
        chosen = {"image_size": size, "device": params.device, "model": network, "weights": "default"}
        asked = ProbeParams(**{**of_images, **chosen})
        pretrained = initial_weights.find(asked)
    except ValueError as error:
        conclude(f"doctor: no pretrained features, so small networks judge the labels: {error}")
        return None
    loaded = recipe.load(asked, pretrained)
    model, splits = loaded.model(seed=0), loaded.splits
    parts = [part for part in (splits.train, splits.valid, splits.test) if part is not None]
    found: dict[str, np.ndarray] = {}
    with meter("features", sum(map(len, parts))) as progress:
        for part in parts:
            seen = probe.features_of(loaded, model, part, progress)
            found |= dict(zip(part.names, seen.of_head, strict=True))
    return Features(found, size)
