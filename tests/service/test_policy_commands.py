"""`silence` and `ack` as people type them, against a running policy on a real Redis."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from monitor.alerting.routes import parse_policy
from monitor.errors import ConfigError, RefusedError
from monitor.ledger.identity import identify
from monitor.ledger.notify import NotifyRecords
from monitor.service.policy_commands import acknowledge_command, add_silence_command, list_silences_command, remove_silence_command
from monitor.service.settings import load_settings
from monitor.sinks.policy import PolicySink
from tests.support.redis import redis_server
from tests.support.waiting import until

ANY = dict.fromkeys(("account", "pool", "group", "venue", "about"), "*")


def added(settings: Any, **changes: Any) -> int:
    """Types `silence add`."""
    given = {
        "matching": ANY,
        "up_to": "margin_call",
        "lasts": "2h",
        "until": None,
        "reason": "moving",
        "by": "ops",
        "wait_s": 5.0,
        **changes,
    }
    return add_silence_command(settings, **given)


async def test_a_silence_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Added with an id, in force in the running policy, listed with who and why, removed; an unknown id is refused."""
    async with redis_server() as redis:
        await identify(redis.link(), 1)
        settings = load_settings(None, environment={}, overrides={"ledger.url": redis.url})
        policy = PolicySink(parse_policy({}, source="policy.toml"), NotifyRecords({0: redis.link()}, 1), [], tick_s=0.01)
        await policy.open()
        try:
            assert await asyncio.to_thread(added, settings, matching={**ANY, "group": "desk-a"}) == 0
            silence_id = capsys.readouterr().out.strip()
            await until(lambda: [each.id for each in policy.silences()] == [silence_id], within_s=5)
            assert await asyncio.to_thread(list_silences_command, settings, wait_s=5.0, as_json=True) == 0
            (listed,) = orjson.loads(capsys.readouterr().out)
            assert (listed["id"], listed["group"], listed["author"], listed["reason"]) == (silence_id, "desk-a", "ops", "moving")
            assert await asyncio.to_thread(acknowledge_command, settings, "acme-1", pool="*", about="*", wait_s=5.0) == 0
            with pytest.raises(RefusedError, match="nonesuch"):
                await asyncio.to_thread(remove_silence_command, settings, "nonesuch", wait_s=5.0)
            assert await asyncio.to_thread(remove_silence_command, settings, silence_id, wait_s=5.0) == 0
            await until(lambda: policy.silences() == (), within_s=5)
        finally:
            await policy.close()


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"lasts": None}, "--for"),
        ({"until": "2030-01-01T00:00:00Z"}, "--for"),
        ({"lasts": "soon"}, "for"),
        ({"lasts": None, "until": "2030-01-01"}, "until"),
        ({"lasts": "31d"}, "--for"),
        ({"up_to": "terrible"}, "up-to"),
        ({"reason": " "}, "--for"),
    ],
)
def test_a_silence_that_makes_no_sense_is_refused(changes: dict[str, Any], key: str) -> None:
    """Without an end, with two, with one too far, without a reason: the key is named, and nothing is written."""
    with pytest.raises(ConfigError) as found:
        added(load_settings(None, environment={}, overrides={"ledger.url": "redis://127.0.0.1:1"}), **changes)

    assert found.value.key == key
