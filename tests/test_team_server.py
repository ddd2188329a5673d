"""The team's server: `make server` end to end, nginx in front of it, and what the compose file starts."""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mlflow.cli
import pytest
import requests
import yaml
from mlflow import MlflowClient

from deploy.postgres import Missing, Postgres
from tests.conftest import PROJECT, Workplace, free_port

QUICK = {"experiment": "none", "limit_train": 200, "limit_test": 40, "batch_size": 32, "width": 4, "num_images": 2}
NAME = "mlflow.example.org"


def start(*words):
    return subprocess.Popen(
        [sys.executable, "-m", "deploy", *map(str, words)],
        cwd=PROJECT,
        # As in compose.yaml.
        env={
            **os.environ,
            "MLFLOW_SERVER_ALLOWED_HOSTS": f"{NAME},127.0.0.1:*",
            "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": f"https://{NAME}",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_server_that_cannot_start_is_refused_in_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = start("--folder", tmp_path, "--port", port)
        _, err = refused.communicate(timeout=60)
    assert refused.returncode == 2
    assert err == f"error: port={port}: [Errno 98] Address already in use\n"


def test_without_postgresql_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("deploy.postgres.FOLDERS", [])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Missing, match=r"^PostgreSQL is not installed \(Debian's package: postgresql\)$"):
        Postgres(tmp_path, 1)


def test_mlflow_takes_the_options_in_the_compose_file():
    services = yaml.safe_load((PROJECT / "deploy/compose.yaml").read_text())["services"]
    program, name, *options = services["mlflow"]["command"]
    taken = mlflow.cli.cli.commands[name].make_context(program, options)
    assert taken.params["app_name"] == "basic-auth"
    assert taken.params["serve_artifacts"]
    mounted = [volume.split(":")[0] for service in services.values() for volume in service["volumes"]]
    local = {name for name in mounted if name.startswith("./")} - {"./certificates"}
    assert all((PROJECT / "deploy" / name).is_file() for name in local)


@pytest.fixture(scope="module")
def team():
    """The folder of a running `make server`."""
    with tempfile.TemporaryDirectory(prefix="pipeline-team-") as made:
        folder = Path(made)
        folder.chmod(0o711)  # PostgreSQL's user must pass through; pytest's own folders admit nobody else
        try:
            Postgres(folder, 1)
        except Missing as missing:
            pytest.skip(str(missing))
        started = start("--folder", folder, "--port", free_port(), "--database_port", free_port())
        try:
            assert started.stdout.readline().startswith("MLflow: http://127.0.0.1:"), started.communicate()
            yield folder
        finally:
            started.send_signal(signal.SIGINT)
            started.communicate(timeout=60)
        assert started.returncode == 0


def environment(folder):
    """The variables that `source environment` sets."""
    lines = (folder / "environment").read_text().splitlines()
    return dict(shlex.split(line)[1].split("=", 1) for line in lines)


def run(place, step, **params):
    process = place.start(step, **params)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-3000:]


@pytest.mark.slow
def test_an_experiment_and_a_sweep_use_a_team_server(team, tmp_path, monkeypatch):
    variables = environment(team)
    uri = variables["MLFLOW_TRACKING_URI"]
    for path in ("mlflow/experiments/search?max_results=1", "mlflow-artifacts/artifacts"):
        assert requests.get(f"{uri}/api/2.0/{path}", timeout=10).status_code == 401
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    place = Workplace(tmp_path)
    place.environment |= variables
    place.client = MlflowClient(uri)

    run(place, "main", **QUICK, epochs=1)
    port = (team / "pgpass").read_text().split(":")[1]
    study = {"storage": f"postgresql+psycopg://team@127.0.0.1:{port}/studies", "study_name": "shared"}
    space = json.dumps({"max_lr": {"low": 0.01, "high": 0.1, "log": True}})
    run(place, "sweep", **QUICK, **study, space=space, epochs=1, num_trials=6, sweep_workers=2)

    runs = place.runs()
    assert {each.info.status for each in runs} == {"FINISHED"}
    assert {each.info.artifact_uri.partition("/")[0] for each in runs} == {"mlflow-artifacts:"}
    (experiment,), (sweep,) = place.runs("main"), place.runs("sweep")
    assert "report.html" in place.artifacts(experiment.info.run_id)
    assert (team / "artifacts" / "0" / experiment.info.run_id / "artifacts" / "report.html").is_file()
    assert len(place.runs("trial")) == 6
    assert "study.csv" in place.artifacts(sweep.info.run_id)
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow.db", "cache", "state"}  # nothing went to this disk
    secret = json.loads((team / "secrets.json").read_text())
    assert not [each for each in runs if any(word in str(each.to_dictionary()) for word in secret.values())]


