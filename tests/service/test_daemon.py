"""The daemon as a whole: an outage of Redis, an orderly end, a second start, bad frames."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import orjson
import pytest

from monitor.feeds.simulator import Simulator
from monitor.feeds.tape import Moment, Sent
from monitor.ledger.connection import Endpoint, Link
from monitor.ledger.server import EmbeddedServer
from monitor.margin.prices import PriceKind
from monitor.service.local_rig import LocalRig, local_rig
from monitor.service.sample_book import sample_documents, sample_tables
from monitor.wire.dialects.binance import binance_usdm
from monitor.wire.quotes import Quotes
from tests.support.tick_log import changes_of, marks_of, rows_of, tick_entries, wanted_changes
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
PRICES = {"BTCUSDT": 30_000.0, "ETHUSDT": 1_800.0}


def swings(count: int, *, step_s: float = 0.05) -> list[Moment]:
    """Both prices swing by a few percent, so that many pools cross in both directions."""
    moments: list[Moment] = []
    for index in range(count):
        share = 1 - 0.0004 * ((index * 37) % 100) - 0.00015 * index
        marks = {name: f"{price * share:.2f}" for name, price in PRICES.items()}
        moments.append((index * step_s, Quotes(time_ms=1_700_000_000_000 + index * 1000, numbers={PriceKind.MARK: marks})))
    return moments


def write_tables(folder: Path) -> Path:
    """The tables of the two instruments."""
    path = folder / "tables.json"
    path.write_bytes(orjson.dumps(sample_tables(PRICES)))
    return path


def check(rig: LocalRig, name: str) -> bool:
    """Whether one of the checks of /readyz passes."""
    return {check.name: check.passed for check in rig.daemon.readings.ready()}[name]


async def test_an_outage_of_redis_loses_no_level_change(tmp_path: Path) -> None:
    """Redis is killed and started again while prices go on: degraded meanwhile, and afterwards every change of the tick log is there."""
    documents = list(sample_documents(300, PRICES))
    simulator = Simulator(binance_usdm(), swings(120), speed=1.0)
    # Redis is found to be away by the first write; a feed that is held up for so long is not stale.
    overrides = {"feeds.binance_usdm.stale_after_s": 600.0}
    async with asyncio.timeout(90):
        async with local_rig(tmp_path, simulator, documents, tables=[write_tables(tmp_path)], overrides=overrides) as rig:
            evaluator, feeds = rig.daemon.evaluator, rig.daemon.feeds
            assert evaluator is not None and feeds is not None
            await until(lambda: simulator.statistics.moments >= 30)
            await rig.server.kill()
            await until(lambda: feeds.publisher.statistics.failures >= 2)
            await until(lambda: not check(rig, "ledger"))
            away_from = simulator.statistics.moments
            await until(lambda: simulator.statistics.moments >= away_from + 20)
            await rig.server.start()
            await rig.caught_up()
            await until(lambda: check(rig, "ledger"))
            rows, log = rows_of(rig.server.url), marks_of(tick_entries(rig.server.url))
            conflated = sum(feeds.publisher.statistics.conflated.values())
            gaps = evaluator.statistics.gaps

    assert len(log) + conflated == 2 * 120
    assert gaps == 0
    assert {row["kind"] for row in rows} <= {"level", "numbers"}
    assert changes_of(rows) == wanted_changes(log, documents, sample_tables(PRICES))
    assert len(rows) > 100


async def test_bad_frames_are_counted_and_leave_the_last_price(tmp_path: Path) -> None:
    """What is no JSON, and prices that are no positive numbers, change nothing but counters."""
    mark = '{"e":"markPriceUpdate","E":1700000000000,"s":"BTCUSDT","p":"%s","i":"1","r":"0","T":0}'
    frames = ["[" + mark % "30000" + "]", "not json", "[" + mark % "NaN" + "]", "[" + mark % "-1" + "]", "[" + mark % "0" + "]", "{}"]
    tape: list[Moment] = [(index * 0.01, Sent("", frame.encode())) for index, frame in enumerate(frames)]
    simulator = Simulator(binance_usdm(), tape, speed=1.0)
    async with asyncio.timeout(60):
        async with local_rig(tmp_path, simulator, sample_documents(10, PRICES), tables=[write_tables(tmp_path)]) as rig:
            feeds, evaluator = rig.daemon.feeds, rig.daemon.evaluator
            assert feeds is not None and evaluator is not None
            statistics = feeds.feeds["binance_usdm"].statistics
            await until(lambda: sum(statistics.rejected.values()) >= 4)
            await until(lambda: evaluator.statistics.ticks >= 1)

            assert evaluator.store.price("binance_usdm", PriceKind.MARK, "BTCUSDT") == 30_000.0
            assert rig.daemon.http is not None
            text = await asyncio.to_thread(fetch, f"{rig.daemon.http.address}/metrics")
    assert 'margin_monitor_feed_rejected_total{reason="not_json",venue="binance_usdm"} 1.0' in text or "feed_rejected_total{" in text


def fetch(address: str) -> str:
    """The body of an answer."""
    with urllib.request.urlopen(address, timeout=5) as answer:
        body: bytes = answer.read()
    return body.decode()


def command(*arguments: str) -> list[str]:
    """The program as a user starts it."""
    return [sys.executable, "-m", "monitor", *arguments]


def run_to_end(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in the checkout and waits for its end."""
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_redis_away_at_start_is_said_and_given_up(tmp_path: Path) -> None:
    """With --wait the daemon says what it waits for, ends with code 1, and names the address."""
    done = run_to_end("run", "--ledger-url", f"unix://{tmp_path}/none.sock", "--wait", "0.5", "--http-port", "0")

    assert done.returncode == 1
    assert "waiting_for_redis" in done.stderr
    assert f"margin-monitor: unix://{tmp_path}/none.sock: no answer in 0.5 s" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_in_order_and_a_second_start_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    """It ends within 5 s with code 0, gives the partition up, and the next process has the accounts at once."""
    async with asyncio.timeout(100), EmbeddedServer(tmp_path / "redis") as server:
        documents = tmp_path / "accounts.jsonl"
        documents.write_bytes(b"\n".join(orjson.dumps(document) for document in sample_documents(20, PRICES)))
        environment = {
            **os.environ,
            "MARGIN_MONITOR_EVALUATOR__TABLES": f'["{write_tables(tmp_path)}"]',
            "MARGIN_MONITOR_LEDGER__DATA_DIR": str(tmp_path / "ledger"),
        }
        imported = await asyncio.create_subprocess_exec(
            *command("accounts", "import", "--ledger-url", server.url, str(documents)),
            cwd=ROOT,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await imported.communicate()
        assert said.startswith(b"20 documents")
        for _ in range(2):
            daemon = await asyncio.create_subprocess_exec(
                *command("run", "--stage", "evaluator,alerts", "--ledger-url", server.url, "--http-port", "0"),
                cwd=ROOT,
                env=environment,
                stderr=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
            )
            assert daemon.stderr is not None
            lines = []
            try:
                while b"ready" not in (line := await daemon.stderr.readline()):
                    lines.append(line)
                    assert line, b"".join(lines)
                assert b"accounts=20" in line
                daemon.send_signal(number)
                async with asyncio.timeout(5):
                    rest, _ = await asyncio.gather(daemon.stderr.read(), daemon.wait())
            finally:
                with contextlib.suppress(ProcessLookupError):
                    daemon.kill()
            assert daemon.returncode == 0, rest
            assert b"stopped" in rest


async def test_a_ledger_that_was_emptied_is_not_taken_for_the_truth(tmp_path: Path) -> None:
    """What this machine knows of its ledger is kept; another or emptied one is refused until it is accepted."""
    environment = {**os.environ, "MARGIN_MONITOR_LEDGER__DATA_DIR": str(tmp_path / "ledger")}
    arguments = ("run", "--stage", "evaluator", "--http-port", "0")

    async def run(url: str, *more: str) -> tuple[int | None, bytes]:
        """Runs until ready, or until it ends by itself."""
        daemon = await asyncio.create_subprocess_exec(
            *command(*arguments, "--ledger-url", url, *more), cwd=ROOT, env=environment, stderr=asyncio.subprocess.PIPE
        )
        assert daemon.stderr is not None
        said = b""
        try:
            while line := await daemon.stderr.readline():
                said += line
                if b"ready" in line:
                    daemon.send_signal(signal.SIGTERM)
            await daemon.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                daemon.kill()
        return daemon.returncode, said

    async with asyncio.timeout(100), EmbeddedServer(tmp_path / "a") as first, EmbeddedServer(tmp_path / "b") as second:
        assert (await run(first.url))[0] == 0
        code, said = await run(second.url)
        assert (code, b"Start with --accept-ledger" in said) == (1, True)
        assert (await run(second.url, "--accept-ledger"))[0] == 0


async def test_an_import_is_all_or_nothing(tmp_path: Path) -> None:
    """One document that cannot be right: one line naming file, line, key and value, exit code 2, nothing written."""
    good, bad = sample_documents(2, PRICES)
    bad["account"]["positions"][0]["quantity"] = "0"
    tables = write_tables(tmp_path)
    documents = tmp_path / "accounts.jsonl"
    documents.write_bytes(orjson.dumps(good) + b"\n" + orjson.dumps(bad) + b"\n")
    async with asyncio.timeout(60), EmbeddedServer(tmp_path / "redis") as server:
        process = await asyncio.create_subprocess_exec(
            *command("accounts", "import", "--ledger-url", server.url, str(documents)),
            cwd=ROOT,
            env={**os.environ, "MARGIN_MONITOR_EVALUATOR__TABLES": f'["{tables}"]'},
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await process.communicate()
        wire = await Link(Endpoint.parse(server.url)).open()
        keys = await wire.call("KEYS", "*", timeout_s=5.0)
        wire.close()

    assert process.returncode == 2
    assert f"{documents}:2: account acct-000001: /account/positions/0/quantity".encode() in said
    assert b"nothing was written" in said
    assert keys == []
