"""Writes the states of a training to this disk, in a thread, while the training continues."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from pipeline.model_files import host_copies, states
from pipeline.tracking.journal import Journal


class StateWriter:
    """Writes one state of a run at a time."""

    def __init__(self, run_id: str, journal: Journal) -> None:
        self._run_id = run_id
        self._journal = journal
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._writing: Future[None] | None = None

    def save(self, tree: Any, step: int) -> None:
        """Copies `tree`, the state after `step` updates, and begins to write it. Raises as `finish` does."""
        self.finish()
        self._writing = self._thread.submit(self._write, host_copies.snapshot(tree), step)

    def finish(self, waits: bool = True) -> None:
        """Waits until the last state is on this disk; if not `waits`, only looks. Raises why it was not written."""
        if self._writing is None or not (waits or self._writing.done()):
            return
        error = self._writing.exception()
        self._writing = None
        if error is not None:
            raise error

    def _write(self, tree: Any, step: int) -> None:
        self._journal.append("state", slot=states.save(self._run_id, tree, step), step=step)
