"""`make ui` as a person starts it, and Chromium to look at it."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest
import requests

from pictures.browser import CHROMIUM, LOOK_MS
from tests.conftest import PROJECT, Workplace, free_port

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")

NOT_OURS = "/mlflow/users/current"  # MLflow's page requests this, but its server does not know it without accounts


class Ui:
    """A running `make ui` for a workplace's store."""

    def __init__(self, place: Workplace) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self.process = subprocess.Popen(
            ["make", "--assume-old", ".venv/installed", "ui", f"PORT={self.port}"],
            cwd=PROJECT,
            env={
                **place.environment,
                "MLFLOW_BACKEND_STORE_URI": place.uri,
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def __enter__(self) -> "Ui":
        deadline = time.monotonic() + 90
        while True:
            with contextlib.suppress(requests.RequestException):
                requests.get(self.url, timeout=5)
                return self
            assert time.monotonic() < deadline
            time.sleep(0.3)

    def __exit__(self, *_: object) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Window:
    """A page and the pages opened from it. Records their faults: errors, dialogs, failed or foreign requests."""

    def __init__(self, context, url: str) -> None:
        self.complaints: list[str] = []
        self.url = url
        context.set_default_timeout(LOOK_MS)
        context.route(lambda asked: not asked.startswith((url, "data:", "blob:")), self._refuse)
        context.on("weberror", lambda error: self.complaints.append(f"error: {error.error}"))
        context.on("dialog", self._dismiss)
        context.on("response", self._check)
        self.page = context.new_page()

    def open(self, path: str, *texts: str) -> None:
        """Opens a page of the UI and waits until it shows the texts."""
        self.page.goto("about:blank")  # otherwise a change after # alone loads nothing
        self.page.goto(self.url + path)
        self.sees(*texts)

    def follow(self, link: str) -> None:
        """Clicks on a link of a description, and continues with the page that it opens."""
        with self.page.context.expect_page() as opened:
            self.page.get_by_role("link", name=link, exact=True).click()
        self.page = opened.value

    def sees(self, *texts: str) -> None:
        """Waits until the page shows the texts."""
        for text in texts:
            self.page.get_by_text(text).first.wait_for()

    def _refuse(self, route) -> None:
        self.complaints.append(f"request to {route.request.url}")
        route.abort()

    def _dismiss(self, dialog) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _check(self, response) -> None:
        if response.status >= 400 and NOT_OURS not in response.url:
            self.complaints.append(f"{response.status} for {response.url}")


@contextlib.contextmanager
def window(url: str, width: int = 1400, height: int = 800) -> Iterator[Window]:
    """A page of a new Chromium on `url`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Without the sandbox, which Chromium refuses for root; it opens only our own pages here.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": width, "height": height})
        # MLflow's assistant opens on the first visit and covers a quarter of the page.
        context.add_init_script(
            "if (location.host) localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"
        )
        try:
            yield Window(context, url)
        finally:
            browser.close()
