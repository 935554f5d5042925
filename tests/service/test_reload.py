"""SIGHUP: new settings into a running daemon, all or nothing."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from monitor.feeds.simulator import Simulator
from monitor.feeds.tape import Moment
from monitor.margin.levels import Level
from monitor.margin.prices import PriceKind
from monitor.service.local_rig import local_rig
from monitor.service.reload import changed_keys, needs_restart
from monitor.service.sample_book import sample_documents, sample_tables
from monitor.service.settings import Settings, load_settings
from monitor.service.wiring import Daemon
from monitor.wire.dialects.binance import binance_usdm
from monitor.wire.quotes import Quotes
from tests.support.broken_configs import broken_configs
from tests.support.http_server import answering, receiver
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
PRICES = {"BTCUSDT": 30_000.0, "ETHUSDT": 1_800.0}
SECRET = "0123456789abcdef"
LOWER = "[levels]\nwatch = { enter = 0.05, leave = 0.04 }\nmargin_call = { enter = 0.06, leave = 0.05 }\n"


def steady(count: int) -> list[Moment]:
    """Both prices, twenty times a second, hardly moving."""
    moments: list[Moment] = []
    for index in range(count):
        marks = {name: f"{price + index % 2:.2f}" for name, price in PRICES.items()}
        moments.append((index * 0.05, Quotes(time_ms=1_700_000_000_000 + index * 1000, numbers={PriceKind.MARK: marks})))
    return moments


class Running:
    """A daemon at work, and the file that it reads its settings from."""

    def __init__(self, daemon: Daemon, file: Path) -> None:
        self.daemon, self.file = daemon, file

    async def reload(self, text: str) -> bool:
        """Reloads with this text in the file."""
        self.file.write_text(text)
        return await self.daemon.reloader.reload()

    def calls(self) -> int:
        """Pools at a margin call or worse."""
        evaluator = self.daemon.evaluator
        assert evaluator is not None
        return sum(count for level, count in evaluator.engine.counts().items() if level is not None and level >= Level.MARGIN_CALL)

    def is_working(self) -> bool:
        """Whether the present evaluator has loaded, and prices go on."""
        evaluator = self.daemon.evaluator
        return evaluator is not None and evaluator.ready.is_set() and evaluator.statistics.messages > 0


@asynccontextmanager
async def running(tmp_path: Path, text: str = "") -> AsyncIterator[Running]:
    """A daemon on a steady market. What the rig sets for itself stands over the file, like flags."""
    tables = tmp_path / "tables.json"
    tables.write_bytes(orjson.dumps(sample_tables(PRICES)))
    file = tmp_path / "settings.toml"
    file.write_text(text)
    simulator = Simulator(binance_usdm(), steady(2_000), speed=1.0)
    documents = sample_documents(100, PRICES)
    async with asyncio.timeout(90), local_rig(tmp_path, simulator, documents, tables=[tables]) as rig:
        flags = {key: _at(rig.daemon.settings, key) for key in changed_keys(Settings(), rig.daemon.settings)}
        rig.daemon.reloader.path = file
        rig.daemon.reloader.load = lambda: load_settings(file, environment={}, overrides=flags)
        one = Running(rig.daemon, file)
        await until(one.is_working)
        yield one


def _at(settings: Settings, key: str) -> Any:
    value: Any = settings
    for part in key.split("."):
        value = getattr(value, part)
    return value


async def test_new_thresholds_are_in_force_at_once(tmp_path: Path) -> None:
    """Lower thresholds, then the old ones again: more pools in danger at the same prices, then as before; no price is missed."""
    async with running(tmp_path) as at:
        daemon, before, first = at.daemon, at.calls(), at.daemon.evaluator
        assert await at.reload(LOWER)
        await until(lambda: daemon.evaluator is not first and at.is_working())
        assert at.calls() > before + 10
        second = daemon.evaluator
        rows = sum(committer.partition.head.seq for committer in daemon.committers.values())
        assert await at.reload("")
        await until(lambda: daemon.evaluator is not second and at.is_working())
        assert at.calls() <= before + 2  # a pool may stand in the gap between enter and leave
        await until(lambda: sum(each.partition.head.seq for each in daemon.committers.values()) > rows + 10)
        assert daemon.evaluator is not None
        assert daemon.evaluator.statistics.gaps == 0
        assert daemon.restarts == 0


async def test_new_sinks_and_a_new_policy_take_over(tmp_path: Path) -> None:
    """A webhook, and then a policy in front of it: events go where the settings now say, and the evaluator does not notice."""
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    (tmp_path / "alerts.toml").write_text('[[routes]]\nname = "desk"\nsinks = ["hook"]\nurgent_wait = "1s"\n')
    async with receiver(answering("HTTP/1.1 200 OK\nContent-Length: 0\n\n")) as people, running(tmp_path) as at:
        hook = f'[sinks.webhook.hook]\nurl = "http://127.0.0.1:{people.port}/"\nallow = ["127.0.0.1"]\npassword_file = "{secret}"\n'
        first = at.daemon.evaluator
        assert await at.reload(hook)
        assert at.daemon.evaluator is first
        assert await at.reload(hook + LOWER)
        await until(lambda: len(people.requests) > 10)
        assert {orjson.loads(request.body)["kind"] for request in people.requests} == {"level"}
        assert await at.reload(f'{hook}events = false\n{LOWER}[alerts]\npolicy = "{tmp_path}/alerts.toml"\n')
        people.requests.clear()
        assert at.daemon.policy is not None
        assert await at.reload(f'{hook}events = false\n[alerts]\npolicy = "{tmp_path}/alerts.toml"\n')
        assert await at.reload(f'{hook}events = false\n{LOWER}[alerts]\npolicy = "{tmp_path}/alerts.toml"\n')
        await until(lambda: bool(people.requests), within_s=20)
        assert {orjson.loads(request.body)["kind"] for request in people.requests} == {"notice"}


async def test_what_only_a_restart_can_apply_is_refused_whole(tmp_path: Path) -> None:
    """One such key among good changes: none is applied, and the log names file, line and key."""
    async with running(tmp_path) as at:
        settings = at.daemon.settings
        assert not await at.reload(LOWER + "[cache]\nretain_ticks = 60_000\n")
        assert at.daemon.settings is settings
        assert at.daemon.reloader.refused == (
            f"{at.file}:5: cache.retain_ticks: '60000': expected '50000', as it runs: this key needs a restart"
        )


async def test_no_broken_settings_change_the_running_ones(tmp_path: Path) -> None:
    """500 broken files: each reload is refused and told in the metrics, and the daemon goes on with what it had."""
    async with running(tmp_path) as at:
        daemon, settings, evaluator, alerts = at.daemon, at.daemon.settings, at.daemon.evaluator, at.daemon.alerts
        daemon.reloader.load, with_flags = lambda: load_settings(at.file, environment={}), daemon.reloader.load
        documented = (ROOT / "config" / "margin-monitor.toml").read_text()
        (tmp_path / "x").mkdir()
        for text in broken_configs(documented, tmp_path / "x", 500):
            assert not await at.reload(text), text
            assert daemon.reloader.refused is not None
            assert "needs a restart" not in daemon.reloader.refused, text
        assert (daemon.settings, daemon.evaluator, daemon.alerts) == (settings, evaluator, alerts)
        daemon.reloader.load = with_flags
        at.file.write_text("[htp]\n")
        daemon.reloader.ask()
        await until(lambda: "settings.toml:1: htp" in (daemon.reloader.refused or ""))
        assert b"margin_monitor_config_last_reload_successful 0.0" in daemon.exposition.text("")[0]
        assert evaluator is not None
        messages = evaluator.statistics.messages
        await until(lambda: evaluator.statistics.messages > messages)
        at.file.write_text("")
        daemon.reloader.ask()
        await until(lambda: daemon.reloader.refused is None)


def test_the_process_reloads_at_a_signal(tmp_path: Path) -> None:
    """`run` gets SIGHUP three times: good, broken, good again; metrics and log tell each, and the process lives."""
    file = tmp_path / "settings.toml"
    fixed = f'[ledger]\nurl = "embedded"\ndata_dir = "{tmp_path}/ledger"\n[feeds]\nvenues = []\n[http]\nport = 0\n'
    file.write_text(fixed)
    command = [sys.executable, "-m", "monitor", "run", "--config", str(file)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        lines: list[str] = []

        def said(what: str) -> str:
            assert process.stderr is not None
            for line in process.stderr:
                lines.append(line)
                if what in line:
                    return line
            raise AssertionError("".join(lines))

        try:
            address = re.search(r"http://[\d.:]+", said("http_listening"))
            assert address is not None
            said(" ready ")
            first = _config_metrics(address[0])
            file.write_text(fixed + LOWER)
            process.send_signal(signal.SIGHUP)
            assert "levels.watch.enter" in said(" reloaded ")
            second = _config_metrics(address[0])
            file.write_text(fixed + "[levels]\nwacth = 1\n")
            process.send_signal(signal.SIGHUP)
            assert f"{file}:9: levels.wacth: 1: expected a known key, perhaps 'watch'" in said(" reload_refused ")
            third = _wait_for(lambda: _config_metrics(address[0]), lambda metrics: metrics["last_reload_successful"] == 0)
            file.write_text(fixed)
            process.send_signal(signal.SIGHUP)
            said(" reloaded ")
            fourth = _wait_for(lambda: _config_metrics(address[0]), lambda metrics: metrics["last_reload_successful"] == 1)
        finally:
            process.terminate()
            process.stderr.read()
            process.wait(20)

    assert [each["last_reload_successful"] for each in (first, second)] == [1, 1]
    assert first["hash"] != second["hash"] == third["hash"] != fourth["hash"] == first["hash"]
    assert first["timestamp"] < second["timestamp"] == third["timestamp"] < fourth["timestamp"]
    assert process.returncode == 0


def _config_metrics(address: str) -> dict[str, float]:
    with urllib.request.urlopen(f"{address}/metrics", timeout=10) as reply:
        found = dict(re.findall(r"^margin_monitor_config_(\w+) (\S+)$", reply.read().decode(), re.MULTILINE))
    assert set(found) == {"hash", "last_reload_successful", "last_reload_success_timestamp_seconds"}
    return {name.replace("last_reload_success_timestamp_seconds", "timestamp"): float(value) for name, value in found.items()}


def _wait_for(read: Callable[[], dict[str, float]], holds: Callable[[dict[str, float]], bool]) -> dict[str, float]:
    for _ in range(100):
        if holds(found := read()):
            return found
    raise AssertionError(found)


def test_keys_that_need_a_restart() -> None:
    """Sockets, partitions and venues; not what decides, who is told, and which symbols are read."""
    old = load_settings(None, environment={})
    new = load_settings(
        None, environment={}, overrides={"ledger.wait_s": 1, "feeds.okx.symbols": ["X"], "feeds.okx.url": "wss://x", "log.level": "error"}
    )
    changed = changed_keys(old, new)

    assert changed == ["ledger.wait_s", "feeds.okx.url", "feeds.okx.symbols", "log.level"]
    assert [key for key in changed if needs_restart(key)] == ["ledger.wait_s", "feeds.okx.url"]
