"""A real tracking server on loopback that a test can stop, freeze and start again, and a proxy to it that can fail."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import requests
from mlflow import MlflowClient

from tests.conftest import Workplace, free_port


class Server:
    """A context with a running `mlflow server`, which has its database and artifacts in `folder`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        options = {
            "host": "127.0.0.1",
            "port": self.port,
            "workers": 1,
            "backend-store-uri": f"sqlite:///{self.folder}/server.db",
            "artifacts-destination": self.folder / "artifacts",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *words],
                cwd=self.folder,
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            with contextlib.suppress(requests.RequestException):
                if requests.get(f"{self.uri}/health", timeout=1).ok:
                    return
            time.sleep(0.2)
        raise AssertionError((self.folder / "log").read_text())

    def stop(self) -> None:
        """Kills the server, as a power cut would."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def freeze(self) -> None:
        """Lets the server hang: it takes connections but does not answer."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        parent = psutil.Process(self._process.pid)
        for process in (*parent.children(recursive=True), parent):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)


class Door:
    """A context with a proxy to a server. The proxy can fail."""

    def __init__(self, server: Server) -> None:
        self.recover()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self, server.uri))
        self.uri = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> "Door":
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def recover(self) -> None:
        self.fails_with, self.fails_at, self.says, self.loses_answers = 0, "", b"", None

    def fail(self, status: int = 500, says: str = "", to: str = "") -> None:
        """Answers with this status and text to every request whose path ends in `to`."""
        self.fails_with, self.says, self.fails_at = status, says.encode(), to

    def lose_answers(self, to: str = "") -> None:
        """Passes on every request whose path ends in `to`, but answers 500, so that a sender sends it again."""
        self.loses_answers = to


def _handler(door: Door, uri: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if door.fails_with and self.path.endswith(door.fails_at):
                self._answer(door.fails_with, door.says)
                return
            headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            answer = requests.request(self.command, uri + self.path, data=body, headers=headers, timeout=30)
            is_lost = door.loses_answers is not None and self.path.endswith(door.loses_answers)
            self._answer(500 if is_lost else answer.status_code, answer.content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on

        def _answer(self, status: int, body: bytes) -> None:
            with contextlib.suppress(OSError):
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


class ServedPlace(Workplace):
    """A workplace whose runs go to an experiment of its own on a server."""

    def __init__(self, folder: Path, uri: str) -> None:
        super().__init__(folder)
        self.uri = uri
        self.client = MlflowClient(uri)
        self.experiment_id = self.client.create_experiment(folder.name)
        self.environment |= {"MLFLOW_TRACKING_URI": uri, "MLFLOW_EXPERIMENT_ID": self.experiment_id}
