"""The commands that people type, run as programs against a running daemon on a real Redis."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import orjson

from monitor.feeds.simulator import Simulator
from monitor.feeds.tape import Moment, Sent
from monitor.service.local_rig import local_rig
from monitor.service.sample_book import sample_documents, sample_tables
from monitor.wire.dialects.binance import binance_usdm
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
PRICES = {"BTCUSDT": 30_000.0, "ETHUSDT": 1_800.0}


async def typed(environment: dict[str, str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a command."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "monitor",
        *arguments,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_what_a_user_types_beside_a_running_daemon(tmp_path: Path) -> None:
    """list, show, explain, verify, top, an update, a wrong update, remove: each answers in words, with the right exit code."""
    tables = tmp_path / "tables.json"
    tables.write_bytes(orjson.dumps(sample_tables(PRICES)))
    documents = list(sample_documents(30, PRICES, most_leverage=60))
    mark = '[{"e":"markPriceUpdate","E":1700000000000,"s":"%s","p":"%s","i":"1","r":"0","T":0}]'
    frames = [(mark % pair).encode() for pair in (("BTCUSDT", "29000"), ("ETHUSDT", "1700"))]
    tape: list[Moment] = [(index * 0.1, Sent("", frame)) for index, frame in enumerate(frames)]
    simulator = Simulator(binance_usdm(), tape, speed=1.0)
    overrides = {"feeds.binance_usdm.stale_after_s": 600.0}
    async with asyncio.timeout(110), local_rig(tmp_path, simulator, documents, tables=[tables], overrides=overrides) as rig:
        daemon, evaluator = rig.daemon, rig.daemon.evaluator
        assert evaluator is not None and daemon.http is not None
        await until(lambda: evaluator.store.count("binance_usdm") == 2)
        await evaluator.observer.follow_all()
        for committer in daemon.committers.values():
            await committer.flush()
        rows = daemon.committers[0].partition.head.seq
        assert rows > 0
        redis = {"MARGIN_MONITOR_LEDGER__URL": rig.server.url, "MARGIN_MONITOR_EVALUATOR__TABLES": f'["{tables}"]'}

        code, out, err = await typed(redis, "accounts", "list")
        assert (code, len(out.splitlines())) == (0, 30), err
        assert "30 accounts" in err

        code, out, _ = await typed(redis, "accounts", "show", "acct-000003")
        assert (code, orjson.loads(out)) == (0, documents[3])
        code, _, err = await typed(redis, "accounts", "show", "nobody")
        assert (code, err) == (1, "margin-monitor: nobody: no such account in the ledger\n")

        code, out, err = await typed(redis, "explain", "acct-000003")
        assert code == 0, err
        assert "maintenance margin" in out
        assert "liquidation price" in out

        code, out, err = await typed(redis, "verify", "--all")
        assert code == 0, err
        assert f"{rows:,} rows" in out
        assert f"chain sound; {rows // 2:,} recomputed, {rows // 2:,} without numbers" in out

        await until(lambda: daemon.snapshots is not None and daemon.snapshots.written >= 30)
        wire = await daemon.places.cache_link().open()
        snapshot = orjson.loads(await wire.call("GET", "health:acct-000003", timeout_s=5.0))
        wire.close()
        assert (snapshot["account"], len(snapshot["pools"])) == ("acct-000003", len(evaluator.engine.views("acct-000003")))

        code, out, err = await typed(redis, "top", "--once", "--address", daemon.http.address)
        assert code == 0, err
        assert "30 accounts" in out
        code, _, err = await typed(redis, "top", "--once", "--address", "http://127.0.0.1:1")
        assert code == 1
        assert "no daemon answers there" in err

        changed = {**documents[5], "sequence": 2}
        changed["account"] = {**changed["account"], "positions": []}
        update = tmp_path / "update.json"
        update.write_bytes(orjson.dumps(changed))
        assert (await typed(redis, "accounts", "import", str(update)))[0] == 0
        await until(lambda: evaluator.book.data("acct-000005") == orjson.dumps(changed))
        assert (await typed(redis, "accounts", "import", str(update)))[0] == 0
        await until(lambda: evaluator.statistics.dropped.get("same") == 1)

        code, _, err = await typed(redis, "accounts", "remove", "acct-000006", "nobody")
        assert (code, "/remove: nobody: expected an account of the ledger" in err) == (2, True)
        assert "acct-000006" in evaluator.book
        assert (await typed(redis, "accounts", "remove", "acct-000006"))[0] == 0
        await until(lambda: "acct-000006" not in evaluator.book)


async def test_a_usage_error_is_two() -> None:
    """Unknown commands, missing arguments and unreadable settings end with code 2."""
    assert (await typed({}, "runn"))[0] == 2
    assert (await typed({}, "verify"))[0] == 2
    code, _, err = await typed({}, "run", "--config", "/nowhere.toml")
    assert (code, err) == (2, "margin-monitor: /nowhere.toml: (file): No such file or directory: expected a readable TOML file\n")
    code, _, err = await typed({}, "run", "--stage", "feed")
    assert (code, "expected one of feeds, evaluator, alerts" in err) == (2, True)


async def test_the_demo_comes_to_margin_calls_and_liquidations() -> None:
    """A short demo ends with code 0, having printed a margin call and a liquidation with their numbers, and a line of counts."""
    code, out, err = await typed({"DEMO_SECONDS": "8"}, "demo", "--accounts", "200", "--symbols", "5")

    assert code == 0, err
    for word in ("MARGIN CALL acct-", "LIQUIDATION acct-"):
        line = next(line for line in out.splitlines() if word in line)
        assert "ratio=" in line
        assert "liquidation " in line
        assert "cause=mark " in line
    assert " events received by a subscriber" in out or "MQTT was off" in out
    assert out.splitlines()[-1].startswith(tuple("123456789"))
    assert "tick received to event in Redis p50 " in out.splitlines()[-1]
    assert 'margin_monitor_events_total{kind="level",level="liquidation"}' in out
