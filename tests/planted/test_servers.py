"""A tracking server that lies is refused in one line, and no code from it runs."""

import json
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.planted.ground import TRAIN


class Liar(BaseHTTPRequestHandler):
    """A minimal MLflow server: it has one run, lists its artifacts as `listed`, and sends `content` for each."""

    run_id, listed, content, artifact_uri = "0" * 32, [], b"{}", "mlflow-artifacts:/0"

    def do_GET(self):
        self.answer()

    do_POST = do_GET

    def answer(self):
        path = self.path.partition("?")[0]
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        info = {"run_id": self.run_id, "run_uuid": self.run_id, "experiment_id": "0", "status": "FINISHED"}
        info |= {"artifact_uri": self.artifact_uri, "start_time": 0, "lifecycle_stage": "active"}
        run = {"info": info, "data": {"tags": [{"key": "step", "value": "train"}]}, "inputs": {}}
        experiment = {"experiment_id": "0", "name": "Default", "artifact_location": "mlflow-artifacts:/0"}
        if path.endswith("mlflow-artifacts/artifacts"):
            body = json.dumps({"files": self.listed if self.listed else []}).encode()
        elif "/mlflow-artifacts/artifacts/" in path:
            body = self.content
        else:
            body = json.dumps(
                {"run": run, "runs": [run], "experiment": {**experiment, "lifecycle_stage": "active"}}
            ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def liar(ground, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(ground.workplace.folder))  # downloads go there
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OneLiar", (Liar,), {}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(ground.workplace, "uri", f"http://127.0.0.1:{server.server_port}")
    yield server.RequestHandlerClass
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    "name",
    ["../../../home/x", "{ground}/home/x", "a/../../../../home/x", "..%2f..%2f..%2fhome%2fx", "..\\x", "%252e%252e/x"],
)
@pytest.mark.parametrize("is_dir", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_server_that_lists_paths_that_lead_elsewhere_is_refused(ground, liar, capsys, name, is_dir):
    liar.listed = [{"path": name.format(ground=ground.folder), "is_dir": is_dir, "file_size": 2}]
    refusal = ground.refused(capsys, "evaluate", run_id=liar.run_id)
    assert "params.json" in refusal or "its artifacts cannot be listed (Invalid path)" in refusal


def test_a_server_whose_files_are_pickles_is_refused(ground, liar, capsys):
    liar.content = ground.pickle
    assert "params.json cannot be read" in ground.refused(capsys, "evaluate", run_id=liar.run_id)


@pytest.mark.parametrize(
    "uri", ["file:///etc", "/etc", "../../x", "mlflow-artifacts:/../../x", "nowhere://x", "\x00", ""]
)
def test_a_server_that_names_another_artifact_folder_is_refused(ground, liar, capsys, uri):
    liar.artifact_uri = uri
    ground.refused(capsys, "evaluate", run_id=liar.run_id)


def test_a_server_whose_run_has_a_path_for_its_id_is_refused(ground, liar, capsys):
    liar.run_id = "../../../../../home/empty"
    ground.refused(capsys, "train", **TRAIN)
