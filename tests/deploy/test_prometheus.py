"""The alert rules: accepted by promtool, tested one by one, in the words of the catalogue, each with its runbook."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitor.service.metrics import CATALOGUE
from tests.support.commands import needs, output_of
from tests.support.promql import named_series, unknown_names

_ROOT = Path(__file__).resolve().parents[2]
_PROMETHEUS = _ROOT / "deploy" / "prometheus"
_RULES = _PROMETHEUS / "rules" / "margin-monitor.yml"
_CASES = _ROOT / "tests" / "deploy" / "rules_test.yml"
_ALERTMANAGER = _ROOT / "deploy" / "alertmanager" / "alertmanager.yml"
_RUNBOOKS = _ROOT / "docs" / "operations"

_SEVERITIES = {"page", "ticket", "none"}
_SECTIONS = ("Meaning", "Impact", "What to look at", "What to do")


def _alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(_RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


@needs("promtool")
def test_promtool_accepts_the_rules_and_the_configuration() -> None:
    """Syntax, duplicate rules and the scrape configuration are what Prometheus takes."""
    for what, path in (("rules", _RULES), ("config", _PROMETHEUS / "prometheus.yml")):
        there_only = ["--syntax-only"] if what == "config" else []  # the token's file is on the server
        code, text = output_of(["promtool", "check", what, *there_only, str(path)])
        assert code == 0, text


@needs("promtool")
def test_every_alert_fires_when_it_should_and_not_before() -> None:
    """The unit tests of the rules pass."""
    code, text = output_of(["promtool", "test", "rules", str(_CASES)])

    assert code == 0, text


@needs("promtool")
def test_a_rule_that_is_broken_fails_its_unit_test(tmp_path: Path) -> None:
    """The unit tests can fail: a threshold that is moved is noticed."""
    broken = tmp_path / "rules.yml"
    text = _RULES.read_text(encoding="utf-8")
    broken.write_text(
        text.replace("margin_monitor_ledger_memory_ratio > 0.5", "margin_monitor_ledger_memory_ratio > 0.65"), encoding="utf-8"
    )
    cases = tmp_path / "rules_test.yml"
    cases.write_text(re.sub(r"rule_files: .*", f"rule_files: [{broken}]", _CASES.read_text(encoding="utf-8")), encoding="utf-8")

    code, output = output_of(["promtool", "test", "rules", str(cases)])

    assert code != 0
    assert "MarginMonitorLedgerMemory" in output


def test_every_alert_has_a_unit_test_in_which_it_is_silent_and_one_in_which_it_fires() -> None:
    """No alert and no severity of it is left untested."""
    tested: dict[tuple[str, str], set[bool]] = {}
    for case in yaml.safe_load(_CASES.read_text(encoding="utf-8"))["tests"]:
        for moment in case["alert_rule_test"]:
            fires = moment.get("exp_alerts", [])
            for alert in fires:
                tested.setdefault((moment["alertname"], alert["exp_labels"]["severity"]), set()).add(True)
            if not fires:
                for severity in _SEVERITIES:
                    tested.setdefault((moment["alertname"], severity), set()).add(False)

    for rule in _alerts():
        expected = {True} if rule["alert"] == "MarginMonitorWatchdog" else {True, False}
        assert tested.get((rule["alert"], rule["labels"]["severity"])) == expected, rule["alert"]


@pytest.mark.parametrize("rule", _alerts(), ids=lambda rule: f"{rule['alert']}-{rule['labels']['severity']}")
def test_every_alert_is_told_and_has_a_runbook(rule: dict[str, Any]) -> None:
    """A severity, a summary, a description, and a page with meaning, impact, what to look at and what to do."""
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["labels"]["severity"] in _SEVERITIES
    page = _ROOT / rule["annotations"]["runbook_url"]
    assert page == _RUNBOOKS / f"{rule['alert']}.md"
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# {rule['alert']}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == list(_SECTIONS)


def test_every_runbook_belongs_to_an_alert() -> None:
    """A page of an alert that is gone is gone too, and the index names every one."""
    alerts = {rule["alert"] for rule in _alerts()}
    index = (_RUNBOOKS / "README.md").read_text(encoding="utf-8")

    assert {page.stem for page in _RUNBOOKS.glob("MarginMonitor*.md")} == alerts
    assert all(f"({alert}.md)" in index for alert in alerts)


@pytest.mark.parametrize("rule", _alerts(), ids=lambda rule: f"{rule['alert']}-{rule['labels']['severity']}")
def test_rules_name_only_metrics_and_labels_of_the_catalogue(rule: dict[str, Any]) -> None:
    """A metric or label that is renamed in the code cannot silence an alert."""
    assert list(unknown_names(rule["expr"])) == []


def test_runbooks_name_only_metrics_of_the_catalogue() -> None:
    """Whoever follows a runbook at night finds the metric that it names."""
    known = {f"margin_monitor_{name}" for name in CATALOGUE}
    for page in _RUNBOOKS.glob("*.md"):
        for name in re.findall(r"margin_monitor_\w+", page.read_text(encoding="utf-8")):
            assert re.sub(r"_(bucket|sum|count)$", "", name) in known or name in known, f"{page.name}: {name}"


def test_an_unknown_metric_or_label_is_found() -> None:
    """The check of names can fail."""
    assert list(unknown_names("margin_monitor_pool > 0")) == ["margin_monitor_pool is no metric"]
    assert list(unknown_names('margin_monitor_pools{venue="x"}')) == ["margin_monitor_pools has no label venue"]
    assert list(unknown_names("sum by (venue) (margin_monitor_pools)")) == ["margin_monitor_pools has no label venue"]
    assert list(unknown_names("margin_monitor_ticks_total")) == ["margin_monitor_ticks_total is a counter without rate or increase"]
    assert list(unknown_names("margin_monitor_evaluate_seconds")) == ["margin_monitor_evaluate_seconds is a histogram"]


def test_every_alert_has_a_metric_of_its_own() -> None:
    """Only the dead man's switch does without."""
    assert [rule["alert"] for rule in _alerts() if not named_series(rule["expr"])] == ["MarginMonitorWatchdog"]


@needs("amtool")
def test_amtool_accepts_the_routes() -> None:
    """The Alertmanager configuration is valid, and each severity reaches its receiver."""
    code, text = output_of(["amtool", "check-config", str(_ALERTMANAGER)])
    assert code == 0, text
    for labels, receiver in (
        (["alertname=MarginMonitorDown", "severity=page"], "page"),
        (["alertname=MarginMonitorDeadLetters", "severity=ticket"], "ticket"),
        (["alertname=MarginMonitorWatchdog", "severity=none"], "watchdog"),
    ):
        code, text = output_of(
            ["amtool", "config", "routes", "test", f"--config.file={_ALERTMANAGER}", f"--verify.receivers={receiver}", *labels]
        )
        assert code == 0, text


def test_inhibitions_name_alerts_that_exist() -> None:
    """An alert that is renamed is renamed there too."""
    alerts = {rule["alert"] for rule in _alerts()}
    named = set(re.findall(r"MarginMonitor\w+", _ALERTMANAGER.read_text(encoding="utf-8")))

    assert named <= alerts
