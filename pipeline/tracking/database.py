"""The database of a tracking store or of Optuna studies: finds its file, checks it, and creates its tables once.

MLflow and Optuna create their tables when they first open a database. If two processes do so at the same time, they
break a SQLite file for good. If MLflow cannot reach a database, it tries for two minutes without a message.
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

PATIENCE_SECONDS = 120  # for a database that is busy, or that another process is creating
QUIET_SECONDS = 3  # if a file has not changed for so long, nobody is creating tables in it
MAKE_TRIES = 5  # if several processes create tables on a server at the same time, all but one fail at first
BUSY = ("database is locked", "starting up", "shutting down", "too many")  # words of the databases' own messages

# Psycopg waits for 130 s by default.
os.environ.setdefault("PGCONNECT_TIMEOUT", "10")
# This project reports a failed connection in one line of its own.
logging.getLogger("psycopg").setLevel(logging.CRITICAL)


def file(uri: str) -> Path | None:
    """The file of the SQLite database at `uri`, whether or not it exists; None for any other store."""
    try:
        url = make_url(uri)
    except (SQLAlchemyError, ValueError):  # not the URL of a database
        return None
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return None
    name = str(url.database)
    return Path(unquote(urlsplit(name).path) if "uri" in url.query else name).resolve()


def url(path: Path) -> str:
    """The address of the SQLite database in `path`. Only characters that would change the meaning are encoded."""
    return "sqlite:///" + re.sub("%(?=[0-9A-Fa-f]{2})", "%25", str(path)).replace("?", "%3F")


def plain(uri: str) -> str:
    """`uri` with the percent-encoded path of a SQLite file decoded; any other `uri` unchanged.

    MLflow encodes the path of its default store, and then creates folders with the encoded name.
    """
    path = file(uri) if "%" in uri and "?" not in uri else None
    return uri if path is None else url(path)


def prepare_store(uri: str) -> None:
    """Creates the tables of the tracking store at `uri` if it is a database without them; see `prepare`."""
    if uri.partition(":")[0].partition("+")[0] in DATABASE_ENGINES:
        from mlflow.store.db.utils import Base  # not at the top: it takes a second, and a server's client does without

        if (path := file(uri)) is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        prepare(uri, Base.metadata.tables, _make_store)


def _make_store(uri: str) -> None:
    from mlflow import db

    try:
        db.upgrade.main([uri], standalone_mode=False)
    except SQLAlchemyError:
        raise
    except Exception as error:  # from Alembic, with which MLflow changes tables
        raise OSError(f"its tables cannot be created: {first_line(error)}") from None


def prepare(uri: str, tables: Collection[str], make: Callable[[str], None]) -> None:
    """Calls `make` to create the tables in the database at `uri`, unless they all exist.

    Processes that start at the same time wait for each other. A new file appears only when it is complete. Raises
    OSError, ImportError or SQLAlchemyError within seconds if the database cannot be used.
    """
    path = file(uri)
    if _has_tables(uri, path, tables):
        return
    waits = nullcontext() if path is None else _exclusive(path)
    # If two processes create tables on a server at the same time, it rolls back the slower one.
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
    if not _has_tables(uri, path, tables):
        make(uri)


def _make_file(path: Path, make: Callable[[str], None]) -> None:
    """Creates a new database under another name first, so that a killed process leaves no incomplete database."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.unlink(missing_ok=True)
        make(url(partial))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _wait_until_quiet(path: Path) -> None:
    """Waits for a program that does not use our lock, such as an MLflow server that starts at the same time."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while 0 <= time.time() - path.stat().st_mtime < QUIET_SECONDS and time.monotonic() < deadline:
        time.sleep(0.2)


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Inside this context, no other process creates tables in the file. The system frees the lock of a dead process."""
    file = path.with_name(f".{path.name}.lock")
    try:
        file.touch()  # if the folder is not writable, FileLock would wait as if another process held the lock
    except OSError as error:
        raise OSError(
            f"{path.name} cannot be created in {path.parent} ({error.strerror}): choose another folder"
        ) from None
    lock = FileLock(file)
    try:
        _acquire(lock, path)
        yield
        file.unlink(missing_ok=True)  # a process that waits for it finds the tables complete
    finally:
        lock.release()


def _acquire(lock: FileLock, path: Path) -> None:
    try:
        lock.acquire(timeout=1)
    except Timeout:
        say(f"waiting up to {PATIENCE_SECONDS} s for another process that creates {path}")
        try:
            lock.acquire(timeout=PATIENCE_SECONDS)
        except Timeout:
            raise TimeoutError(f"another process has been creating {path} for {PATIENCE_SECONDS} s: end it") from None


def _has_tables(uri: str, path: Path | None, tables: Collection[str]) -> bool:
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
        say(f"{first_line(error)}; trying again for up to {PATIENCE_SECONDS} s")
