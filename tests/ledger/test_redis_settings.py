"""The Redis configuration that is shipped: the settings the code relies on, and users who may do what is used and no more."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from monitor.ledger.cache import HealthWriter, TickCursor, TicksReader, TicksWriter, read_marks
from monitor.ledger.changes import Anchor, Change, DeadLetter, DocumentChange, Hold, Observation
from monitor.ledger.checks import check_ledger_server
from monitor.ledger.committer import Committer
from monitor.ledger.connection import Command, Endpoint, Link, Refusal, Wire
from monitor.ledger.cursors import SinkWorker, register_sink
from monitor.ledger.dead_letters import drop, letters, try_again
from monitor.ledger.holder import holder_name
from monitor.ledger.housekeeping import Housekeeper
from monitor.ledger.identity import identify
from monitor.ledger.partition import Partition
from monitor.ledger.server import CACHE_SETTINGS, LEDGER_SETTINGS
from monitor.ledger.updates import UpdatesProducer, UpdatesReader, stamped
from monitor.ledger.verify import verify_partition
from monitor.margin.levels import Level
from monitor.margin.prices import PriceKind
from monitor.wire.events import TickPosition
from monitor.wire.prices import PriceBatch
from monitor.wire.rows import Delivered, Delivery, Refused, Row
from tests.support.redis import Redis, redis_server
from tests.support.waiting import until

_DEPLOY = Path(__file__).parents[2] / "deploy" / "redis"
_PASSWORD = "for this test only"


def _settings(name: str) -> dict[str, str]:
    lines = (line.split("#")[0].strip() for line in (_DEPLOY / name).read_text().splitlines())
    pairs = [line.partition(" ")[::2] for line in lines if line]
    assert len({key for key, _ in pairs}) == len(pairs)
    return {key: value.strip().strip('"') for key, value in pairs}


@pytest.mark.parametrize(("name", "wanted"), [("redis-ledger.conf", LEDGER_SETTINGS), ("redis-cache.conf", CACHE_SETTINGS)])
def test_the_shipped_settings_are_those_of_the_code(name: str, wanted: dict[str, str]) -> None:
    """What the embedded server is started with stands in the file too."""
    settings = _settings(name)

    assert {key: settings[key] for key in wanted} == wanted
    assert settings["bind"].startswith("127.0.0.1")
    assert settings["protected-mode"] == "yes"


@pytest.mark.parametrize("name", ["redis-ledger.conf", "redis-cache.conf"])
async def test_redis_accepts_the_shipped_file(name: str, tmp_path: Path) -> None:
    """With its users, and nobody can log in before a password was set."""
    shutil.copy(_DEPLOY / "users.acl", tmp_path / "users.acl")
    settings = {**_settings(name), "dir": str(tmp_path), "aclfile": str(tmp_path / "users.acl"), "port": "0"}
    settings.pop("bind")
    program = [part for key, value in settings.items() for part in (f"--{key}", value)]
    socket = tmp_path / "s"
    process = await asyncio.create_subprocess_exec("redis-server", *program, "--unixsocket", str(socket), stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(10):
            while b"ready to accept" not in (line := (await process.stdout.readline()).lower()):
                assert line, "redis-server ended"
        for user in ("margin-monitor", "margin-producer", "margin-reader", "margin-operator"):
            for password in ("", "0" * 64):
                with pytest.raises(Refusal) as found:
                    await Link(Endpoint(path=str(socket), username=user, password=password)).open()
                assert found.value.code == "WRONGPASS"
        with pytest.raises(Refusal):
            await Link(Endpoint(path=str(socket))).open()
    finally:
        process.kill()
        await process.communicate()


@asynccontextmanager
async def _with_users(folder: Path) -> AsyncIterator[Redis]:
    """A server with the shipped users, their password set, and an administrator for the test."""
    hashed = hashlib.sha256(_PASSWORD.encode()).hexdigest()
    users = (_DEPLOY / "users.acl").read_text().replace("#" + "0" * 64, f"#{hashed}").splitlines()
    assert users[0].startswith("user default off ")
    users[0] = "user default on nopass ~* &* +@all"
    (folder / "users.acl").write_text("\n".join(users) + "\n")
    async with redis_server({**LEDGER_SETTINGS, "aclfile": str(folder / "users.acl")}) as redis:
        yield redis


def _link(redis: Redis, user: str) -> Link:
    return Link(Endpoint.parse(redis.url, username=user, password=_PASSWORD), timeout_s=5.0)


class _Receiver:
    def __init__(self) -> None:
        self.seen = 0

    async def deliver(self, row: Row) -> Delivery:
        self.seen += 1
        return Refused("test") if row.seq == 1 else Delivered()


async def _everything(redis: Redis) -> None:
    """Each thing the daemon does, as its user."""
    link = _link(redis, "margin-monitor")
    partition = Partition(link, 0, holder=holder_name(), ledger=await identify(link, 1), partitions=1)
    await partition.lead(60.0)
    await partition.load(lambda _account, _document, _hold: None)
    committer = Committer(partition, lease_s=60.0)
    running = asyncio.ensure_future(committer.run())
    await register_sink(link, 0, "sink")
    receiver = _Receiver()
    worker = SinkWorker(link, 0, "sink", receiver)
    delivering = asyncio.ensure_future(worker.run())
    producer = UpdatesProducer(lambda _partition: _link(redis, "margin-producer"), 1)
    imported = await producer.import_documents([("a", stamped(b'{"account":{"id":"a"}}', 1, 1))])
    reader = UpdatesReader(link, {0: "0-0"})
    (update,) = await reader.read()
    changes: list[Change] = [DocumentChange("a", 1, 1, update.data), Hold("a", "test")]
    await committer.put([*changes, *(Observation("a", "p", Level(n % 5), None, TickPosition(1, n, 0), b"{}") for n in range(1, 8))])
    await committer.flush()
    worker.wake.set()
    await until(lambda: receiver.seen == 7)
    delivering.cancel()
    await asyncio.gather(delivering, return_exceptions=True)
    await worker.finish()
    await committer.put([Anchor(1, (await redis.call("XRANGE", "{0}:events", "1", "1"))[0][1][3].decode())])
    keeper = Housekeeper(link, committer, [worker], retain_events=2, retain_dead=0)
    await keeper.round()
    assert keeper.statistics.trimmed > 0
    ticks = TicksWriter(link)
    await ticks.write([PriceBatch(venue="v", kind=PriceKind.MARK, names=["X"], prices=[1.0], venue_times_ms=[0], received_at_ns=0)])
    tick_reader = TicksReader(link, TickCursor("0-0", 0, 0))
    assert len(await tick_reader.read()) == 1
    assert await tick_reader.read(block_ms=1) == []
    assert await read_marks(link, "v")
    health = HealthWriter(link)
    await health.write([("a", b"{}")])
    await health.remove(["a"])
    wire = await link.open()
    assert await check_ledger_server(wire) == []
    await wire.call("PING", timeout_s=5.0)
    await wire.call("SET", "wanted:v", b"{}", timeout_s=5.0)
    assert await wire.call("GET", "wanted:v", timeout_s=5.0) == b"{}"
    other = await Wire.connect(Endpoint.parse(f"{redis.url}?db=1", username="margin-monitor", password=_PASSWORD), timeout_s=5.0)
    for open_wire in (wire, other):
        open_wire.close()
    assert (await verify_partition(_link(redis, "margin-reader"), 0)).is_sound
    for closing in (producer, reader, ticks, tick_reader, health):
        closing.close()
    assert imported.count == 1
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await partition.release()


async def test_the_daemon_runs_with_exactly_the_commands_it_is_allowed(tmp_path: Path) -> None:
    """Nothing it does is denied, and nothing is allowed that it does not do."""
    async with _with_users(tmp_path) as redis:
        await redis.exchange(("ACL", "LOG", "RESET"), ("CONFIG", "RESETSTAT"))
        await _everything(redis)

        assert await redis.call("ACL", "LOG") == []
        used = {
            line.split(":")[0].removeprefix("cmdstat_")
            for line in (await redis.call("INFO", "commandstats")).decode().splitlines()
            if line.startswith("cmdstat_")
        }
    if not any("|" in name for name in used):
        pytest.skip("Redis before 7.0 does not count subcommands apart")
    line = next(line for line in (_DEPLOY / "users.acl").read_text().splitlines() if line.startswith("user margin-monitor "))
    allowed = {word[1:] for word in line.split() if word.startswith("+")}
    administrator = {"acl|log", "config|resetstat", "auth"}
    assert used - administrator == allowed


async def test_the_operator_can_mend_dead_letters_and_nothing_else(tmp_path: Path) -> None:
    """Its commands are those that `dead list|show|retry|drop` use."""
    async with _with_users(tmp_path) as redis:
        daemon = _link(redis, "margin-monitor")
        partition = Partition(daemon, 0, holder=holder_name(), ledger=await identify(daemon, 1), partitions=1)
        await partition.lead(60.0)
        buried = [("updates", b"{}"), ("sink:s", b"{}"), ("sink:s", b"")]
        await partition.commit([DeadLetter(source, "test", raw, "0/1-1") for source, raw in buried])
        await redis.exchange(("ACL", "LOG", "RESET"), ("CONFIG", "RESETSTAT"))
        operator = _link(redis, "margin-operator")
        await identify(operator, 1)
        wire = await operator.open()
        update, event, nothing = await letters(wire, 0)
        await try_again(wire, update)
        await try_again(wire, event)
        assert await drop(wire, nothing)
        wire.close()
        assert await redis.call("ACL", "LOG") == []
        assert await redis.call("XLEN", "{0}:dead") == 0
        partition.close()


_DENIED: list[Command] = [
    ("EVAL", "return 1", 0),
    ("SCRIPT", "LOAD", "return 1"),
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("DEL", "{0}:events"),
    ("UNLINK", "{0}:events"),
    ("RENAME", "{0}:events", "{0}:dead"),
    ("EXPIRE", "{0}:events", 1),
    ("XDEL", "{0}:events", "1-1"),
    ("XSETID", "{0}:events", "9-9"),
    ("XGROUP", "CREATE", "{0}:events", "g", "0"),
    ("HDEL", "{0}:accounts", "a"),
    ("KEYS", "*"),
    ("CONFIG", "SET", "appendfsync", "no"),
    ("ACL", "LIST"),
    ("SHUTDOWN", "NOSAVE"),
    ("REPLICAOF", "NO", "ONE"),
    ("MODULE", "LIST"),
    ("MONITOR",),
    ("CLIENT", "KILL", "TYPE", "normal"),
    ("PUBLISH", "c", "m"),
    ("HGET", "other", "x"),
    ("XADD", "other", "*", "u", "x"),
]


@pytest.mark.parametrize("user", ["margin-monitor", "margin-producer", "margin-reader", "margin-operator"])
async def test_what_nobody_needs_is_denied(user: str, tmp_path: Path) -> None:
    """No scripting, no administration, no deleting, no foreign keys."""
    async with _with_users(tmp_path) as redis:
        wire = await _link(redis, user).open()
        replies = await wire.exchange(_DENIED, timeout_s=5.0)
        wire.close()

    assert [str(reply).partition(" ")[0] for reply in replies] == ["NOPERM"] * len(_DENIED)


async def test_a_producer_can_write_updates_only(tmp_path: Path) -> None:
    """It cannot touch levels, events or the head, nor read another's documents."""
    async with _with_users(tmp_path) as redis:
        wire = await _link(redis, "margin-producer").open()
        allowed = await wire.exchange([("XADD", "{0}:updates", "*", "u", "{}"), ("HMGET", "{0}:head", "n")], timeout_s=5.0)
        denied = await wire.exchange(
            [
                ("XADD", "{0}:events", "*", "e", "{}"),
                ("HSET", "{0}:head", "n", 1),
                ("HGET", "{0}:accounts", "a"),
                ("XRANGE", "{0}:updates", "-", "+"),
            ],
            timeout_s=5.0,
        )
        wire.close()

    assert allowed[1] == [None]
    assert all("NOPERM" in str(reply) for reply in denied)
