"""The policy at work: state and notices in a real Redis, restarts and failures at any moment, nothing lost and nothing made twice."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

import orjson
import pytest

from monitor.alerting.policy import Silence
from monitor.alerting.readings import Mark, PoolReadings
from monitor.alerting.requests import Request, acknowledgement
from monitor.alerting.routes import AlertPolicy, Route
from monitor.alerting.rules import Limits, RuleReading
from monitor.errors import LedgerUnavailable
from monitor.ledger.notify import NotifyRecords
from monitor.ledger.requests import ask, read_requests
from monitor.margin.levels import Level
from monitor.sinks.base import Reason, Sink, SinkStatistics
from monitor.sinks.policy import PolicySink
from monitor.wire.rows import Delivered, Delivery, Refused, Row, Unavailable
from tests.support.events import TOKEN, event, row
from tests.support.redis import Redis, redis_server
from tests.support.waiting import until

DESK = Route(name="desk", sinks=("chat",), urgent_wait=100, group_wait=100, group_interval=1000)
POLICY = AlertPolicy(routes=(DESK,))


@pytest.fixture
async def redis() -> AsyncIterator[Redis]:
    """A redis-server with the ledger's settings."""
    async with redis_server() as server:
        yield server


class Chat:
    """A sink that keeps what it gets and answers what the test wants."""

    def __init__(self, name: str = "chat", answer: Callable[[Row], Delivery] = lambda _row: Delivered()) -> None:
        self.name, self.answer = name, answer
        self.statistics = SinkStatistics()
        self.heard: list[dict[str, Any]] = []
        self.attempts = 0
        self.opened = 0
        self.closed = 0

    async def open(self) -> None:
        """Counts."""
        self.opened += 1

    async def deliver(self, row: Row) -> Delivery:
        """Keeps what it takes."""
        self.attempts += 1
        answer = self.answer(row)
        if isinstance(answer, Delivered):
            self.heard.append(orjson.loads(row.body))
        return answer

    async def close(self) -> None:
        """Counts."""
        self.closed += 1

    @property
    def accounts(self) -> list[str]:
        """Accounts told of, in order."""
        return [item["account"] for notice in self.heard for item in notice["items"]]


class Clock:
    """Wall time by hand."""

    def __init__(self) -> None:
        self.now_s = TOKEN / 1000

    def __call__(self) -> float:
        return self.now_s


def store_on(redis: Redis) -> NotifyRecords:
    """The real store."""
    return NotifyRecords({0: redis.link()}, 1)


@asynccontextmanager
async def at_work(redis: Redis, *sinks: Sink, policy: AlertPolicy = POLICY, store: Any = None, **options: Any) -> AsyncIterator[PolicySink]:
    """A policy sink at work."""
    sink = PolicySink(policy, store or store_on(redis), sinks, **{"tick_s": 0.01, "uniform": lambda _low, _high: 0.01, **options})
    await sink.open()
    try:
        yield sink
    finally:
        await sink.close()


def call(seq: int, account: str = "acme-1", level: str = "margin_call", at_s: float = TOKEN / 1000, **changes: Any) -> Row:
    """A row decided at a time."""
    return row(seq, account=account, level=level, decided_at_ns=int(at_s * 1e9), **changes)


async def test_a_margin_call_becomes_a_notice(redis: Redis) -> None:
    """The chat hears of it once, with a stable id, and the row counts as delivered only when its state is stored."""
    chat = Chat()
    async with at_work(redis, chat) as sink:
        assert isinstance(sink, Sink)
        assert await sink.deliver(row()) == Delivered()
        assert await redis.call("HEXISTS", "{0}:notify", "subject:acme-1/cross:USDT/level") == 1
        await until(lambda: len(chat.heard) == 1 and not sink.outstanding)

    assert chat.heard[0]["title"] == "MARGIN CALL acme-1 cross:USDT"
    assert chat.heard[0]["id"] == "0/1-0"
    assert (chat.opened, chat.closed) == (1, 1)


async def test_a_burst_is_one_message(redis: Redis) -> None:
    """Two thousand rows in a row, each stored before the next: one digest, however long they take."""
    chat = Chat()
    async with at_work(redis, chat) as sink:
        rows = [call(seq, f"a{seq}") for seq in range(1, 3001)]
        for start in range(0, len(rows), 100):
            assert await sink.deliver_batch(rows[start : start + 100]) == 100
        await until(lambda: bool(chat.heard))

    assert [notice["count"] for notice in chat.heard] == [3000]


