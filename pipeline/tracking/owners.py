"""Who owns a run. A run of somebody else could make this user read and send their own private files.

`latest` and `auto` take only the user's own runs. A run is the user's own if a seal among its tags was made with the
key in this user's state folder. The names of user and host are tags too, but anybody who can write to the store can
write them. A second seal covers the parameters, so that changes by others in params.json are noticed. If only this user
can write to the local database, every run in it is their own, also a run of an earlier version without a seal.

Another machine has a key of its own, and so has a CI job that starts with an empty state folder. They must name runs by
their ids. To be the same owner everywhere, copy `owner.key` to the other machine, or keep the state folder across jobs.
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
SEAL, PARAMS_SEAL = f"{processes.HIDDEN_PREFIX}owner.seal", f"{processes.HIDDEN_PREFIX}params.seal"
WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def seal(run_id: str) -> dict[str, str]:
    """The tag that proves that this user started a run."""
    return {SEAL: _seal(_key(), run_id, "")}


def seal_of_params(run_id: str, params: Mapping[str, Any]) -> dict[str, str]:
    """The tag that proves that this user wrote the run's params.json."""
    return {PARAMS_SEAL: _seal(_key(), run_id, _canonical(params))}


def is_own(run: StoredRun) -> bool:
    """Whether this user started the run."""
    return is_private() or _is_sealed(run, SEAL, "")


def wrote_params(run: StoredRun, params: Mapping[str, Any]) -> bool:
    """Whether this user wrote `params`, which were read from the run's params.json."""
    return is_private() or _is_sealed(run, PARAMS_SEAL, _canonical(params))


def name(run: StoredRun) -> str:
    """The user and host that the run's tags name, in words. The tags may be wrong."""
    tags = processes.of_tags(run.data.tags)
    user, host = tags.get("user") or "an unknown user", tags.get("process.host")
    return f"{user} on {host}" if host else user


def is_private() -> bool:
    """Whether only this user can write to the store: both the file and its folder are theirs."""
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
    except OSError:  # a user without a key has sealed nothing
        return False
    return hmac.compare_digest(run.data.tags.get(tag, "").encode(), _seal(key, str(run.info.run_id), text).encode())


def _seal(key: bytes, run_id: str, text: str) -> str:
    return hmac.new(key, f"{run_id}\n{text}".encode(), hashlib.sha256).hexdigest()


def _canonical(params: Mapping[str, Any]) -> str:
    return json.dumps(all_without_passwords(json.loads(json.dumps(dict(params)))), sort_keys=True)


def _key_file() -> Path:
    return disk.state_folder() / KEY


def _key() -> bytes:
    """32 bytes that only this user can read, created when they are first needed."""
    path = _key_file()
    if not path.exists():
        made = path.with_name(f".{KEY}.{os.getpid()}")
        made.touch(mode=0o600)
        made.write_bytes(secrets.token_bytes(32))
        with suppress(FileExistsError):  # another process was faster: all processes use its key
            os.link(made, path)
        made.unlink()
    return path.read_bytes()
