"""The database of a tracking store or of studies: its file, whether it can be used, and its tables, made once.

MLflow and Optuna make their tables when they first open a database. Two processes that do so at a time break a SQLite
file for good, and MLflow tries to reach a database that it cannot have for two minutes, without a word.
"""

import logging
import os
import re
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from urllib.parse import unquote, urlsplit

from filelock import FileLock, Timeout
from mlflow.store.db.db_types import DATABASE_ENGINES
from sqlalchemy import NullPool, create_engine, inspect
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_fixed,
)

from pipeline.progress import say
from pipeline.tracking.errors import first_line

PATIENCE_SECONDS = 120  # with a database that is busy, or that another process makes
QUIET_SECONDS = 3  # without a change: then nobody makes tables in a file any more
MAKE_TRIES = 5  # where a server makes tables for several processes at a time, each but one of them fails at first
BUSY = ("database is locked", "starting up", "shutting down", "too many")  # as databases say it

# Psycopg waits for 130 s by default.
os.environ.setdefault("PGCONNECT_TIMEOUT", "10")
# What it says of a connection that failed is said here, in a line of our own.
logging.getLogger("psycopg").setLevel(logging.CRITICAL)


def file(uri: str) -> Path | None:
    """The file of the SQLite database at `uri`, which need not be there; None for any other store."""
    try:
        url = make_url(uri)
    except (SQLAlchemyError, ValueError):  # no URL of a database
        return None
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return None
    name = str(url.database)
    return Path(unquote(urlsplit(name).path) if "uri" in url.query else name).resolve()


def url(path: Path) -> str:
    """The address of the SQLite database in that file, encoded only where it would be read as another."""
    return "sqlite:///" + re.sub("%(?=[0-9A-Fa-f]{2})", "%25", str(path)).replace("?", "%3F")


def plain(uri: str) -> str:
    """`uri` with the path of a SQLite file as people write it, where it is percent-encoded.

    MLflow encodes the path of its default, and then makes folders of the encoded name.
    """
    path = file(uri) if "%" in uri and "?" not in uri else None
    return uri if path is None else url(path)


def prepare_store(uri: str) -> None:
    """`prepare` for the tracking store at `uri`, where that is a database."""
    if uri.partition(":")[0].partition("+")[0] in DATABASE_ENGINES:
        from mlflow.store.db.utils import Base  # here, as it takes a second that a server's client need not wait

        if (path := file(uri)) is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        prepare(uri, Base.metadata.tables, _make_store)


def _make_store(uri: str) -> None:
    from mlflow import db

    try:
        db.upgrade.main([uri], standalone_mode=False)
    except SQLAlchemyError:
        raise
    except Exception as error:  # of the library that MLflow changes tables with
        raise OSError(f"its tables cannot be made: {first_line(error)}") from None


def prepare(uri: str, tables: Collection[str], make: Callable[[str], None]) -> None:
    """Has the tables made in the database at `uri`, by `make`, unless they are all there.

    Processes that start at the same time wait for each other, and a new file appears when it is whole. Raises OSError,
    ImportError or SQLAlchemyError, within seconds, for a database that cannot be used.
    """
    path = file(uri)
    if _is_whole(uri, path, tables):
        return
    waits = nullcontext() if path is None else _alone(path)
    # A server undoes what the slower of two processes has begun.
    tries = Retrying(
        retry=retry_if_exception_type(SQLAlchemyError),
        stop=stop_after_attempt(MAKE_TRIES if path is None else 1),
        wait=wait_fixed(1),
        reraise=True,
    )
    with waits:
        tries(_make, uri, path, tables, make)


def _make(uri: str, path: Path | None, tables: Collection[str], make: Callable[[str], None]) -> None:
    if path is not None and not path.exists():
        _make_file(path, make)
        return
    if path is not None:
        _wait_until_quiet(path)
    if not _is_whole(uri, path, tables):
        make(uri)


def _make_file(path: Path, make: Callable[[str], None]) -> None:
    """Makes a new database under another name first, so that a process that is killed leaves no half of one."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.unlink(missing_ok=True)
        make(url(partial))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _wait_until_quiet(path: Path) -> None:
    """Waits for a process that does not know of our lock, such as a server of MLflow's that starts at the same time."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while 0 <= time.time() - path.stat().st_mtime < QUIET_SECONDS and time.monotonic() < deadline:
        time.sleep(0.2)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Within, no other process makes tables in the file. The system frees the lock of a process that dies."""
    file = path.with_name(f".{path.name}.lock")
    try:
        file.touch()  # FileLock waits for a folder that cannot be written to as for another process
    except OSError as error:
        raise OSError(f"{path.name} cannot be made in {path.parent}: {error.strerror}; name another place") from None
    lock = FileLock(file)
    try:
        _acquire(lock, path)
        yield
        file.unlink(missing_ok=True)  # who waits for it finds the tables there
    finally:
        lock.release()


def _acquire(lock: FileLock, path: Path) -> None:
    try:
        lock.acquire(timeout=1)
    except Timeout:
        say(f"waiting up to {PATIENCE_SECONDS} s for another process that makes {path}")
        try:
            lock.acquire(timeout=PATIENCE_SECONDS)
        except Timeout:
            raise TimeoutError(f"another process has been making {path} for {PATIENCE_SECONDS} s: end it") from None


def _is_whole(uri: str, path: Path | None, tables: Collection[str]) -> bool:
    if path is not None and not path.exists():
        return False
    engine = create_engine(uri, poolclass=NullPool)
    retrying = Retrying(
        retry=retry_if_exception(_is_busy),
        stop=stop_after_delay(PATIENCE_SECONDS),
        wait=wait_fixed(1),
        before_sleep=_say_once,
        reraise=True,
    )
    return set(tables) <= set(retrying(lambda: inspect(engine).get_table_names()))


def _is_busy(error: BaseException) -> bool:
    return isinstance(error, OperationalError) and any(words in first_line(error) for words in BUSY)


def _say_once(state: RetryCallState) -> None:
    if state.attempt_number == 1 and state.outcome is not None and (error := state.outcome.exception()):
        say(f"{first_line(error)}; trying for up to {PATIENCE_SECONDS} s")
