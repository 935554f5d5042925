"""Account updates, from the producer's hand to the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import orjson
import pytest

from monitor.errors import LedgerUnavailable, RefusedError
from monitor.ledger.changes import DeadLetter, DocumentChange, Hold, UpdatesRead
from monitor.ledger.committer import Committer
from monitor.ledger.connection import Endpoint, Link
from monitor.ledger.head import Suspect
from monitor.ledger.identity import identify
from monitor.ledger.keys import partition_of
from monitor.ledger.partition import Partition
from monitor.ledger.records import AccountVersion
from monitor.ledger.updates import (
    MAX_UPDATE_BYTES,
    Order,
    Update,
    UpdateGuard,
    UpdatesProducer,
    UpdatesReader,
    order_of,
    poisoned,
    stamped,
    unread,
)
from tests.support.proxy import FaultProxy
from tests.support.redis import Redis

Lead = Callable[..., Awaitable[Partition]]


def _document(account: str, number: int = 1) -> bytes:
    return stamped(orjson.dumps({"account": {"id": account, "n": number}}), 7, number)


async def _entries(redis: Redis, partition: int = 0) -> list[bytes]:
    return [fields[1] for _, fields in await redis.call("XRANGE", f"{{{partition}}}:updates", "-", "+")]


def test_a_stamp_goes_in_front() -> None:
    """A document that has a sequence of its own keeps its bytes."""
    assert stamped(b'{"account":{"id":"a"}}', 7, 3) == b'{"epoch":7,"sequence":3,"account":{"id":"a"}}'
    assert stamped(b'{ "sequence": 1 }', 7, 3) == b'{ "sequence": 1 }'


@pytest.mark.parametrize("document", [b"", b"[]", b"{", b'"text"'])
def test_what_is_no_object_gets_no_stamp(document: bytes) -> None:
    """It is refused before it is sent."""
    with pytest.raises(RefusedError):
        stamped(document, 1, 1)


async def test_a_document_goes_to_the_partition_of_its_account(redis: Redis) -> None:
    """Each account's updates are on one stream, in order."""
    producer = UpdatesProducer(lambda _partition: redis.link(), 64)
    for number in (1, 2):
        for account in ("a", "b", "c"):
            await producer.publish(account, _document(account, number))
    producer.close()

    for account in ("a", "b", "c"):
        assert await _entries(redis, partition_of(account, 64)) == [_document(account, 1), _document(account, 2)]


async def test_a_producer_repeats_until_it_is_answered(redis: Redis, tmp_path: Path) -> None:
    """A lost request is sent again; a lost answer puts a copy on the stream, which does no harm."""
    async with FaultProxy(tmp_path / "proxy.sock", str(redis.server.socket), marker=b"XADD").running() as proxy:
        producer = UpdatesProducer(lambda _partition: Link(proxy.endpoint, timeout_s=0.2), 1)
        proxy.arm("drop_request")
        await producer.publish("a", _document("a", 1))
        proxy.arm("cut_reply")
        await producer.publish("a", _document("a", 2))
        producer.close()

    assert await _entries(redis) == [_document("a", 1), _document("a", 2), _document("a", 2)]
    assert producer.repeated == 2


@pytest.mark.parametrize(
    ("account", "document", "path"),
    [("a/b", b"{}", "/account/id"), ("", b"{}", "/account/id"), ("a", b"x" * (MAX_UPDATE_BYTES + 1), "")],
)
async def test_what_no_ledger_takes_is_refused_before_it_is_sent(redis: Redis, account: str, document: bytes, path: str) -> None:
    """Ids that cannot be keys, and sizes."""
    producer = UpdatesProducer(lambda _partition: redis.link(), 1)

    with pytest.raises(RefusedError) as found:
        await producer.publish(account, document)
    assert found.value.path == path
    assert await redis.call("DBSIZE") == 0


async def test_an_import_writes_everything(redis: Redis) -> None:
    """In pieces, over several partitions, and tells how far it is."""
    producer = UpdatesProducer(lambda _partition: redis.link(), 4)
    told: list[int] = []
    documents = [(f"a{index}", _document(f"a{index}")) for index in range(3000)]

    imported = await producer.import_documents(documents, progress=told.append)
    producer.close()

    assert imported.count == told[-1] == 3000
    assert sum([len(await _entries(redis, partition)) for partition in imported.last]) == 3000


async def test_a_refused_import_changes_nothing(redis: Redis) -> None:
    """One account that stands there twice, at the end of many."""
    producer = UpdatesProducer(lambda _partition: redis.link(), 1)
    documents = [(f"a{index}", _document(f"a{index}")) for index in range(100)]

    with pytest.raises(RefusedError, match="each account once"):
        await producer.import_documents([*documents, documents[0]])
    assert await redis.call("DBSIZE") == 0


async def test_an_import_without_a_ledger_fails_at_once(tmp_path: Path, redis: Redis) -> None:
    """Before anything was written anywhere."""
    links = {0: redis.link(), 2: Link(Endpoint(path=str(tmp_path / "nobody.sock")))}
    producer = UpdatesProducer(lambda partition: links[partition], 2)
    documents = [(f"a{index}", _document(f"a{index}")) for index in range(20)]

    with pytest.raises(LedgerUnavailable):
        await producer.import_documents(documents)
    assert await redis.call("DBSIZE") == 0
    producer.close()


