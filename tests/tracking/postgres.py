"""A PostgreSQL server for the tests, on loopback, if PostgreSQL is installed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.tracking.servers import free_port

FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name)


class Postgres:
    """A context with a running server, which has its data in `folder`."""

    def __init__(self, folder: Path) -> None:
        found = shutil.which("initdb") or (str(FOLDERS[-1] / "initdb") if FOLDERS else "")
        if not found:
            pytest.skip("PostgreSQL is not installed")
        self._bin = Path(found).resolve().parent
        self._user = []
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            # Not every PATH has the folders of system programs.
            self._user = [shutil.which("runuser") or "/usr/sbin/runuser", "-u", "postgres", "--"]
            shutil.chown(folder, "postgres")
        self._folder = folder
        self._port = free_port()
        self._num_databases = 0

    def __enter__(self) -> "Postgres":
        self._command("initdb", "-D", self._folder / "data", "-A", "trust", "-U", "me")
        options = f"-p {self._port} -h 127.0.0.1 -k '' -c fsync=off"
        log = self._folder / "log"
        self._command("pg_ctl", "-D", self._folder / "data", "-o", options, "-l", log, "-w", "start")
        return self

    def __exit__(self, *_: object) -> None:
        self._command("pg_ctl", "-D", self._folder / "data", "-m", "immediate", "stop")

    def new_database(self) -> str:
        """The address of an empty database."""
        self._num_databases += 1
        name = f"runs_{self._num_databases}"
        self._command("createdb", "-h", "127.0.0.1", "-p", self._port, "-U", "me", name)
        return f"postgresql+psycopg://me@127.0.0.1:{self._port}/{name}"

    def _command(self, name: str, *words: object) -> None:
        done = subprocess.run(
            [*self._user, self._bin / name, *map(str, words)],
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert done.returncode == 0, done.stderr
