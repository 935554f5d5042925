"""Metrics: the exposition as text."""

from __future__ import annotations

import pytest

from monitor.measures import Durations
from monitor.service.metrics import CATALOGUE, Exposition, Sample


def test_samples_of_all_sources_are_exposed_with_help_and_labels() -> None:
    """Gauges, counters and histograms come out under the prefix, in the text format."""
    durations = Durations()
    durations.observe(0.003)
    exposition = Exposition([lambda: [Sample("pools", 3, ("margin_call",)), Sample("ticks_total", 7)]])
    exposition.add(lambda: [Sample("event_latency_seconds", durations)])
    text = exposition.text("")[0].decode()

    assert "# HELP margin_monitor_pools Margin pools by level" in text
    assert 'margin_monitor_pools{level="margin_call"} 3.0' in text
    assert "margin_monitor_ticks_total 7.0" in text
    assert 'margin_monitor_event_latency_seconds_bucket{le="0.0025"} 0.0' in text
    assert 'margin_monitor_event_latency_seconds_bucket{le="0.005"} 1.0' in text
    assert "margin_monitor_event_latency_seconds_count 1.0" in text


def test_a_sample_outside_the_catalogue_is_a_programmers_error() -> None:
    """A misspelt name or a missing label does not pass silently."""
    with pytest.raises(KeyError):
        Exposition([lambda: [Sample("pool", 1)]]).text("")
    with pytest.raises(AssertionError):
        Exposition([lambda: [Sample("pools", 1)]]).text("")


def test_names_follow_the_conventions() -> None:
    """Counters end in _total, durations in _seconds, and every help is a sentence."""
    for name, described in CATALOGUE.items():
        assert name.endswith("_total") == (described.kind == "counter"), name
        assert described.help.endswith("."), name