async def test_a_batch_stops_before_what_is_no_event(redis: Redis) -> None:
    """What came before is stored; the bad row is then refused alone, and a batch seen again has no effect."""
    chat = Chat()
    bad = Row(partition=0, seq=3, token=TOKEN, body=b"{}", hash="")
    async with at_work(redis, chat) as sink:
        assert await sink.deliver_batch([call(1), call(2, "b"), bad, call(4, "c")]) == 2
        assert isinstance(await sink.deliver(bad), Refused)
        assert await sink.deliver_batch([call(1), call(2, "b"), call(4, "c")]) == 3
        await until(lambda: bool(chat.heard))

    assert sorted(chat.accounts) == ["acme-1", "b", "c"]


async def test_a_batch_that_cannot_be_stored_counts_nothing(redis: Redis) -> None:
    """Offered again, it is stored; every row is told once."""
    chat, bad = Chat(), True
    flaky = Flaky(store_on(redis), lambda: "before" if bad else "good")
    async with at_work(redis, chat, store=flaky) as sink:
        first = await sink.deliver_batch([call(1), call(2, "b")])
        bad = False
        second = await sink.deliver_batch([call(1), call(2, "b")])
        await until(lambda: bool(chat.heard))

    assert (first, second) == (0, 2)
    assert sorted(chat.accounts) == ["acme-1", "b"]


async def test_a_restart_goes_on_where_it_was(redis: Redis) -> None:
    """Told before: not told again. Decided and not sent: sent by the next process. A row seen twice: no effect."""
    clock, chat = Clock(), Chat()
    async with at_work(redis, chat, clock=clock) as sink:
        await sink.deliver(call(1))
        clock.now_s += 1
        await until(lambda: len(chat.heard) == 1)
        await sink.deliver(call(2, "other"))
    async with at_work(redis, chat, clock=clock) as sink:
        await sink.deliver(call(1))
        await sink.deliver(call(2, "other"))
        clock.now_s += 60
        await until(lambda: len(chat.heard) == 2 and not sink.outstanding)

    assert chat.accounts == ["acme-1", "other"]
    assert [notice["id"] for notice in chat.heard] == ["0/1-0", "0/2-0"]


async def test_an_old_row_that_comes_again_after_a_restart_does_not_turn_back_time(redis: Redis) -> None:
    """Margin call, healthy, restart, and the margin call again because the worker's cursor lagged: the pool is healthy."""
    clock = Clock()
    async with at_work(redis, Chat(), clock=clock) as sink:
        await sink.deliver(call(1))
        await sink.deliver(call(2, level="healthy"))
    async with at_work(redis, Chat(), clock=clock) as sink:
        assert await sink.deliver(call(1)) == Delivered()
        standing = [each.account for each in sink.firing()]

    assert standing == []


async def test_a_sink_that_is_away_gets_everything_later_in_order_also_after_a_restart(redis: Redis) -> None:
    """Its notices wait in the store; the other sink is not held up."""
    clock = Clock()
    away = Chat("mail", lambda _row: Unavailable(Reason.UNREACHABLE, 0.01))
    chat = Chat()
    policy = AlertPolicy(routes=(replace(DESK, sinks=("chat", "mail")),))
    async with at_work(redis, chat, away, policy=policy, clock=clock) as sink:
        for seq in (1, 2, 3):
            await sink.deliver(call(seq, f"a{seq}", at_s=clock.now_s))
            clock.now_s += 2
            await until(lambda seq=seq: len(chat.heard) == seq)  # type: ignore[misc]
        await until(lambda: sink.outstanding == 3)
    back = Chat("mail")
    async with at_work(redis, chat, back, policy=policy, clock=clock) as sink:
        await sink.deliver(call(3, "a3"))
        await until(lambda: len(back.heard) == 3 and not sink.outstanding)

    assert away.attempts > 1
    assert away.heard == []
    assert back.accounts == chat.accounts == ["a1", "a2", "a3"]


async def test_a_refused_notice_is_a_dead_letter_and_the_next_one_goes_on(redis: Redis) -> None:
    """Nothing is given up silently."""
    clock = Clock()
    chat = Chat(answer=lambda row: Refused(Reason.REJECTED, "too rude") if row.seq == 1 else Delivered())
    async with at_work(redis, chat, clock=clock) as sink:
        for seq in (1, 2):
            await sink.deliver(call(seq, f"a{seq}", at_s=clock.now_s))
            clock.now_s += 2
            await until(lambda seq=seq: chat.attempts == seq)  # type: ignore[misc]
        await until(lambda: not sink.outstanding)
    entries = await redis.call("XRANGE", "{0}:dead", "-", "+")

    assert chat.accounts == ["a2"]
    assert [entry[1][3] for entry in entries] == [b"chat: rejected: too rude"]
    assert entries[0][1][7] == b"0/1-0"


