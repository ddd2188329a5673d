"""What of a network does not learn, and until when."""

from torch import nn

from pipeline.models.stages import stages


class Frozen:
    """The first `num_stages` stages of `model` (all but the head where None), until an epoch comes (never where 0).

    Made before anything is frozen, and told of each epoch as it begins: what learns is a function of the epoch alone.
    Raises ValueError for more stages than the network has.
    """

    def __init__(self, model: nn.Module, num_stages: int | None, until_epoch: int) -> None:
        found = stages(model)
        if num_stages is not None and num_stages > len(found):
            names = ", ".join(stage.name for stage in found)
            raise ValueError(f"freeze={num_stages}: the network has {len(found)} stages before its head ({names})")
        self.stages = found[:num_stages]
        self._until = until_epoch
        # What never learns, such as a whitened first layer, is not to be thawed.
        self._learning = [each for stage in self.stages for each in stage.parameters if each.requires_grad]

    def holds(self, epoch: int) -> bool:
        """Whether anything is frozen in that epoch, counted from 1."""
        return not self._until or epoch < self._until

    def begin(self, epoch: int) -> None:
        """Freezes or thaws; call it once the model is in training mode.

        What is frozen evaluates: its batch norms keep their statistics, and it drops nothing.
        """
        frozen = self.holds(epoch)
        for parameter in self._learning:
            parameter.requires_grad_(not frozen)
        if frozen:
            for stage in self.stages:
                for module in stage.modules:
                    module.eval()
