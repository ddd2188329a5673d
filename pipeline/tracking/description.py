"""What a weights file says of its network, believed only where it fits: nothing is built of it before."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.data.decode import Interpolation
from pipeline.params import ModelName, RecipeParams, Resize
from pipeline.settings import message

PerChannel = tuple[float, float, float]


class Network(BaseModel):
    """An architecture by its name, and its sizes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ModelName
    options: dict[str, int]


class Description(BaseModel):
    """All it takes to use a network beside its weights; more may be told, and is passed over."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    network: Network
    image_size: int
    resize: Resize = "crop"  # how an image that is not square becomes one of image_size + 2 * margin px
    interpolation: Interpolation = "bicubic"  # by which it was scaled; files from before this was told have no other
    margin: int = Field(0, ge=0, le=512)  # px then cut off every side
    classes: tuple[str, ...] = Field(min_length=1)  # in the order of the logits
    mean: PerChannel  # per channel, in [0, 1] units
    std: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]

    @model_validator(mode="after")
    def sizes_are_those_of_a_training(self) -> Self:
        told: dict[str, Any] = {"model": self.network.name, "image_size": self.image_size, "crop_padding": 0}
        RecipeParams(**{**self.network.options, **told})
        return self


def parse(described: Any) -> Description:
    """The description in plain data. Raises ValueError, in one line, for what is none."""
    try:
        return Description.model_validate(described)
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, each['loc']))} {message(each)}".strip() for each in error.errors())
        raise ValueError("; ".join(problems)) from None