async def test_an_import_can_be_waited_for(redis: Redis, lead: Lead) -> None:
    """Until the evaluator has committed the last of it."""
    partition = await lead()
    producer = UpdatesProducer(lambda _partition: redis.link(), 1)
    imported = await producer.import_documents([("a", _document("a")), ("b", _document("b"))])
    waiting = asyncio.ensure_future(producer.wait_applied(imported, poll_s=0.001))
    reader = UpdatesReader(redis.link(), {0: "0-0"})
    first, second = await reader.read()

    await partition.commit([UpdatesRead(first.id)])
    await asyncio.sleep(0.02)
    assert not waiting.done()
    await partition.commit([UpdatesRead(second.id)])
    await waiting
    producer.close()
    reader.close()


async def test_updates_are_read_from_several_partitions_in_their_order(redis: Redis) -> None:
    """One exchange for all; each goes on from its own cursor."""
    await identify(redis.link(), 4)
    producer = UpdatesProducer(lambda _partition: redis.link(), 4)
    accounts = [f"a{index}" for index in range(40)]
    for account in accounts:
        await producer.publish(account, _document(account))
    producer.close()
    reader = UpdatesReader(redis.link(), dict.fromkeys((0, 2, 3, 1), "0-0"))
    found: list[Update] = []
    while more := await reader.read(count=3):
        found += more
    reader.close()

    assert sorted(update.data or b"" for update in found) == sorted(_document(account) for account in accounts)
    for partition in (0, 2, 3, 1):
        mine = [update.data for update in found if update.partition == partition]
        assert mine == [_document(account) for account in accounts if partition_of(account, 4) == partition]


async def test_an_entry_without_a_document_is_told(redis: Redis) -> None:
    """A foreign writer's; it becomes a dead letter, not an exception."""
    await redis.call("XADD", "{0}:updates", "*", "hello", "world")
    reader = UpdatesReader(redis.link(), {0: "0-0"})
    (update,) = await reader.read()
    reader.close()

    assert update.data is None
    assert poisoned(update, "no field u", None) == [DeadLetter("updates", "no field u", b"", update.id), UpdatesRead(update.id)]


@pytest.mark.parametrize(
    ("epoch", "sequence", "document", "expected"),
    [
        (7, 4, b"{}", Order.NEWER),
        (8, 0, b"{}", Order.NEWER),
        (7, 2, b"{}", Order.OLDER),
        (6, 9, b"{}", Order.OLDER),
        (7, 3, b"{}", Order.SAME),
        (7, 3, b"{ }", Order.CONFLICT),
        (7, 3, None, Order.CONFLICT),
    ],
)
def test_updates_are_ordered_by_epoch_and_sequence(epoch: int, sequence: int, document: bytes | None, expected: Order) -> None:
    """The same pair with another content is a conflict: nobody can say which is right."""
    assert order_of(AccountVersion.of(7, 3, b"{}", None), epoch, sequence, document) is expected


def test_the_first_document_is_newer_than_nothing() -> None:
    """Whatever its numbers are."""
    assert order_of(None, 0, 0, b"{}") is Order.NEWER


def test_a_poisoned_update_holds_its_account() -> None:
    """Dead letter, hold and cursor are written together."""
    update = Update(0, "5-1", b"{")

    assert poisoned(update, "not JSON", "acct") == [
        DeadLetter("updates", "not JSON", b"{", "5-1"),
        Hold("acct", "not JSON"),
        UpdatesRead("5-1"),
    ]


def test_an_account_is_found_without_parsing() -> None:
    """For an update that nobody dares to parse."""
    changes = unread(Update(0, "5-1", b'{"epoch":1,"account":{ "id" : "acme-1", "venue":'))

    assert Hold("acme-1", "killed the process") in changes
    assert len(unread(Update(0, "5-1", b"\xff\x00"))) == 2


async def test_an_update_that_kills_is_given_up_after_three_deaths(lead: Lead) -> None:
    """Each start marks it before it is looked at; the fourth leaves it unread. Its neighbours are taken."""
    killer, neighbour = Update(0, "5-1", b"kills"), Update(0, "5-2", b"harmless")
    answers = []
    for _ in range(4):
        partition = await lead(lease_s=0.0)
        committer = Committer(partition, lease_s=60.0)
        task = asyncio.ensure_future(committer.run())
        guard = UpdateGuard(committer)
        answers.append(await guard.may_read(killer))
        if not answers[-1]:
            await committer.put(unread(killer))
            answers.append(await guard.may_read(neighbour))
            await committer.flush()
            assert partition.head.suspect == Suspect("5-2", 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        partition.close()  # the process is gone

    assert answers == [True, True, True, False, True]


async def test_the_guard_ends_after_the_first_updates(lead: Lead) -> None:
    """What the last process may have died of is among them; later ones cost no commit each."""
    partition = await lead()
    committer = Committer(partition, lease_s=60.0)
    task = asyncio.ensure_future(committer.run())
    guard = UpdateGuard(committer, first=3)
    for index in range(10):
        assert await guard.may_read(Update(0, f"{index}-0", b"{}"))
        await committer.put([DocumentChange(f"a{index}", 1, 1, b"{}"), UpdatesRead(f"{index}-0")])
    await committer.flush()
    task.cancel()

    assert partition.head.suspect is None
    assert partition.head.updates == "9-0"
