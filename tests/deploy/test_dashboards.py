"""The Grafana dashboards: up to date with their generator, complete, and every query answered by a real Prometheus."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.grafana.generate import DASHBOARDS, FOLDER, render
from monitor.measures import Durations
from monitor.service.metrics import CATALOGUE, Exposition, Sample
from tests.support.commands import needs
from tests.support.prometheus import Prometheus
from tests.support.promql import named_series, unknown_names, with_variables

_ROOT = Path(__file__).resolve().parents[2]
_RULES = _ROOT / "deploy" / "prometheus" / "rules" / "margin-monitor.yml"


def _panels(name: str) -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARDS[name]["panels"] if panel["type"] != "row"]


def _queries() -> list[tuple[str, str, str]]:
    return [(name, panel["title"], target["expr"]) for name in DASHBOARDS for panel in _panels(name) for target in panel["targets"]]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_the_committed_dashboard_is_what_the_generator_writes(name: str) -> None:
    """`make generated` was run after the last change, and the file is JSON."""
    text = (FOLDER / name).read_text(encoding="utf-8")

    assert text == render(DASHBOARDS[name])
    assert json.loads(text)["title"] == DASHBOARDS[name]["title"]


def test_no_other_dashboard_is_provisioned() -> None:
    """The folder holds what the generator writes and nothing else, each with an identifier of its own."""
    assert {path.name for path in FOLDER.glob("*.json")} == set(DASHBOARDS)
    assert len({board["uid"] for board in DASHBOARDS.values()}) == len(DASHBOARDS)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_panel_is_complete(name: str) -> None:
    """A title, a sentence that tells what it shows, a unit, and the chosen datasource."""
    for panel in _panels(name):
        assert panel["title"] and panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"].get("unit") or panel["options"]["yAxis"]["unit"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
    titles = [panel["title"] for panel in _panels(name)]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_do_not_overlap_and_stay_on_the_grid(name: str) -> None:
    """Every cell of the 24 columns belongs to at most one panel."""
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARDS[name]["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    ids = [panel["id"] for panel in DASHBOARDS[name]["panels"]]
    assert len(set(ids)) == len(ids)


def test_variables_choose_datasource_venue_and_group() -> None:
    """Risk by venue and group, feeds by venue, alerts by sink; every variable is used."""
    names = {file: [variable["name"] for variable in board["templating"]["list"]] for file, board in DASHBOARDS.items()}

    assert names == {
        "risk.json": ["datasource", "venue", "group"],
        "feeds.json": ["datasource", "venue"],
        "engine-and-alerts.json": ["datasource", "sink"],
    }
    for file, variables in names.items():
        expressions = " ".join(target["expr"] for panel in _panels(file) for target in panel["targets"])
        assert all(f"${variable}" in expressions for variable in variables if variable != "datasource")


@pytest.mark.parametrize(("name", "title", "expression"), _queries())
def test_every_query_is_promql_in_the_words_of_the_catalogue(name: str, title: str, expression: str) -> None:
    """It parses, and its metrics and labels exist and are used as what they are."""
    assert list(unknown_names(with_variables(expression))) == [], f"{name}: {title}"


def test_every_metric_is_shown_or_watched() -> None:
    """A metric that nobody looks at is not worth its series."""
    rules = [rule["expr"] for group in yaml.safe_load(_RULES.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]
    seen = {
        name
        for expression in (*rules, *(expression for _, _, expression in _queries()))
        for name in named_series(with_variables(expression))
    }
    histograms = {f"margin_monitor_{name}" for name, described in CATALOGUE.items() if described.kind == "histogram"}
    shown = {name.removesuffix("_bucket") if name.removesuffix("_bucket") in histograms else name for name in seen}

    assert {f"margin_monitor_{name}" for name in CATALOGUE} - shown == set()


_LABEL_VALUES = {"kind": "level", "temperature": "hot"}
_LEVELS = ("healthy", "watch", "margin_call", "liquidation", "bankrupt")


def _samples() -> Iterator[Sample]:
    """One sample of every metric, rising with time, so that rates are above zero."""
    now = time.time()
    for name, described in CATALOGUE.items():
        labels = tuple(_LABEL_VALUES.get(label, f"some-{label}") for label in described.labels)
        value: float | Durations = now % 1e6
        if described.kind == "histogram":
            value = Durations()
            for _ in range(int(now * 50) % 100_000):
                value.count += 1
            value.counts[40] = value.count
            value.total = float(value.count)
        elif name == "feed_connected":
            value = 0.0  # so that the count of those which are not has something to count
        if "level" in described.labels:
            for level in _LEVELS:
                yield Sample(
                    name, value, tuple(level if label == "level" else of for label, of in zip(described.labels, labels, strict=True))
                )
        else:
            yield Sample(name, value, labels)


class _Scraped(BaseHTTPRequestHandler):
    """Serves the real exposition with a sample of every metric."""

    exposition = Exposition([_samples])

    def do_GET(self) -> None:
        """Answers a scrape."""
        body, content_type = self.exposition.text(self.headers.get("Accept", ""))
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        """Keeps quiet."""


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A real Prometheus that scrapes a sample of every metric and evaluates the shipped rules."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Scraped) as target:
        threading.Thread(target=target.serve_forever, name="scraped", daemon=True).start()
        with Prometheus.running(tmp_path_factory.mktemp("prometheus"), f"127.0.0.1:{target.server_address[1]}", _RULES) as server:
            server.wait_for_scrapes(3)
            yield server
        target.shutdown()


@needs("prometheus")
@pytest.mark.xdist_group("dashboards")
def test_every_panel_shows_something(prometheus: Prometheus) -> None:
    """With a sample of every metric, no query of any panel is empty or in error."""
    empty = [(name, title, expression) for name, title, expression in _queries() if not prometheus.answer(with_variables(expression))]

    assert empty == []


@needs("prometheus")
@pytest.mark.xdist_group("dashboards")
def test_prometheus_evaluates_every_rule(prometheus: Prometheus) -> None:
    """A running Prometheus takes the rules, and none of them is in error."""
    rules = prometheus.rules()

    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] == "err"] == []
    assert len(rules) == sum(len(group["rules"]) for group in yaml.safe_load(_RULES.read_text(encoding="utf-8"))["groups"])
