"""`make ui` as a person types it: it answers here, and nowhere else."""

import os
import signal
import subprocess
import time

import psutil
import requests

from tests.conftest import PROJECT, Workplace
from tests.tracking.servers import free_port


def test_make_ui_listens_on_loopback_alone(tmp_path):
    place, port = Workplace(tmp_path), free_port()
    process = subprocess.Popen(
        ["make", "--assume-old", ".venv/installed", "ui", f"PORT={port}"],
        cwd=PROJECT,
        env={**place.environment, "MLFLOW_BACKEND_STORE_URI": place.uri},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 90
        while True:
            try:
                answer = requests.get(f"http://127.0.0.1:{port}/", timeout=5)
                break
            except requests.RequestException:
                assert time.monotonic() < deadline
                time.sleep(0.3)
        listening = {
            connection.laddr.ip
            for child in psutil.Process(process.pid).children(recursive=True)
            for connection in child.net_connections()
            if connection.status == psutil.CONN_LISTEN
        }
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert "MLflow" in answer.text
    assert listening == {"127.0.0.1"}