async def test_a_sink_that_raises_harms_nobody(redis: Redis) -> None:
    """A fault in one sink is tried a few times, then its notice is a dead letter."""
    attempts = 0

    def fail(_row: Row) -> Delivery:
        nonlocal attempts
        attempts += 1
        raise RuntimeError("broken")

    broken, chat = Chat("mail", fail), Chat()
    policy = AlertPolicy(routes=(replace(DESK, sinks=("chat", "mail")),))
    async with at_work(redis, broken, chat, policy=policy) as sink:
        await sink.deliver(row())
        await until(lambda: attempts >= 1 and len(chat.heard) == 1)
        await until(lambda: not sink.outstanding, within_s=20)

    assert attempts == 6
    assert await redis.call("XLEN", "{0}:dead") == 1


class Flaky:
    """The real store, seen through bad luck: writes fail before or after they are done."""

    def __init__(self, store: NotifyRecords, luck: Callable[[], str]) -> None:
        self.store, self.luck = store, luck
        self.failures = 0

    async def load(self) -> tuple[dict[str, bytes], list[tuple[int, bytes]]]:
        """Sometimes not."""
        if self.luck() == "before":
            self.failures += 1
            raise LedgerUnavailable("bad luck")
        return await self.store.load()

    async def write(self, changes: Mapping[str, bytes | None], notices: Sequence[tuple[int, bytes]] = (), *, keep_from: int = 0) -> None:
        """Sometimes not, sometimes without saying so."""
        luck = self.luck()
        if luck == "before":
            self.failures += 1
            raise LedgerUnavailable("bad luck before")
        await self.store.write(changes, notices, keep_from=keep_from)
        if luck == "after":
            self.failures += 1
            raise LedgerUnavailable("bad luck after")

    async def bury(self, notice_id: str, cause: str, raw: bytes) -> None:
        """As it is."""
        await self.store.bury(notice_id, cause, raw)

    async def requests(self) -> list[Request]:
        """As they are."""
        return await self.store.requests()

    async def take_off(self, request: Request) -> None:
        """As it is."""
        await self.store.take_off(request)


@pytest.mark.parametrize("seed", range(4))
async def test_with_a_bad_store_and_restarts_everything_is_told_once(redis: Redis, seed: int) -> None:
    """Writes fail before and after they are done, the process is restarted at any moment: every account is told of, under one notice id."""
    rng = random.Random(seed)
    answers: list[Delivery] = [Delivered(), Delivered(), Unavailable(Reason.CLOSED, 0.001)]
    clock, chat = Clock(), Chat(answer=lambda _row: rng.choice(answers))
    luck = lambda: rng.choice(["good", "good", "good", "before", "after"])  # noqa: E731
    rows = [call(seq, f"a{seq}", at_s=clock.now_s + seq) for seq in range(1, 41)]
    first = 0
    while first < len(rows):
        flaky = Flaky(store_on(redis), luck)
        async with at_work(redis, chat, store=flaky, clock=clock) as sink:
            for _ in range(rng.randrange(1, 12)):
                clock.now_s = max(clock.now_s, TOKEN / 1000 + first + 1)
                if first < len(rows) and isinstance(await sink.deliver(rows[first]), Delivered):
                    first += 1
                await asyncio.sleep(rng.choice([0, 0.005, 0.02]))
        first = max(0, first - rng.randrange(3))  # the worker's own cursor lags: rows come again
    async with at_work(redis, chat, clock=clock) as sink:
        await sink.deliver(rows[-1])
        clock.now_s += 60
        await until(lambda: set(chat.accounts) == {f"a{seq}" for seq in range(1, 41)} and not sink.outstanding)

    by_account: dict[str, set[str]] = {}
    for notice in chat.heard:
        for item in notice["items"]:
            by_account.setdefault(item["account"], set()).add(notice["id"])
    assert all(len(ids) == 1 for ids in by_account.values())
    assert len(by_account) == 40


