"""A workplace that shows whether a planted file was executed, and what the tests plant."""

import contextlib
import pickle
from pathlib import Path
from urllib.parse import urlparse

from tests.conftest import Workplace

TINY = {"experiment": "none", "limit_train": 120, "limit_test": 40, "batch_size": 32, "epochs": 2, "width": 4}
TRAIN = {**TINY, "max_lr": 0.01, "keep_checkpoints": "true"}
DEEP = b"[" * 100_000


class Payload:
    """An object whose pickle creates a file when it is loaded."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


class Ground:
    """A workplace in a larger folder, which shows whether code was executed or a file was written elsewhere."""

    def __init__(self, folder):
        self.folder = folder
        self.marker = folder / "executed"
        (folder / "home").mkdir()
        (folder / "home" / "diary").write_text("mine")
        (folder / "home" / "empty").mkdir()
        place = folder / "a" / "place"
        place.mkdir(parents=True)
        self.workplace = Workplace(place)

    @property
    def pickle(self):
        """A pickle that creates a marker file when it is loaded."""
        return pickle.dumps(Payload(self.marker))

    def elsewhere(self):
        """All files outside of the workplace, with their content."""
        outside = (path for path in self.folder.rglob("*") if not path.is_relative_to(self.workplace.folder))
        return {path: path.read_bytes() if path.is_file() else None for path in outside}

    @contextlib.contextmanager
    def untouched(self):
        before = self.elsewhere()
        yield
        assert not self.marker.exists()
        assert self.elsewhere() == before

    def refused(self, capsys, step, **params):
        """The only line of a step that is refused."""
        capsys.readouterr()
        with self.untouched():
            assert self.workplace.run(step, **params) == 2
        err = capsys.readouterr().err
        assert "Traceback" not in err
        errors = [line for line in err.splitlines() if line.startswith("error:")]
        assert [err.splitlines()[-1]] == errors
        return errors[0]

    def artifacts(self, run_id):
        """The folder of a run's artifacts."""
        return Path(urlparse(self.workplace.client.get_run(run_id).info.artifact_uri).path)
