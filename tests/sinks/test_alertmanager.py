"""Alertmanager: a real one shows what fires and what is over, and forgets nothing because we restart or it does."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import orjson
import pytest

from monitor.margin.levels import Level
from monitor.sinks.alertmanager import AlertmanagerOptions, AlertmanagerSink
from monitor.sinks.base import Reason, Sink
from monitor.sinks.http_post import Networks, PostOptions
from monitor.wire.rows import Delivered, Refused, Row, Unavailable
from tests.support.events import row
from tests.support.http_server import answering, receiver
from tests.support.mosquitto import free_port
from tests.support.waiting import until

BINARY = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
needs_alertmanager = pytest.mark.skipif(BINARY is None, reason="needs prometheus-alertmanager on the PATH")
LOOPBACK = PostOptions(networks=Networks.of(["127.0.0.1"]), timeout_s=5.0)
OK = answering("HTTP/1.1 200 OK\n\n")


class Alertmanager:
    """A real one on a free loopback port."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        (folder / "alertmanager.yml").write_text("route:\n  receiver: nobody\nreceivers:\n  - name: nobody\n")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and waits until it is ready."""
        assert BINARY is not None
        self._process = subprocess.Popen(
            [
                BINARY,
                f"--config.file={self._folder}/alertmanager.yml",
                f"--storage.path={self._folder}/data",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--cluster.listen-address=",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 20
        while True:
            assert self._process.poll() is None, "alertmanager has ended"
            try:
                with urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=1):
                    return
            except OSError:
                assert time.monotonic() < deadline, "alertmanager is not ready"
                time.sleep(0.02)

    def kill(self) -> None:
        """Ends it as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def alerts(self) -> dict[tuple[str, str, str], dict[str, Any]]:
        """What is active, by name, pool and severity."""
        with urlopen(f"http://127.0.0.1:{self.port}/api/v2/alerts", timeout=5) as answer:
            alerts = orjson.loads(answer.read())
        return {(a["labels"]["alertname"], a["labels"].get("pool", ""), a["labels"].get("severity", "")): a for a in alerts}


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[Alertmanager]:
    """A running Alertmanager."""
    server = Alertmanager(tmp_path)
    server.start()
    yield server
    server.kill()


def sink_on(port: int, *, clock: Callable[[], float] = time.time, **options: Any) -> AlertmanagerSink:
    """A sink for a loopback port."""
    return AlertmanagerSink(AlertmanagerOptions(**{"url": f"http://127.0.0.1:{port}", "post": LOOPBACK, **options}), clock=clock)


def now_row(seq: int, **changes: Any) -> Row:
    """A row decided just now."""
    return row(seq, decided_at_ns=time.time_ns(), **changes)


@needs_alertmanager
async def test_levels_fire_move_and_end(alertmanager: Alertmanager) -> None:
    """A margin call fires; a liquidation takes its place; unknown fires beside it and does not end it; healthy ends all."""
    sink = sink_on(alertmanager.port)
    assert isinstance(sink, Sink)
    await sink.open()
    seen: list[set[tuple[str, str, str]]] = []
    for changes in (
        {"level": "margin_call", "previous": "watch"},
        {"level": "liquidation", "previous": "margin_call"},
        {"level": "liquidation", "previous": "liquidation", "unknown": "mark is stale"},
        {"level": "watch", "previous": "liquidation", "previous_unknown": "mark is stale"},
        {"level": "healthy", "previous": "watch"},
    ):
        assert await sink.deliver(now_row(len(seen) + 1, **changes)) == Delivered()
        seen.append(set(alertmanager.alerts()))
    await sink.close()

    pool = "cross:USDT"
    assert seen == [
        {("MarginLevel", pool, "margin_call")},
        {("MarginLevel", pool, "liquidation")},
        {("MarginLevel", pool, "liquidation"), ("MarginUnknown", pool, "")},
        {("MarginLevel", pool, "watch")},
        set(),
    ]
    assert sink.firing == 0


@needs_alertmanager
async def test_what_fires_comes_back_after_alertmanager_forgot_it(alertmanager: Alertmanager) -> None:
    """Alertmanager keeps no alerts over a restart; they are sent again, those from before our own restart too."""
    sink = sink_on(alertmanager.port, resend_s=0.05)
    sink.adopt(account="old", group=None, venue="okx", pool="cross", level=Level.LIQUIDATION, unknown=None)
    sink.adopt(account="old", group=None, venue="okx", pool="isolated:X", level=Level.HEALTHY, unknown="stale")
    await sink.open()
    await sink.deliver(now_row(1))
    alertmanager.kill()
    alertmanager.start()
    await until(lambda: len(alertmanager.alerts()) == 3)
    await sink.close()

    assert set(alertmanager.alerts()) == {
        ("MarginLevel", "cross:USDT", "margin_call"),
        ("MarginLevel", "cross", "liquidation"),
        ("MarginUnknown", "isolated:X", ""),
    }
    alert = alertmanager.alerts()["MarginLevel", "cross:USDT", "margin_call"]
    assert alert["labels"] == {
        "alertname": "MarginLevel",
        "account": "acme-1",
        "group": "desk-a",
        "pool": "cross:USDT",
        "venue": "binance_usdm",
        "severity": "margin_call",
    }
    assert alert["annotations"]["summary"] == "MARGIN CALL acme-1 cross:USDT"
    assert "82.16%" in alert["annotations"]["description"]


@needs_alertmanager
async def test_a_blind_row_fires(alertmanager: Alertmanager) -> None:
    """A stretch nobody saw is an alert of its partition."""
    sink = sink_on(alertmanager.port)
    blind = Row(partition=3, seq=1, token=1, body=b'{"id":"3/1-1","kind":"blind"}', hash="")

    assert await sink.deliver(blind) == Delivered()
    assert set(alertmanager.alerts()) == {("MarginBlind", "", "")}
    assert sink.firing == 0


async def test_an_alertmanager_that_is_away_is_unavailable_and_remembers_nothing_wrong() -> None:
    """A row that did not arrive changes nothing; offered again it does."""
    async with receiver(answering("HTTP/1.1 500 Oh\nContent-Length: 0\n\n"), OK) as server:
        sink = sink_on(server.port)
        first = await sink.deliver(now_row(1))
        firing = sink.firing
        second = await sink.deliver(now_row(1))

    assert isinstance(first, Unavailable)
    assert (first.reason, firing) == (Reason.SERVER_ERROR, 0)
    assert (second, sink.firing) == (Delivered(), 1)


async def test_closing_resolves_nothing_and_is_quick() -> None:
    """Our shutdown is no all-clear, and does not wait for the next resend."""
    async with receiver(OK) as server:
        sink = sink_on(server.port, resend_s=3600.0)
        await sink.open()
        await sink.deliver(now_row(1))
        async with asyncio.timeout(1):
            await sink.close()

    assert len(server.requests) == 1
    alert = orjson.loads(server.requests[0].body)[-1]
    assert server.requests[0].line == "POST /api/v2/alerts HTTP/1.1"
    assert alert["endsAt"] > alert["startsAt"]


async def test_many_alerts_are_sent_again_in_pieces() -> None:
    """A thousand firing pools are several requests of a bounded size."""
    async with receiver(OK) as server:
        sink = sink_on(server.port, resend_s=0.02)
        for number in range(1000):
            sink.adopt(account=f"a{number}", group=None, venue=None, pool="cross", level=Level.WATCH, unknown=None)
        await sink.open()
        await until(lambda: sink.resent >= 1000)
        await sink.close()

    assert all(len(orjson.loads(request.body)) <= 200 for request in server.requests)


async def test_notices_and_broken_rows() -> None:
    """A finished notice is not for Alertmanager; bytes that are no event are refused."""
    sink = sink_on(1)
    notice = Row(partition=0, seq=1, token=1, body=b'{"kind":"notice","sinks":["alertmanager"]}', hash="")

    assert await sink.deliver(notice) == Delivered()
    assert isinstance(await sink.deliver(Row(partition=0, seq=1, token=1, body=b"[]", hash="")), Refused)


async def test_only_who_leads_sends_again() -> None:
    """A deposed process would keep alive what is long over; when it leads again it begins with what the ledger says."""
    leads = True
    async with receiver(OK) as server:
        options = AlertmanagerOptions(url=f"http://127.0.0.1:{server.port}", post=LOOPBACK, resend_s=0.02)
        sink = AlertmanagerSink(options, may_send=lambda: leads)
        sink.adopt(account="old", group=None, venue=None, pool="cross", level=Level.WATCH, unknown=None)
        await sink.open()
        await until(lambda: sink.resent > 0)
        leads = False
        await asyncio.sleep(0.05)
        sent = sink.resent
        await asyncio.sleep(0.1)
        quiet = sink.resent == sent
        sink.forget()
        sink.adopt(account="new", group=None, venue=None, pool="cross", level=Level.WATCH, unknown=None)
        leads = True
        await until(lambda: sink.resent > sent)
        await sink.close()

    assert quiet
    assert b'"old"' not in server.requests[-1].body
    assert b'"new"' in server.requests[-1].body
