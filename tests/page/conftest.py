"""The running demo and a real browser, for the tests of the live page."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.commands import path_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).resolve().parents[2]
ACCOUNTS, SYMBOLS, SECONDS = 48, 6, 60
"""All accounts fit on one page of the board; the crash begins after 10 s and lasts 30."""


class Demo:
    """A demo that runs: where its page is, and a way to make it stand still."""

    def __init__(self, address: str, process: subprocess.Popen[str]) -> None:
        self.address, self._process = address, process

    def freeze(self) -> None:
        """Stops the daemon in its tracks; connections stay open and silent."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets it go on."""
        os.kill(self._process.pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    """The demo, running."""
    size = ["--accounts", str(ACCOUNTS), "--symbols", str(SYMBOLS), "--seconds", str(SECONDS)]
    with subprocess.Popen(
        [sys.executable, "-m", "monitor", "demo", *size],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            said: list[str] = []
            address = None
            while address is None and (line := process.stdout.readline()):
                said.append(line)
                found = re.search(r"http://127\.0\.0\.1:\d+", line)
                address = None if found is None else found[0]
            assert address is not None, "".join(said)
            threading.Thread(target=process.stdout.read, name="demo's output", daemon=True).start()
            yield Demo(address, process)
        finally:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            process.wait(20)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium from the PATH, without a window."""
    driver: Any = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    chromium = path_of("chromium")
    if chromium is None:
        pytest.skip("needs chromium on the PATH")
    with driver.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        except driver.Error as error:  # unpacked beside us, it may lack what only an installation brings
            pytest.skip(f"chromium does not start: {str(error).splitlines()[0]}")
        yield browser
        browser.close()
