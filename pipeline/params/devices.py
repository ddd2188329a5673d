"""Parameters of a training on one or several devices."""

from typing import Self

from pydantic import Field, model_validator

from pipeline.params.base import Switch
from pipeline.params.training import SeriesParams, TrainParams


class TrainStepParams(TrainParams, SeriesParams):
    """Trains with the OneCycle schedule: weights, curves and a served model."""

    devices: int = Field(
        1, ge=1, le=1024, description="number of devices of this machine that share the training, by torchrun"
    )
    shard_weights: Switch = Field(
        "off",
        description="for several devices; on: each holds a part of weights, gradients and optimizer state (FSDP2)",
    )

    @model_validator(mode="after")
    def devices_can_share(self) -> Self:
        if self.devices > 1 and self.num_seeds > 1:
            raise ValueError(f"devices={self.devices} is for one training, and num_seeds={self.num_seeds} are several")
        if self.batch_size % self.devices:
            raise ValueError(
                f"batch_size={self.batch_size} cannot be shared by devices={self.devices}: give a multiple"
            )
        return self

    @model_validator(mode="after")
    def parts_of_weights_are_enough(self) -> Self:
        if self.shard_weights == "off":
            return self
        if self.optimizer == "muon":
            raise ValueError("shard_weights=on: optimizer=muon needs whole matrices; give sgd or adamw")
        if self.watch_images:
            raise ValueError("shard_weights=on: watch_images needs the whole network after each epoch; give 0")
        if self.compile == "on":
            raise ValueError("shard_weights=on: compile=on has not been tested with it; give auto or off")
        return self
