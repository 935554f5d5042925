"""The live page and /metrics over a large book: `PYTHONPATH=. python tests/benchmarks/bench_page.py [--accounts 100000]`.

The demo runs with so many accounts, ten prices a second of each instrument, before its crash begins. Printed: first paint and first rows in
Chromium; time between two updates of the board; time, size and series of a scrape.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import time
import urllib.request

from playwright.sync_api import sync_playwright

from tests.support.commands import path_of

__all__ = ["main"]

COUNT = """() => {
  window.updates = [];
  new MutationObserver(() => window.updates.push(performance.now())).observe(document.querySelector("#rows"),
    {subtree: true, childList: true, characterData: true});
}"""
GAPS = "() => window.updates.slice(1).map((at, n) => at - window.updates[n])"
PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


def main() -> int:
    """Prints the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--accounts", type=int, default=100_000)
    accounts = parser.parse_args().accounts
    if path_of("chromium") is None:
        print("left out: needs chromium on the PATH")
        return 0
    command = [sys.executable, "-m", "monitor", "demo", "--accounts", str(accounts), "--seconds", "120"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            address = next(found[0] for line in process.stdout if (found := re.search(r"http://127\.0\.0\.1:\d+", line)) is not None)
            scrape(address)
            show(address)
        finally:
            process.terminate()
            process.wait(30)
    return 0


def scrape(address: str) -> None:
    """Times /metrics."""
    times = []
    for _ in range(9):
        began = time.perf_counter()
        with urllib.request.urlopen(f"{address}/metrics", timeout=30) as answer:
            text = answer.read()
        times.append(time.perf_counter() - began)
    series = sum(not line.startswith(b"#") for line in text.splitlines())
    print(f"scrape: median {statistics.median(times) * 1e3:.1f} ms, worst {max(times) * 1e3:.1f} ms, {series} series, {len(text):,} bytes")


def show(address: str) -> None:
    """Times the page."""
    chromium = path_of("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for turn in range(3):
            page = browser.new_page()
            began = time.perf_counter()
            page.goto(address, wait_until="commit")
            page.locator("#rows tr").first.wait_for()
            rows = time.perf_counter() - began
            print(f"page: first paint {page.evaluate(PAINT):.0f} ms, first rows {rows * 1e3:.0f} ms")
            if turn < 2:
                page.close()
        page.evaluate(COUNT)
        page.wait_for_timeout(5_000)
        gaps = sorted(page.evaluate(GAPS))
        median, high = statistics.median(gaps), gaps[int(len(gaps) * 0.95)]
        print(f"updates: {len(gaps)} in 5 s, between two: median {median:.0f} ms, p95 {high:.0f} ms, worst {gaps[-1]:.0f} ms")
        browser.close()


if __name__ == "__main__":
    sys.exit(main())
