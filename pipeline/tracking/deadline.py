"""A call that ends, whatever a server does: one that sends a byte a second keeps each wait for the next one short."""

import threading
from collections.abc import Callable
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE

SECONDS = 30.0


class Late(TimeoutError):
    """There was no whole answer in time."""


def within(seconds: float, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """What `call` returns or raises, from a thread of its own, which is left behind where it takes longer: Late."""
    outcome: list[tuple[Any, BaseException | None]] = []

    def run() -> None:
        try:
            outcome.append((call(*arguments, **named), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise Late(f"no whole answer within {seconds:.0f} s")
    answer, error = outcome[0]
    if error is not None:
        raise error
    return answer


def timely(uri: str, method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """What a server answers in time; a database has limits of its own, and files may take long."""
    if not uri.startswith("http") or "artifact" in getattr(method, "__name__", ""):
        return method(*arguments, **named)
    try:
        return within(SECONDS, method, *arguments, **named)
    except Late as error:
        raise MlflowException(str(error), error_code=TEMPORARILY_UNAVAILABLE) from None
