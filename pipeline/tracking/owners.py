"""Whose a run is: what a person did not start may lead them to read and send what is theirs alone.

`latest` and `auto` take own runs only. A run is own where a seal among its tags was made with the key in this user's
state folder: names of user and host are tags too, but whoever can write to the store can write those. A second seal is
of the parameters, so that another's hand in params.json shows. Nobody else can write to a local database that only this
user may write to: there every run is own, also one of an earlier version, which has no seal.

Another machine, and a job of a CI service that begins with an empty state folder, have keys of their own, and so name
runs by their ids. Where `owner.key` is copied to the other machine, or the state folder is kept between jobs, all of
them are the same owner.
"""

import hashlib
import hmac
import json
import os
import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlflow.entities import Run as StoredRun

from pipeline import disk
from pipeline.text import all_without_passwords
from pipeline.tracking import database, processes, store

KEY = "owner.key"
SEAL, PARAMS_SEAL = f"{processes.UNSEEN}owner.seal", f"{processes.UNSEEN}params.seal"
WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def seal(run_id: str) -> dict[str, str]:
    """The tag that shows that this user started a run."""
    return {SEAL: _seal(_key(), run_id, "")}


def seal_of_params(run_id: str, params: Mapping[str, Any]) -> dict[str, str]:
    """The tag that shows that this user wrote the run's params.json."""
    return {PARAMS_SEAL: _seal(_key(), run_id, _canonical(params))}


def is_own(run: StoredRun) -> bool:
    """Whether this user started the run."""
    return is_private() or _is_sealed(run, SEAL, "")


def wrote(run: StoredRun, params: Mapping[str, Any]) -> bool:
    """Whether `params`, read from the run's params.json, are as this user wrote them."""
    return is_private() or _is_sealed(run, PARAMS_SEAL, _canonical(params))


def name(run: StoredRun) -> str:
    """Whose the run says that it is, in words."""
    tags = processes.of_tags(run.data.tags)
    user, host = tags.get("user") or "an unknown user", tags.get("process.host")
    return f"{user} on {host}" if host else user


def is_private() -> bool:
    """Whether nobody but this user can write to the store: a file of theirs, in a folder of theirs."""
    file = database.file(store.uri())
    if file is None:
        return False
    try:
        found = [file.parent.stat(), *([file.stat()] if file.exists() else [])]
    except OSError:
        return False
    return all(each.st_uid == os.getuid() and not each.st_mode & WRITABLE_BY_OTHERS for each in found)


def _is_sealed(run: StoredRun, tag: str, text: str) -> bool:
    try:
        key = _key_file().read_bytes()
    except OSError:  # who has no key has sealed nothing
        return False
    return hmac.compare_digest(run.data.tags.get(tag, "").encode(), _seal(key, str(run.info.run_id), text).encode())


def _seal(key: bytes, run_id: str, text: str) -> str:
    return hmac.new(key, f"{run_id}\n{text}".encode(), hashlib.sha256).hexdigest()


def _canonical(params: Mapping[str, Any]) -> str:
    return json.dumps(all_without_passwords(json.loads(json.dumps(dict(params)))), sort_keys=True)


def _key_file() -> Path:
    return disk.state_folder() / KEY


def _key() -> bytes:
    """32 bytes that only this user can read, made when they are first needed."""
    path = _key_file()
    if not path.exists():
        made = path.with_name(f".{KEY}.{os.getpid()}")
        made.touch(mode=0o600)
        made.write_bytes(secrets.token_bytes(32))
        with suppress(FileExistsError):  # another process was faster, and its key is everybody's
            os.link(made, path)
        made.unlink()
    return path.read_bytes()
