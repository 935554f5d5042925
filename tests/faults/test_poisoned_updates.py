"""Account updates that cannot be used, against the real process: refused ones, and ones that kill it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from monitor.ledger.connection import Endpoint, Link
from monitor.ledger.records import read_account
from monitor.ledger.server import EmbeddedServer
from monitor.ledger.updates import UpdatesProducer
from monitor.service.sample_book import sample_tables

ROOT = Path(__file__).resolve().parents[2]

DEADLY = """
import os, signal, sys
from monitor.service.account_book import AccountBook

read = AccountBook.parse

def parse(self, data, *arguments, **named):
    if b"deadly" in data:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(self, data, *arguments, **named)

AccountBook.parse = parse
from monitor.service.entry import main
sys.argv[0] = "margin-monitor"
main()
"""
"""The daemon, whose reading of one document ends the process at once, as a fault in a library below it would."""


def document(account: str, sequence: int, **more: Any) -> bytes:
    """A small account, of a given version."""
    position = {"instrument": "BTCUSDT", "quantity": "0.1", "entry_price": "30000"}
    body = {"id": account, "venue": "binance_usdm", "balances": [{"asset": "USDT", "wallet": "9000"}], "positions": [position], **more}
    return orjson.dumps({"epoch": 1, "sequence": sequence, "account": body})


class Ledger:
    """What stands in Redis."""

    def __init__(self, url: str) -> None:
        self._link = Link(Endpoint.parse(url))

    async def call(self, *command: str | bytes) -> Any:
        """One command."""
        return await self._link.run(lambda wire: wire.call(*command, timeout_s=5.0))

    async def holds(self) -> dict[str, str | None]:
        """By account, why it is held; None for one that is not."""
        pairs = await self.call("HGETALL", "{0}:accounts")
        found = {}
        for name, sealed in zip(pairs[::2], pairs[1::2], strict=True):
            read = read_account(name.decode(), sealed)
            assert read is not None
            found[name.decode()] = read[0].hold
        return found

    async def letters(self) -> list[bytes]:
        """What lies in the dead letters, raw."""
        return [dict(zip(pairs[::2], pairs[1::2], strict=True))[b"raw"] for _, pairs in await self.call("XRANGE", "{0}:dead", "-", "+")]


async def until_held(ledger: Ledger, wanted: dict[str, bool], letters: int) -> None:
    """Returns when these accounts are held, or not, and so many dead letters lie there."""
    async with asyncio.timeout(20):
        while {name: hold is not None for name, hold in (await ledger.holds()).items()} != wanted or len(await ledger.letters()) != letters:
            await asyncio.sleep(0.02)


@asynccontextmanager
async def evaluator(folder: Path, url: str, *, deadly: bool = False) -> AsyncIterator[asyncio.subprocess.Process]:
    """The deciding process; killed at the end."""
    program = ("-c", DEADLY) if deadly else ("-m", "monitor")
    environment = {
        **os.environ,
        "MARGIN_MONITOR_EVALUATOR__TABLES": f'["{folder}/tables.json"]',
        "MARGIN_MONITOR_LEDGER__DATA_DIR": f"{folder}/ledger",
        "MARGIN_MONITOR_LEDGER__LEASE_S": "0.5",
    }
    with (folder / "log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *program, "run", "--stage", "evaluator", "--ledger-url", url, "--http-port", "0"),
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_a_poisoned_update_is_parked_and_its_account_held() -> None:
    """It goes to the dead letters; its account is held, also over a kill, until a valid one comes; its neighbours do not notice."""
    with tempfile.TemporaryDirectory(prefix="mm-") as name:
        folder = Path(name)
        (folder / "tables.json").write_bytes(orjson.dumps(sample_tables({"BTCUSDT": 30_000.0})))
        async with asyncio.timeout(100), EmbeddedServer(folder / "redis") as server:
            ledger = Ledger(server.url)
            producer = UpdatesProducer(lambda _partition: Link(Endpoint.parse(server.url)), 1)
            try:
                await producer.import_documents([(each, document(each, 1)) for each in ("a", "b", "c")])
            finally:
                producer.close()
            wrong = document("b", 2, nonsense=True)
            await ledger.call("XADD", "{0}:updates", "*", "u", wrong)
            async with evaluator(folder, server.url):
                await until_held(ledger, {"a": False, "b": True, "c": False}, 1)
            async with evaluator(folder, server.url):
                await ledger.call("XADD", "{0}:updates", "*", "u", document("a", 2))
                await until_held(ledger, {"a": False, "b": True, "c": False}, 1)
                held = (await ledger.holds())["b"]
                await ledger.call("XADD", "{0}:updates", "*", "u", document("b", 3))
                await until_held(ledger, {"a": False, "b": False, "c": False}, 1)
            letters = await ledger.letters()

    assert letters == [wrong]
    assert held is not None
    assert "nonsense" in held


async def test_an_update_that_kills_the_process_three_times_is_parked_unread() -> None:
    """The fourth process puts it into the dead letters without a look at it, holds its account, and goes on with the others."""
    with tempfile.TemporaryDirectory(prefix="mm-") as name:
        folder = Path(name)
        (folder / "tables.json").write_bytes(orjson.dumps(sample_tables({"BTCUSDT": 30_000.0})))
        async with asyncio.timeout(100), EmbeddedServer(folder / "redis") as server:
            ledger = Ledger(server.url)
            deadly = document("c", 2, group="deadly")
            for each in (document("a", 1), document("c", 1), deadly, document("b", 1)):
                await ledger.call("XADD", "{0}:updates", "*", "u", each)
            for _ in range(3):
                async with evaluator(folder, server.url, deadly=True) as process:
                    assert await process.wait() == -9, (folder / "log").read_text()[-2_000:]
            letters_before = await ledger.letters()
            async with evaluator(folder, server.url, deadly=True) as process:
                await until_held(ledger, {"a": False, "b": False, "c": True}, 1)
                await ledger.call("XADD", "{0}:updates", "*", "u", document("c", 3))
                await until_held(ledger, {"a": False, "b": False, "c": False}, 1)
                lives = process.returncode is None
            letters = await ledger.letters()

    assert letters_before == []
    assert letters == [deadly]
    assert lives
