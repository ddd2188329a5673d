"""The built site: its links are checked, its search works, and it loads nothing from other hosts."""

import shutil
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from reference import site
from reference.__main__ import PAGES
from tests.browser import needs_chromium, window
from tests.conftest import PROJECT


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def build(folder):
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of all that a build reads."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(PROJECT / "docs", folder / "docs", ignore=shutil.ignore_patterns(*PAGES))
    shutil.copy(PROJECT / "zensical.toml", folder)
    for name, page in PAGES.items():
        (folder / "docs" / name).write_text(page())
    return folder


@pytest.fixture(scope="module")
def built(project):
    """The copy, with the built site in it."""
    done = build(project)
    assert done.returncode == 0, done.stdout + done.stderr
    return project


def test_the_site_is_without_faults(built):
    assert site.faults(built) == []


BROKEN = {
    "[a](nothing.md)": "page does not exist",
    "[a](start.md#nothing)": "anchor does not exist",
    "[a][nothing]": "unresolved link reference",
}


def test_broken_links_fail_the_build_and_are_named(project, tmp_path):
    shutil.copytree(project, tmp_path / "broken", ignore=shutil.ignore_patterns("site", ".cache", "*.png"))
    with (tmp_path / "broken/docs/index.md").open("a") as page:
        page.write("\n" + "\n".join(BROKEN) + "\n")
    done = build(tmp_path / "broken")
    assert done.returncode != 0
    for words in ("3 issues found", *BROKEN.values()):
        assert words in done.stdout + done.stderr


@needs_chromium
@pytest.mark.browser
def test_the_search_of_the_site_finds_a_parameter_and_asks_no_other_host(built):
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=built / "site")) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        with window(f"http://127.0.0.1:{server.server_port}/") as opened:
            opened.open("index.html", "One command finds the learning rate")
            opened.page.keyboard.press("/")
            opened.page.keyboard.type("ladder_steps")
            opened.sees("20 to 10,000")
            assert opened.complaints == []
        server.shutdown()
