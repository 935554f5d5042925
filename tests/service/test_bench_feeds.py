"""The benchmark of the feeds runs, and counts what was really written."""

from __future__ import annotations

import orjson
import pytest

from monitor.service import bench_feeds


def test_bench_feeds_prints_its_figures(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Small runs of every case; where nothing may be overtaken, nothing is."""
    cases = {name: (shape, on_slow, 50) for name, (shape, on_slow, _count) in bench_feeds.CASES.items()}
    monkeypatch.setattr(bench_feeds, "CASES", cases)

    assert bench_feeds.feeds_command(runs=1, symbols=10, as_json=True) == 0
    figures = orjson.loads(capsys.readouterr().out)

    assert set(figures) == set(cases)
    assert all(found["messages_per_s"] > 0 for found in figures.values())
    assert figures["array, every number"]["written_share"] == 1.0
