"""A stopped Redis at ten times the rate, in real processes, for a few seconds; `tests/faults/campaign_slow.py` is the long form."""

from __future__ import annotations

from pathlib import Path

from tests.support.slow_rig import slowness


async def test_prices_are_fresh_again_after_redis_stood_still(tmp_path: Path) -> None:
    """400 symbols ten times a second: what came meanwhile is kept, written when Redis is back, and nobody has grown."""
    seen = await slowness("stopped redis", tmp_path, 4.0)

    assert max(seen.grown_mb["feeds"], seen.grown_mb["evaluator"]) < 64.0
    assert seen.conflated < 4_000, "kept in order, not conflated"
    assert seen.fresh_s < 10.0, "a second on a machine that does nothing else: see the campaign"
