"""A time limit for a whole call to a server.

A socket timeout is not enough: it starts again with each byte, and a server may send one byte per second.
"""

import threading
from collections.abc import Callable
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE

SECONDS = 30.0


class Late(TimeoutError):
    """The complete answer did not arrive in time."""


def within(seconds: float, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Returns or raises what `call` does. Raises Late after `seconds`.

    The call runs in a thread of its own, and a late thread is abandoned.
    """
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
        raise Late(f"no complete answer within {seconds:.0f} s")
    answer, error = outcome[0]
    if error is not None:
        raise error
    return answer


def call_in_time(uri: str, method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """What `method` returns. Only a server gets the time limit: databases have their own, and files may take long."""
    if not uri.startswith("http") or "artifact" in getattr(method, "__name__", ""):
        return method(*arguments, **named)
    try:
        return within(SECONDS, method, *arguments, **named)
    except Late as error:
        raise MlflowException(str(error), error_code=TEMPORARILY_UNAVAILABLE) from None
