"""Image classifiers as an MLflow Project: range test, OneCycle training, evaluation, explanation."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.notebook import Outcome

__all__ = ["run"]


def run(step: str, *, quiet: bool = False, **parameters: Any) -> "Outcome":
    """Runs one step with these parameters, as `python -m pipeline <step>` does, and returns its outcome.

    The outcome has the MLflow `run_id`, a `summary`, the main `metrics`, and `path(artifact)` for files. Parameters
    have the names and defaults of the command line. quiet: print no progress. Raises ValueError for bad input.
    """
    from pipeline import notebook  # here, because importing the package must stay fast

    return notebook.run(step, parameters, quiet=quiet)
