"""Ctrl-C and SIGTERM as one KeyboardInterrupt, so that whatever runs keeps what it has and closes its run."""

import math
import signal
import time

INSISTING_SECONDS = 10  # after which a second Ctrl-C means it


def raise_once() -> None:
    """Lets SIGINT and SIGTERM alike raise KeyboardInterrupt, the first of them within 10 seconds.

    MLflow's launcher answers Ctrl-C with a SIGTERM of its own at once: it must not cut the unwinding short.
    """
    last = -math.inf

    def interrupt(*_: object) -> None:
        nonlocal last
        if time.monotonic() - last > INSISTING_SECONDS:
            last = time.monotonic()
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
