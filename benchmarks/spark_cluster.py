"""A Spark cluster on loopback, of separate processes: a master, and workers that have one core each."""

import os
import shutil
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

MASTER, WORKER = "org.apache.spark.deploy.master.Master", "org.apache.spark.deploy.worker.Worker"
START_SECONDS = 60


class Missing(ValueError):
    """Java or PySpark is not installed."""


class Cluster:
    """A context with a running cluster, which keeps its files in `folder`. Raises Missing if it cannot run here.

    url: for SparkSession. environment: variables for a program that uses the cluster.
    """

    def __init__(self, folder: Path, num_workers: int, memory: str = "2g") -> None:
        found = find_spec("pyspark")
        if found is None or found.origin is None:
            raise Missing("PySpark is not installed (the extra spark)")
        if shutil.which("java") is None:
            raise Missing("Java is not installed (Debian's package: default-jre-headless)")
        self._start_class = Path(found.origin).parent / "bin" / "spark-class"
        self._folder, self._num_workers, self._memory = folder, num_workers, memory
        self._started: list[subprocess.Popen[bytes]] = []
        self.url = f"spark://127.0.0.1:{free_port()}"
        self.environment = {
            **{"SPARK_LOCAL_IP": "127.0.0.1", "SPARK_LOCAL_HOSTNAME": "127.0.0.1", "SPARK_DAEMON_MEMORY": "256m"},
            **{"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_DIRS": str(folder / "scratch")},
        }

    def __enter__(self) -> "Cluster":
        host, port = self.url.removeprefix("spark://").split(":")
        here = ("--host", host, "--webui-port", "0")
        self._start("master", MASTER, *here, "--port", port)
        for number in range(self._num_workers):
            of_worker = ("--cores", "1", "--memory", self._memory, "--work-dir", str(self._folder / f"work{number}"))
            self._start(f"worker{number}", WORKER, *here, *of_worker, self.url)
        deadline = time.monotonic() + START_SECONDS
        while (self._folder / "master.log").read_text().count("Registering worker") < self._num_workers:
            if time.monotonic() > deadline or any(process.poll() is not None for process in self._started):
                self.__exit__()
                raise RuntimeError(f"the cluster does not start: see the logs in {self._folder}")
            time.sleep(0.2)
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._started):
            process.terminate()
        for process in self._started:
            process.wait(30)

    def _start(self, name: str, *words: str) -> None:
        with (self._folder / f"{name}.log").open("w") as log:
            # spark-class ends as the Java program that it turns into.
            command = [str(self._start_class), *words]
            self._started.append(
                subprocess.Popen(command, env={**os.environ, **self.environment}, stdout=log, stderr=log)
            )


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
