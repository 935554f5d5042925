"""A real Prometheus on a free loopback port, that scrapes one address each second and evaluates the shipped rules."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from tests.support.commands import running
from tests.support.mosquitto import free_port

__all__ = ["Prometheus", "until"]


def until(condition: Callable[[], bool], *, within_s: float = 30.0) -> bool:
    """Asks again until the condition holds; False when it does not in time. An answer that cannot be had yet is a no."""
    deadline = time.monotonic() + within_s
    pause = threading.Event()
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, urllib.error.HTTPError):
            if condition():
                return True
        pause.wait(0.1)
    return False


class Prometheus:
    """One server."""

    def __init__(self, address: str) -> None:
        self._address = address

    @classmethod
    @contextlib.contextmanager
    def running(cls, folder: Path, target: str, rules: Path) -> Iterator[Self]:
        """Runs while the block lasts. `target` is host:port of what is scraped, as job margin-monitor."""
        port = free_port()
        job = {"job_name": "margin-monitor", "static_configs": [{"targets": [target]}]}
        interval = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        settings = {"global": interval, "rule_files": [str(rules)], "scrape_configs": [job]}
        (folder / "prometheus.yml").write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
        where = (f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}")
        with running("prometheus", *where):
            yield cls(f"http://127.0.0.1:{port}")

    def wait_for_scrapes(self, count: int) -> None:
        """Returns when the target was scraped so often."""
        assert until(lambda: any(float(found["value"][1]) >= count for found in self.answer("count_over_time(up[1m])"))), "no scrapes"

    def answer(self, expression: str) -> list[dict[str, Any]]:
        """The result of an instant query. An error of the query is one here."""
        found = self._get(f"query?{urllib.parse.urlencode({'query': expression})}")
        result = found["result"]
        assert isinstance(result, list)
        return result

    def rules(self) -> list[dict[str, Any]]:
        """All rules, as the server sees them."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self._address}/api/v1/{path}", timeout=10) as reply:
            found = json.load(reply)
        assert found["status"] == "success", found
        data = found["data"]
        assert isinstance(data, dict)
        return data
