"""Lists the networks that `model` takes by name, and what is known of each without a download."""

from dataclasses import dataclass

from pipeline.models import MODELS, backbones, outline, timm_networks
from pipeline.models.weights import NOT_STATED, PerChannel

NO_WEIGHTS = "no weights"
OURS = {"num_classes": 10, "image_size": 32}  # sizes for which our networks' parameters are counted, as for digits
CLASSES, SIZE = 1000, 224  # the same for timm's networks; their size (px) if no weights give another


@dataclass(frozen=True)
class Network:
    """A network, with the licence of its default weights and the images that they need."""

    name: str
    image_size: int | None  # px; None without weights
    licence: str
    parameters: int | None  # None if not counted yet
    mean: PerChannel | None = None  # in [0, 1] units, like std; None without weights
    std: PerChannel | None = None


def own() -> list[str]:
    """This project's networks."""
    return list(MODELS)


def of_torchvision() -> list[str]:
    """torchvision's networks by their names there, with a prefix if one of ours has the same name."""
    return [f"{backbones.PREFIX}{name}" if name in MODELS else name for name in backbones.names()]


def of_timm() -> list[str]:
    """timm's networks, as timm/<name>. Takes a second."""
    return timm_networks.names()


def find(name: str) -> Network:
    """The entry of the network called `name`. Raises ValueError for an unknown name."""
    if name in MODELS:
        return Network(name, None, NO_WEIGHTS, None)
    if timm_networks.has(name):
        described = timm_networks.default(name)
        if described is None:
            return Network(name, None, NO_WEIGHTS, None)
        size, licence = described.input_size[-1], described.license or NOT_STATED
        return Network(name, size, licence, None, described.mean, described.std)
    weights = backbones.default_weights(name)
    made, licence = weights.transforms(), weights.meta.get("license", NOT_STATED)
    return Network(name, made.crop_size[0], licence, weights.meta["num_params"], tuple(made.mean), tuple(made.std))


def count(network: Network) -> int:
    """The number of parameters of a network, with its head. Takes a tenth of a second if it is not counted yet."""
    if network.parameters is not None:
        return network.parameters
    sizes = OURS if network.name in MODELS else {"num_classes": CLASSES, "image_size": network.image_size or SIZE}
    return sum(parameter.numel() for parameter in outline(network.name, **sizes).parameters())
