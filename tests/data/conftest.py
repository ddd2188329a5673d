"""Folders for the tests of images."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of decoded images, one for each test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "classifier-pipeline"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of a test's images, which does not exist yet."""
    return tmp_path / "images"
