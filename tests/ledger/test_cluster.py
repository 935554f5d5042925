"""Redis Cluster: one partition is one slot, and its holder follows it by hand."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from monitor.ledger.changes import Observation
from monitor.ledger.connection import Endpoint, Link, Moved, Wire
from monitor.ledger.cursors import SinkWorker
from monitor.ledger.identity import identify
from monitor.ledger.keys import PARTITIONS, partition_of, slot
from monitor.ledger.partition import Partition
from monitor.ledger.server import LEDGER_SETTINGS
from monitor.ledger.updates import UpdatesProducer, UpdatesReader, stamped
from monitor.ledger.verify import verify_partition
from monitor.margin.levels import Level
from monitor.wire.events import TickPosition
from monitor.wire.rows import Delivered, Delivery, Row
from tests.support.waiting import until


class _Node:
    """One master."""

    def __init__(self, port: int, process: asyncio.subprocess.Process) -> None:
        self.port, self.process = port, process
        self.endpoint = Endpoint(port=port)

    async def call(self, *command: Any) -> Any:
        wire = await Wire.connect(self.endpoint, timeout_s=5.0)
        try:
            return await wire.call(*command, timeout_s=10.0)
        finally:
            wire.close()

    async def name(self) -> str:
        return str((await self.call("CLUSTER", "MYID")).decode())


async def _start(folder: Path) -> _Node:
    with socket.socket() as free, socket.socket() as bus:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        bus.bind(("127.0.0.1", 0))
        bus_port = bus.getsockname()[1]
    settings = {**LEDGER_SETTINGS, "port": str(port), "bind": "127.0.0.1", "dir": str(folder), "cluster-enabled": "yes"}
    settings |= {"cluster-port": str(bus_port), "cluster-node-timeout": "2000"}
    await asyncio.to_thread(folder.mkdir)
    process = await asyncio.create_subprocess_exec(
        "redis-server", *(part for key, value in settings.items() for part in (f"--{key}", value)), stdout=asyncio.subprocess.DEVNULL
    )
    node = _Node(port, process)
    async with asyncio.timeout(10):
        while True:
            try:
                await node.call("PING")
                return node
            except Exception:  # noqa: BLE001 - not yet there
                await asyncio.sleep(0.02)


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[list[_Node]]:
    """Three masters, the slots shared out evenly."""
    made: list[_Node] = []
    try:
        made += [await _start(tmp_path / str(number)) for number in range(3)]
        first = made[0]
        info = (await first.call("INFO", "server")).decode()
        if tuple(int(part) for part in info.split("redis_version:")[1].split()[0].split(".")[:2]) < (7, 0):
            pytest.skip("needs Redis 7.0 to choose the cluster's own port")
        for number, node in enumerate(made):
            await node.call("CLUSTER", "ADDSLOTSRANGE", 16384 * number // 3, 16384 * (number + 1) // 3 - 1)
            bus = (await node.call("CONFIG", "GET", "cluster-port"))[1].decode()
            await first.call("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        for node in made:
            async with asyncio.timeout(20):
                while b"cluster_state:ok" not in await node.call("CLUSTER", "INFO"):
                    await asyncio.sleep(0.05)
        yield made
    finally:
        for node in made:
            node.process.kill()
            await node.process.wait()


async def _owner(nodes: list[_Node], number: int) -> _Node:
    return nodes[slot(str(number)) * 3 // 16384]


async def _move(source: _Node, target: _Node, number: int, nodes: list[_Node], every_s: float) -> None:
    """Moves a partition's slot, key by key, as an operator would."""
    place, source_name, target_name = slot(str(number)), await source.name(), await target.name()
    await target.call("CLUSTER", "SETSLOT", place, "IMPORTING", source_name)
    await source.call("CLUSTER", "SETSLOT", place, "MIGRATING", target_name)
    while keys := await source.call("CLUSTER", "GETKEYSINSLOT", place, 1):
        await source.call("MIGRATE", "127.0.0.1", target.port, keys[0], 0, 5000)
        await asyncio.sleep(every_s)
    for node in [target, source, *nodes]:
        await node.call("CLUSTER", "SETSLOT", place, "NODE", target_name)


class _Receiver:
    def __init__(self) -> None:
        self.rows: list[int] = []

    async def deliver(self, row: Row) -> Delivery:
        self.rows.append(row.seq)
        return Delivered()


async def test_a_partition_is_followed_while_its_slot_moves(nodes: list[_Node]) -> None:
    """Commits and deliveries go on over a move key by key: half moved is not available, moved is followed; every row once, in order."""
    ledger = await identify(Link(nodes[0].endpoint), 4)
    number = PARTITIONS[1]
    home = await _owner(nodes, number)
    link = Link(nodes[0].endpoint, timeout_s=2.0)
    partition = Partition(link, number, holder="test", ledger=ledger, partitions=4)
    await partition.lead(60.0)
    await partition.load(lambda _account, _document, _hold: None)
    receiver = _Receiver()
    worker = SinkWorker(Link(nodes[0].endpoint), number, "sink", receiver)
    delivering = asyncio.ensure_future(worker.run())
    await until(lambda: worker.place is not None)
    moving = asyncio.ensure_future(_move(home, next(node for node in nodes if node is not home), number, nodes, 0.05))
    n = 0
    while not moving.done() or n < 200:
        n += 1
        await partition.commit([Observation("a", "cross", Level(n % 5), None, TickPosition(1, n, 0), b"{}")])
    await moving

    report = await verify_partition(link, number)
    assert (report.faults, report.rows) == ([], n)
    await until(lambda: len(receiver.rows) >= n)
    delivering.cancel()
    await asyncio.gather(delivering, return_exceptions=True)
    assert list(dict.fromkeys(receiver.rows)) == list(range(1, n + 1))
    assert partition.statistics.settled_again + partition.statistics.settled_applied > 0
    partition.close()


async def test_updates_reach_the_node_of_their_partition(nodes: list[_Node]) -> None:
    """Whatever node the producer was told."""
    await identify(Link(nodes[0].endpoint), 4)
    producer = UpdatesProducer(lambda _partition: Link(nodes[0].endpoint), 4)
    documents = {f"a{index}": stamped(b'{"account":{"id":"a%d"}}' % index, 1, 1) for index in range(30)}
    for account, document in documents.items():
        await producer.publish(account, document)
    producer.close()
    found: dict[int, list[bytes | None]] = {}
    for number in PARTITIONS[:4]:
        reader = UpdatesReader(Link(nodes[0].endpoint), {number: "0-0"})
        with contextlib.suppress(Moved):  # followed at the next attempt
            await reader.read()
        reader.cursors[number] = "0-0"
        found[number] = [update.data for update in await reader.read()]
        reader.close()

    assert found == {
        number: [document for account, document in documents.items() if partition_of(account, 4) == number] for number in PARTITIONS[:4]
    }
