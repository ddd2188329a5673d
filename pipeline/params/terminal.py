"""Parameters of commands that are no part of a recipe, and of what any command shows."""

from pydantic import Field

from pipeline.params.base import Declared


class TerminalParams(Declared):
    """Taken by every command."""

    quiet: bool = Field(False, description="only errors and the result")


class StatusParams(Declared):
    """Which runs and studies are under way, how far they are, and how long they will take."""

    follow: bool = Field(False, description="on a terminal, look again and again until nothing runs, or Ctrl-C")
    every_seconds: float = Field(3, ge=0.5, le=3600, description="between two looks")


class ModelsParams(Declared):
    """Which networks `model` takes: parameters, image size and licence of the default weights of each."""

    like: str = Field("", description="part of their names, such as convnext or timm/vit*224; empty: our own networks")


class SyncParams(Declared):
    """Sends to MLflow what runs could not send while their tracking store was away."""
