"""A PostgreSQL server on loopback, from the system's packages."""

import os
import shutil
import subprocess
from pathlib import Path

FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))  # Debian
USER = "team"


class Missing(ValueError):
    """PostgreSQL is not installed."""


class Postgres:
    """A context with a running server, which keeps its data in `folder`.

    password: of the user USER; if it is empty, every user of this machine may connect.
    settings: more options of `postgres`.
    Raises Missing if PostgreSQL is not installed, ValueError if one of its programs fails.
    """

    def __init__(self, folder: Path, port: int, password: str = "", settings: str = "") -> None:
        found = shutil.which("initdb") or (str(FOLDERS[-1] / "initdb") if FOLDERS else "")
        if not found:
            raise Missing("PostgreSQL is not installed (Debian's package: postgresql)")
        self._programs = Path(found).resolve().parent
        self._folder, self._data = folder, folder / "data"
        self._port, self._password, self._settings = port, password, settings
        self._user = []
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            # Not every PATH has the folders of system programs.
            self._user = [shutil.which("runuser") or "/usr/sbin/runuser", "-u", "postgres", "--"]
            shutil.chown(folder, "postgres")

    def __enter__(self) -> "Postgres":
        if not (self._data / "PG_VERSION").exists():
            self._create()
        options = f"-p {self._port} -h 127.0.0.1 -k '' {self._settings}"
        # The log is a file: a pipe would stay open as long as the server runs.
        self._call("pg_ctl", "-D", self._data, "-o", options, "-l", self._folder / "log", "-w", "start")
        return self

    def __exit__(self, *_: object) -> None:
        self._call("pg_ctl", "-D", self._data, "-m", "fast", "-w", "stop")

    def new_database(self, name: str) -> str:
        """The address of the new, empty database `name`."""
        self.run_sql(f"CREATE DATABASE {name}")
        return self.address(name)

    def address(self, name: str) -> str:
        """The address of database `name`, without the password."""
        return f"postgresql+psycopg://{USER}@127.0.0.1:{self._port}/{name}"

    def run_sql(self, commands: str) -> None:
        """Runs SQL commands in the database `postgres`."""
        connection = ("-h", "127.0.0.1", "-p", self._port, "-U", USER, "-d", "postgres")
        self._call("psql", *connection, "-X", "-q", "-v", "ON_ERROR_STOP=1", given=commands)

    def _create(self) -> None:
        words = ["-A", "trust"]
        password = self._folder / "password"
        if self._password:
            password.touch(mode=0o600)
            password.write_text(f"{self._password}\n")
            if self._user:
                shutil.chown(password, "postgres")
            words = ["-A", "scram-sha-256", f"--pwfile={password}"]
        try:
            self._call("initdb", "-D", self._data, "-U", USER, "-E", "UTF8", *words)
        finally:
            password.unlink(missing_ok=True)

    def _call(self, program: str, *words: object, given: str = "") -> None:
        done = subprocess.run(
            [*self._user, self._programs / program, *map(str, words)],
            cwd="/",
            env={**os.environ, "PGPASSWORD": self._password},
            input=given,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if done.returncode:
            raise ValueError(f"PostgreSQL's {program} failed: {' '.join(done.stderr.split()) or self._last_line()}")

    def _last_line(self) -> str:
        try:
            return (self._folder / "log").read_text().splitlines()[-1]
        except (OSError, IndexError):
            return "it gave no reason"