@pytest.fixture
def proxy(team, tmp_path):
    """The address of nginx in front of the server, with the configuration in deploy/ and a certificate of its own."""
    nginx = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if not nginx or not shutil.which("openssl"):
        pytest.skip("nginx or openssl is not installed (Debian's packages: nginx-light, openssl)")
    words = f"req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN={NAME} -keyout server.key -out server.crt".split()
    words += ["-addext", f"subjectAltName=DNS:{NAME},IP:127.0.0.1"]
    subprocess.run(["openssl", *words], cwd=tmp_path, check=True, capture_output=True)
    ports = {80: free_port(), 443: free_port()}
    text = (PROJECT / "deploy/nginx.conf.template").read_text()
    for old, new in {
        "${SERVER_NAME}": NAME,
        "/etc/nginx/certificates": str(tmp_path),
        "http://mlflow:5000": environment(team)["MLFLOW_TRACKING_URI"],
        "listen 80": f"listen 127.0.0.1:{ports[80]}",
        "listen 443": f"listen 127.0.0.1:{ports[443]}",
    }.items():
        assert old in text
        text = text.replace(old, new)
    folders = "".join(f"{kind}_temp_path {tmp_path}/{kind};" for kind in ("client_body", "proxy", "fastcgi"))
    whole = f"pid {tmp_path}/pid; daemon off; events {{}} http {{ access_log off; {folders} {text} }}"
    Path(tmp_path / "nginx.conf").write_text(whole)
    process = subprocess.Popen([nginx, "-p", tmp_path, "-e", tmp_path / "log", "-c", tmp_path / "nginx.conf"])
    try:
        yield f"https://127.0.0.1:{ports[443]}", f"http://127.0.0.1:{ports[80]}"
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.slow
def test_nginx_passes_on_large_files_and_the_requests_of_the_page(team, proxy, tmp_path):
    secure, plain = proxy
    variables = environment(team)
    user = (variables["MLFLOW_TRACKING_USERNAME"], variables["MLFLOW_TRACKING_PASSWORD"])
    asked = {"headers": {"Host": NAME, "Origin": f"https://{NAME}"}, "timeout": 60}
    asked["verify"] = str(tmp_path / "server.crt")
    deadline = time.monotonic() + 20
    while True:
        try:
            moved = requests.get(f"{plain}/x", headers={"Host": NAME}, allow_redirects=False, timeout=10)
            break
        except requests.ConnectionError:
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
    assert (moved.status_code, moved.headers["Location"]) == (301, f"https://{NAME}/x")
    search = f"{secure}/ajax-api/2.0/mlflow/runs/search"
    assert requests.post(search, json={"experiment_ids": ["0"]}, **asked).status_code == 401
    assert requests.post(search, json={"experiment_ids": ["0"]}, auth=user, **asked).ok
    stranger = {**asked, "headers": {"Host": NAME, "Origin": "https://elsewhere.example.org"}}
    assert requests.post(search, json={"experiment_ids": ["0"]}, auth=user, **stranger).status_code == 403
    content = os.urandom(3 << 20)
    file = f"{secure}/api/2.0/mlflow-artifacts/artifacts/0/{'a' * 32}/artifacts/model.bin"
    assert requests.put(file, data=content, auth=user, **asked).ok
    assert requests.get(file, auth=user, **asked).content == content
