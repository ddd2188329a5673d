import shutil
import tempfile
from pathlib import Path

import pytest

from tests.tracking.postgres import Postgres


@pytest.fixture(scope="session")
def postgres():
    # Not below pytest's folder, which no other user may enter.
    folder = Path(tempfile.mkdtemp(prefix="pipeline-postgres-"))
    try:
        with Postgres(folder) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)
