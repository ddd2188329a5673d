"""Parameters of the commands `status` and `sync`, and of the terminal output of every command."""

from pydantic import Field

from pipeline.params.base import Declared


class TerminalParams(Declared):
    """Parameters that every command has."""

    quiet: bool = Field(False, description="print only errors and the result")


class StatusParams(Declared):
    """Shows the runs and studies under way: how far they are, and how long they will take."""

    follow: bool = Field(False, description="on a terminal, update the list until nothing runs or you press Ctrl-C")
    every_seconds: float = Field(3, ge=0.5, le=3600, description="seconds between two updates")


class ModelsParams(Declared):
    """Lists the networks that `model` takes: parameters, image size and licence of the default weights of each."""

    like: str = Field(
        "", description="a part of the names to list, such as convnext or timm/vit*224; empty: our own networks"
    )


class SyncParams(Declared):
    """Sends to MLflow what runs could not send: they keep it on this disk while their store is away."""
