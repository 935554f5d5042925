"""The dashboards and rules against the running demo, scraped by a real Prometheus."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from deploy.grafana.generate import DASHBOARDS
from monitor.service.metrics import CATALOGUE
from tests.support.commands import needs, path_of
from tests.support.prometheus import Prometheus, until
from tests.support.promql import named_series, with_variables

pytestmark = pytest.mark.xdist_group("demo")  # one demo, whatever the number of workers

_ROOT = Path(__file__).resolve().parents[2]
_RULES = _ROOT / "deploy" / "prometheus" / "rules" / "margin-monitor.yml"
_DEMO_S = 60
"""Longer than the tests need; the demo is ended with them."""


_PROCESS = ("process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds", "process_start_time_seconds")


class Running(NamedTuple):
    """The demo's address and the Prometheus that scrapes it."""

    address: str
    prometheus: Prometheus


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The demo, running, with a Prometheus beside it."""
    command = [sys.executable, "-m", "monitor", "demo", "--seconds", str(_DEMO_S)]
    with subprocess.Popen(
        command, cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        try:
            said = []
            for line in process.stdout:
                said.append(line)
                if (found := re.search(r"http://(127\.0\.0\.1:\d+)", line)) is not None:
                    break
            else:
                pytest.fail("the demo named no address: " + "".join(said))
            threading.Thread(target=process.stdout.read, name="demo's output", daemon=True).start()
            with Prometheus.running(tmp_path_factory.mktemp("prometheus"), found[1], _RULES) as prometheus:
                prometheus.wait_for_scrapes(3)
                yield Running(found[1], prometheus)
        finally:
            process.terminate()
            process.wait(20)


def _exposed(address: str) -> set[str]:
    """The metrics that have a sample, without the suffixes of histograms."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as reply:
        names = re.findall(r"^(margin_monitor_\w+)", reply.read().decode(), re.MULTILINE)
    histograms = {f"margin_monitor_{name}" for name, described in CATALOGUE.items() if described.kind == "histogram"}
    short = {name: re.sub(r"_(bucket|sum|count)$", "", name) for name in names}
    return {short[name] if short[name] in histograms else name for name in names}


def _empty(running: Running) -> list[str]:
    """Queries without an answer, though all metrics that they name have a sample."""
    exposed = _exposed(running.address)
    exposed |= {f"{name}_bucket" for name in exposed} | {"up", *_PROCESS}
    return [
        f"{name}: {panel['title']}: {target['expr']}"
        for name, board in DASHBOARDS.items()
        for panel in board["panels"]
        for target in panel.get("targets", [])
        if named_series(with_variables(target["expr"])) <= exposed and not running.prometheus.answer(with_variables(target["expr"]))
    ]


@needs("prometheus", "redis-server")
def test_every_metric_has_a_sample_from_the_start(demo: Running) -> None:
    """A counter that appears with its first count has no rate for it, and a panel without a sample is empty."""
    missing = {f"margin_monitor_{name}" for name in CATALOGUE} - _exposed(demo.address)

    assert missing == set()


@needs("prometheus", "redis-server")
def test_no_panel_is_empty(demo: Running) -> None:
    """Every query of every panel has an answer from a daemon at work."""
    until(lambda: not _empty(demo), within_s=25)

    assert _empty(demo) == []


@needs("prometheus", "redis-server")
def test_only_the_crash_is_reported(demo: Running) -> None:
    """A healthy daemon raises no alert about itself, in the middle of a crash of the market."""
    assert until(lambda: bool(demo.prometheus.answer('ALERTS{alertname="MarginMonitorLiquidationBurst"}')), within_s=30)

    firing = {alert["metric"]["alertname"] for alert in demo.prometheus.answer('ALERTS{alertstate="firing"}')}
    assert firing <= {"MarginMonitorWatchdog", "MarginMonitorLiquidationBurst"}
    assert [rule["name"] for rule in demo.prometheus.rules() if rule["health"] == "err"] == []


@needs("promtool", "prometheus", "redis-server")
def test_the_metrics_are_well_formed(demo: Running) -> None:
    """No word from promtool about names, help texts and units."""
    with urllib.request.urlopen(f"http://{demo.address}/metrics", timeout=10) as reply:
        exposition = reply.read()

    done = subprocess.run([path_of("promtool") or "", "check", "metrics"], input=exposition, capture_output=True, timeout=30, check=False)

    assert (done.returncode, done.stderr.decode() + done.stdout.decode()) == (0, "")
