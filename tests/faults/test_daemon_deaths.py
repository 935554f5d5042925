"""The whole deployment under kill -9, in short; `tests/faults/campaign_daemon.py` is the long form."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.daemon_rig import daemon_rig
from tests.support.mosquitto import needs_mosquitto


@needs_mosquitto
async def test_a_daemon_that_dies_loses_nothing_and_says_nothing_twice(tmp_path: Path) -> None:
    """Killed inside a commit, between the delivery of an event and its cursor, and at any moment: every row is the replay's."""
    async with asyncio.timeout(100), daemon_rig(tmp_path, seed=1) as rig:
        for point in ("commit.sent", "sink.delivered", None):
            await rig.die(point)
        await rig.end()
        found = await rig.check()

    assert found.events > 5
    assert (found.lost, found.duplicated, found.misordered, found.wrong) == (0, 0, 0, 0)
    assert (found.not_delivered, found.delivered_out_of_order) == (0, 0)
