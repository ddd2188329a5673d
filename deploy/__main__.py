"""Starts a team's server for a trial, on loopback: PostgreSQL and MLflow with a login. Ctrl-C stops both.

Everything is kept in one folder, so the next start finds the runs of the last one.
"""

import argparse
import json
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from deploy.postgres import Postgres

HERE = Path(__file__).resolve().parent
READY_SECONDS, STOP_SECONDS = 120, 10
ENDED = 1


def main() -> int:
    """Runs both servers until Ctrl-C. Returns 0, 1 if a server ended by itself, or 2 if one cannot start."""
    parser = argparse.ArgumentParser(prog="python -m deploy", description=__doc__)
    parser.add_argument("--folder", type=Path, default=HERE.parent / "server", help="for data, files and passwords")
    parser.add_argument("--port", type=int, default=5000, help="of MLflow")
    parser.add_argument("--database_port", type=int, default=5433, help="of PostgreSQL")
    asked = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):  # a scheduler, or a closed terminal
        signal.signal(number, signal.default_int_handler)
    try:
        folder = asked.folder.resolve()
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)  # PostgreSQL's user may pass through, if it is another
        with FileLock(folder / "lock", timeout=0):
            return _serve(folder, asked.port, asked.database_port)
    except Timeout:
        print(f"error: another process already serves {folder}", file=sys.stderr)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        return 0
    return 2


def _serve(folder: Path, port: int, database_port: int) -> int:
    for name, number in {"port": port, "database_port": database_port}.items():
        _check_free(name, number)
    known = _secrets(folder)
    data = folder / "postgres"
    data.mkdir(mode=0o700, exist_ok=True)
    with Postgres(data, database_port, known["database"]) as database:
        database.run_sql((HERE / "databases.sql").read_text())
        with _mlflow(folder, port, database_port, known) as process:
            _write(folder / "pgpass", f"127.0.0.1:{database_port}:*:team:{known['database']}\n")
            _write(folder / "environment", _environment(folder, port, known["admin"]))
            print(f"MLflow: http://127.0.0.1:{port} (user admin; the password is in {folder / 'environment'})")
            print("In another terminal:")
            print(f"    source {shlex.quote(str(folder / 'environment'))}")
            print(f"    mlflow run . -e sweep -P storage={database.address('studies')}", flush=True)
            process.wait()
    print(f"error: MLflow ended with status {process.returncode}: see {folder / 'mlflow.log'}", file=sys.stderr)
    return ENDED


def _check_free(name: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            raise ValueError(f"{name}={port}: {error}") from None


def _secrets(folder: Path) -> dict[str, str]:
    """The passwords of database and admin, and the key of MLflow's forms. The first start makes new ones."""
    path = folder / "secrets.json"
    if not path.exists():
        _write(path, json.dumps({name: secrets.token_hex(24) for name in ("database", "admin", "forms")}))
    return dict(json.loads(path.read_text()))


def _write(path: Path, text: str) -> None:
    """Writes a file that only this user can read."""
    path.touch(mode=0o600)
    path.write_text(text)


def _environment(folder: Path, port: int, password: str) -> str:
    variables = {
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}",
        "MLFLOW_TRACKING_USERNAME": "admin",
        "MLFLOW_TRACKING_PASSWORD": password,
        "PGPASSFILE": str(folder / "pgpass"),
    }
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())


@contextmanager
def _mlflow(folder: Path, port: int, database_port: int, known: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    options = {
        "app-name": "basic-auth",
        "host": "127.0.0.1",
        "port": port,
        "workers": 2,
        "backend-store-uri": "postgresql+psycopg:///mlflow",
        "artifacts-destination": folder / "artifacts",
    }
    variables = {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(database_port),
        "PGUSER": "team",
        "PGPASSWORD": known["database"],
        "MLFLOW_AUTH_CONFIG_PATH": str(HERE / "basic_auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": known["admin"],
        "MLFLOW_FLASK_SERVER_SECRET_KEY": known["forms"],
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    words = [f"--{name}={value}" for name, value in options.items()]
    with (folder / "mlflow.log").open("wb") as log:
        # In a session of its own: Ctrl-C reaches this process only, which then stops the servers in order.
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *words],
            cwd=folder,
            env={**os.environ, **variables},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait(process, port, folder / "mlflow.log")
        yield process
    finally:
        _stop(process)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise ValueError(f"MLflow did not start: see {log}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends MLflow and its workers."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(STOP_SECONDS)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


if __name__ == "__main__":
    sys.exit(main())
