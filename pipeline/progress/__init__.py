"""The terminal's output: lines, and one bar for a whole command. `table` is not imported here, as it loads slowly."""

from pipeline.progress.bar import Meter, Part, alone, aside, meter, steps
from pipeline.progress.messages import answer, conclude, is_quiet, quiet, say, screen, tell
from pipeline.progress.time_left import duration, left
from pipeline.progress.training_display import show

__all__ = [
    "Meter",
    "Part",
    "alone",
    "answer",
    "aside",
    "conclude",
    "duration",
    "is_quiet",
    "left",
    "meter",
    "quiet",
    "say",
    "screen",
    "show",
    "steps",
    "tell",
]
