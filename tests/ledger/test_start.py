"""What is looked at before a ledger is used: its name, its server, what was known of it, and who held it."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from monitor.errors import ConfigError, LedgerBroken
from monitor.ledger.checks import check_ledger_server
from monitor.ledger.head import Head
from monitor.ledger.holder import holder_name, is_dead
from monitor.ledger.identity import identify
from monitor.ledger.known import KnownLedger
from monitor.ledger.server import CACHE_SETTINGS
from tests.support.redis import Redis, redis_server

_HEAD = replace(Head.first("ledger-1", 1, 0), batch=90)


async def test_all_who_ask_get_the_same_name(redis: Redis) -> None:
    """Ten processes start on an empty Redis at once."""
    names = await asyncio.gather(*(identify(redis.link(), 1) for _ in range(10)))

    assert len(set(names)) == 1
    assert len(names[0]) == 16


async def test_another_number_of_partitions_is_refused(redis: Redis) -> None:
    """It is fixed for the life of a ledger."""
    await identify(redis.link(), 1)

    with pytest.raises(ConfigError, match=r"ledger\.partitions: 64: expected 1"):
        await identify(redis.link(), 64)


async def test_the_right_server_has_no_findings(redis: Redis) -> None:
    """The settings we ship are those we ask for."""
    wire = await redis.link().open()
    assert await check_ledger_server(wire) == []
    wire.close()


async def test_a_server_that_forgets_is_told() -> None:
    """Without an append-only file it must not be used; evictions likewise; everysec is said."""
    async with redis_server({**CACHE_SETTINGS, "appendfsync": "everysec", "maxmemory-policy": "allkeys-lru"}) as redis:
        wire = await redis.link().open()
        findings = await check_ledger_server(wire)
        await redis.exchange(("ACL", "SETUSER", "default", "-config"))
        hidden = await check_ledger_server(wire)
        wire.close()

    assert [(finding.is_fatal, finding.text.split(",")[0]) for finding in findings] == [
        (True, "appendonly is no"),
        (False, "appendfsync is everysec"),
        (True, "maxmemory-policy is allkeys-lru"),
        (False, "aof-load-truncated is yes"),
    ]
    assert [finding.is_fatal for finding in hidden] == [False] * 4


def test_nothing_is_known_at_first(tmp_path: Path) -> None:
    """Any ledger is taken, and remembered over a restart."""
    known = KnownLedger.read(tmp_path / "sub" / "known.json")
    known.check(0, _HEAD)
    known.note(0, _HEAD)
    known.save()

    again = KnownLedger.read(tmp_path / "sub" / "known.json")
    assert (again.ledger, again.batches) == ("ledger-1", {0: 90})
    again.check(0, _HEAD)
    again.check(0, replace(_HEAD, batch=91))


def test_an_older_or_another_ledger_is_refused(tmp_path: Path) -> None:
    """A restored backup, an emptied Redis; a person may accept it."""
    known = KnownLedger(tmp_path / "known.json", "ledger-1", {0: 90})

    with pytest.raises(LedgerBroken, match="stands at batch 89"):
        known.check(0, replace(_HEAD, batch=89))
    with pytest.raises(LedgerBroken, match="--accept-ledger"):
        known.check(0, replace(_HEAD, ledger="ledger-2"))
    known.accept()
    known.check(0, replace(_HEAD, ledger="ledger-2", batch=0))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"ledger":"x"}', b'{"ledger":"x","batches":[1]}'])
def test_a_damaged_file_is_no_silence(tmp_path: Path, content: bytes) -> None:
    """It names the file; what is known is never guessed."""
    path = tmp_path / "known.json"
    path.write_bytes(content)

    with pytest.raises(ConfigError, match=r"known\.json"):
        KnownLedger.read(path)


def test_a_holder_is_unique_and_alive() -> None:
    """Two names of one process differ; both are alive as long as it is."""
    one, other = holder_name(), holder_name("host with: blanks")

    assert one != other
    assert " " not in other
    assert not is_dead(one)
    assert not is_dead(other)


def test_only_a_provably_dead_holder_is_dead() -> None:
    """Another machine, another boot, another namespace, an unknown form: not known, so not dead."""
    name = holder_name()
    start = name.split(":")[2].partition("-")[0]

    gone = name.replace(f":{os.getpid()}:", ":4194999:")
    assert is_dead(gone)
    assert is_dead(name.replace(f":{start}-", ":1-"))
    assert not is_dead("")
    assert not is_dead("somebody")
    boot = name.split("-")[-3]
    assert not is_dead(gone.replace(boot, "0" * len(boot)))
    space = name.split("-")[-2]
    assert not is_dead(gone.replace(f"-{space}-", "-1-"))
    assert not is_dead(gone.replace(f":{start}-", ":0-"))
