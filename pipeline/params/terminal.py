"""What a command shows, which is no part of a recipe."""

from pydantic import Field

from pipeline.params.declared import Declared


class TerminalParams(Declared):
    """Taken by every command."""

    quiet: bool = Field(False, description="nothing but errors and what it came to")


class StatusParams(Declared):
    """Which runs and studies are under way, how far they are, and how long they will take."""

    follow: bool = Field(False, description="on a terminal, look again and again until nothing runs, or Ctrl-C")
    every_seconds: float = Field(3, ge=0.5, le=3600, description="between two looks")