async def test_while_the_store_is_away_rows_are_unavailable_and_nothing_is_said(redis: Redis) -> None:
    """What is not stored is not said; when the store is back, it is."""
    chat, bad = Chat(), True
    flaky = Flaky(store_on(redis), lambda: "before" if bad else "good")
    async with at_work(redis, chat, store=flaky) as sink:
        first = await sink.deliver(row())
        await until(lambda: flaky.failures > 5)
        said = list(chat.heard)
        bad = False
        assert await sink.deliver(row()) == Delivered()
        await until(lambda: len(chat.heard) == 1)

    assert isinstance(first, Unavailable)
    assert said == []


async def test_a_deposed_process_says_nothing_more(redis: Redis) -> None:
    """When another process has loaded the state, the old one's writes are fenced and its notices are not sent."""
    clock, old_chat, new_chat = Clock(), Chat(), Chat()
    async with at_work(redis, old_chat, clock=clock, tick_s=3600.0) as old:
        await old.deliver(call(1))
        async with at_work(redis, new_chat, clock=clock) as new:
            await new.deliver(call(2, "b", at_s=clock.now_s))
            late = await old.deliver(call(3, "c", at_s=clock.now_s))
            clock.now_s += 1
            await until(lambda: bool(new_chat.heard) and not new.outstanding)
        silent = list(old_chat.heard)
        again = await old.deliver(call(3, "c", at_s=clock.now_s))
        firing = {each.account for each in old.firing()}

    assert isinstance(late, Unavailable)
    assert sorted(new_chat.accounts) == ["acme-1", "b"]
    assert silent == []
    assert again == Delivered()  # leading again, it goes on from what the other one stored
    assert firing == {"acme-1", "b", "c"}


async def test_a_process_that_does_not_lead_decides_and_sends_nothing(redis: Redis) -> None:
    """The lease is asked before each row, each tick and each notice."""
    chat, leads = Chat(), False
    async with at_work(redis, chat, may_send=lambda: leads) as sink:
        answer = await sink.deliver(row())
        leads = True
        await sink.deliver(row())
        await until(lambda: len(chat.heard) == 1)

    assert isinstance(answer, Unavailable)


async def test_acknowledgements_and_silences_are_kept(redis: Redis) -> None:
    """What a person said holds over a restart."""
    clock, chat = Clock(), Chat()
    silence = Silence(
        id="s1", reason="maintenance", author="desk", from_ms=TOKEN, until_ms=TOKEN + 3_600_000, account="quiet-*", up_to=Level.BANKRUPT
    )
    async with at_work(redis, chat, clock=clock) as sink:
        await sink.silence(silence)
        await sink.deliver(call(1))
        await sink.deliver(call(2, "quiet-1"))
        clock.now_s += 1
        await until(lambda: len(chat.heard) == 1)
        assert await sink.acknowledge(account="acme-1") == 1
    async with at_work(redis, chat, clock=clock) as sink:
        await sink.deliver(call(2, "quiet-1"))
        firing = {each.account: each for each in sink.firing()}
        silences = sink.silences()
        assert await sink.unsilence("s1")
        clock.now_s += 5
        await until(lambda: len(chat.heard) == 2)

    assert silences == (silence,)
    assert firing["quiet-1"].silenced
    assert firing["acme-1"].acknowledged_until_ms is not None
    assert chat.accounts == ["acme-1", "quiet-1"]


async def test_rule_readings_are_told(redis: Redis) -> None:
    """Warnings of the rules take the same way."""
    chat = Chat()
    policy = replace(POLICY, rules={"distance": Limits((None, None, Decimal("0.1"), None))})
    async with at_work(redis, chat, policy=policy) as sink:
        await sink.deliver(row(level="healthy", previous="watch"))
        near = RuleReading("distance", Level.LIQUIDATION, Decimal("0.05"), "BTCUSDT is 5% away")
        assert sink.term == 1
        await sink.read([Mark.BEGIN, PoolReadings("acme-1", "cross", "", "", TOKEN, None, (near,)), Mark.END])
        await until(lambda: len(chat.heard) == 1)

    assert chat.heard[0]["title"] == "DISTANCE acme-1 cross: BTCUSDT is 5% away"


async def test_borrowed_sinks_are_not_opened_here(redis: Redis) -> None:
    """A sink that gets every event too belongs to somebody else."""
    chat = Chat()
    async with at_work(redis, borrowed=[chat]) as sink:
        await sink.deliver(row())
        await until(lambda: len(chat.heard) == 1)

    assert (chat.opened, chat.closed) == (0, 0)


async def test_a_damaged_record_is_dropped_and_counted(redis: Redis) -> None:
    """One bad record does not stop the others; its pool is told anew with its next event."""
    clock, chat = Clock(), Chat()
    async with at_work(redis, chat, clock=clock) as sink:
        await sink.deliver(call(1))
        await sink.deliver(call(2, "b"))
        clock.now_s += 1
        await until(lambda: len(chat.heard) == 1)
    await redis.call("HSET", "{0}:notify", "subject:b/cross:USDT/level", b"{broken")
    async with at_work(redis, chat, clock=clock) as sink:
        await sink.deliver(call(3, "b", "liquidation"))
        clock.now_s += 2
        await until(lambda: len(chat.heard) == 2)
        damaged = sink.damaged

    assert damaged == 1
    assert chat.accounts[2:] == ["b"]


async def test_rows_after_a_lost_tail_are_new(redis: Redis) -> None:
    """When the ledger lost its end, numbers begin lower under a higher token: they are other rows."""
    clock, chat = Clock(), Chat()
    async with at_work(redis, chat, clock=clock) as sink:
        await sink.deliver(call(100))
        after = Row(partition=0, seq=50, token=TOKEN + 1, body=call(50, "b").body, hash="")
        assert await sink.deliver(after) == Delivered()
        clock.now_s += 1
        await until(lambda: bool(chat.heard))

    assert sorted(chat.accounts) == ["acme-1", "b"]


@pytest.mark.parametrize("data", [b"x", b"[]", b'{"account": 1}', b'{"account": "a", "level": "odd"}'])
async def test_what_is_no_event_is_refused(redis: Redis, data: bytes) -> None:
    """It goes to the dead letters, and the next row is taken."""
    async with at_work(redis, Chat()) as sink:
        answer = await sink.deliver(Row(partition=0, seq=1, token=1, body=data, hash=""))
        assert await sink.deliver(row()) == Delivered()

    assert isinstance(answer, Refused)


async def test_notices_are_trimmed(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """What every sink has, and no reader needs, goes."""
    monkeypatch.setattr("monitor.sinks.policy.KEPT_NOTICES", 2)
    clock, chat = Clock(), Chat()
    async with at_work(redis, chat, policy=AlertPolicy(routes=(replace(DESK, burst=1000),)), clock=clock) as sink:
        for seq in range(1, 6):
            await sink.deliver(call(seq, f"a{seq}", at_s=clock.now_s))
            clock.now_s += 2
            await until(lambda seq=seq: len(chat.heard) == seq and not sink.outstanding)  # type: ignore[misc]

    assert await redis.call("XLEN", "{0}:notices") <= 4


def test_event_bodies_of_the_tests_are_events() -> None:
    """The rows here have what the policy reads."""
    assert {"account", "pool", "level", "unknown", "group", "venue", "decided_at_ns"} <= set(event())


async def test_what_people_ask_is_done_stored_and_taken_off(redis: Redis) -> None:
    """A silence, an acknowledgement and a request that makes no sense come over the stream; the silence is there after a restart too."""
    now_ms = int(time.time() * 1000)
    silence = Silence(id="s1", reason="maintenance", author="ops", from_ms=now_ms, until_ms=now_ms + 3_600_000, account="acme-*")
    chat = Chat()
    wire = await redis.link().open()
    async with at_work(redis, chat) as sink:
        await ask(wire, 1, "silence", silence.to_json())
        await ask(wire, 1, "nonsense", b"?")
        await ask(wire, 1, "silence", b"{}")
        await until(lambda: sink.silences() == (silence,), within_s=5)
        await until(lambda: sink.damaged == 2, within_s=5)
        await sink.deliver(call(1, at_s=now_ms / 1e3))
        await sink.deliver(call(2, "other-1", at_s=now_ms / 1e3))
        await until(lambda: chat.accounts == ["other-1"], within_s=5)
        await ask(wire, 1, "acknowledge", acknowledgement("other-*"))
        while await read_requests(wire, 0):
            await asyncio.sleep(0)
        stored = orjson.loads(await redis.call("HGET", "{0}:notify", "subject:other-1/cross:USDT/level"))
    async with at_work(redis, Chat()) as after:
        await until(lambda: after.silences() == (silence,), within_s=5)
        await ask(wire, 1, "unsilence", b"s1")
        await until(lambda: after.silences() == (), within_s=5)
    assert await read_requests(wire, 0) == []
    assert stored["acknowledged"][0] == stored["severity"]
    wire.close()
