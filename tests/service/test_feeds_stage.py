"""From the venues' sockets to the cache, through the whole daemon: every number of nine venues, and every recorded frame with a mark."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from monitor.feeds.market import SAMPLES, MarketShape, venue_market
from monitor.feeds.simulator import Simulator
from monitor.feeds.tape import Moment, Sent, read_capture
from monitor.feeds.venues import DIALECTS, PROFILES
from monitor.ledger.cache import StoredPrice, read_marks
from monitor.ledger.connection import Endpoint, Link
from monitor.margin.prices import PriceKind
from monitor.service.feeds_stage import wanted_key
from monitor.service.local_rig import LocalRig, local_rig
from monitor.wire.quotes import Quotes
from tests.support.shared import SHARED, needs_shared
from tests.support.waiting import until

WS = SHARED / "data" / "ws"
SINGLE = WS / "_fixtures_nautilus"


@asynccontextmanager
async def daemon_of(folder: Path, simulators: Mapping[str, Simulator], symbols: Mapping[str, Sequence[str]]) -> AsyncIterator[LocalRig]:
    """A daemon that reads all these venues, and no accounts."""
    async with AsyncExitStack() as stack, asyncio.timeout(60):
        first, *others = simulators.values()
        for other in others:
            await stack.enter_async_context(other.running())
        overrides: dict[str, Any] = {"feeds.venues": list(simulators)}
        overrides |= {f"feeds.{venue}.url": simulator.url for venue, simulator in simulators.items() if simulator is not first}
        overrides |= {f"feeds.{venue}.symbols": list(names) for venue, names in symbols.items()}
        yield await stack.enter_async_context(local_rig(folder, first, [], overrides=overrides))


async def stored(rig: LocalRig) -> dict[str, dict[str, StoredPrice]]:
    """`marks:<venue>` of every venue, once all that was read is written."""
    feeds = rig.daemon.feeds
    assert feeds is not None
    await feeds.publisher.drained()
    link = Link(Endpoint.parse(rig.server.url))
    return {venue: await read_marks(link, venue) for venue in feeds.feeds}


async def test_every_number_of_nine_venues_is_in_the_cache(tmp_path: Path) -> None:
    """Marks, indices, funding rates and their times, volatilities and forwards of options, open interest: as the venue sent them last."""
    simulators = {
        venue: Simulator(DIALECTS[venue](), venue_market(SAMPLES[venue], seed=5, shape=MarketShape(steps=4, step_s=0.25)))
        for venue in sorted(PROFILES)
    }
    symbols = {venue: (*SAMPLES[venue].instruments, *SAMPLES[venue].options) for venue in simulators}
    async with daemon_of(tmp_path, simulators, symbols) as rig:
        link = Link(Endpoint.parse(rig.server.url))
        for venue in simulators:
            needed = orjson.dumps({"index": list(SAMPLES[venue].assets)})
            await link.run(lambda wire, venue=venue, needed=needed: wire.call("SET", wanted_key(venue), needed, timeout_s=5.0))  # type: ignore[misc]
        for simulator in simulators.values():
            await simulator.played()
        wanted = {venue: sent_of(venue, simulator.latest) for venue, simulator in simulators.items()}
        found: dict[str, dict[str, StoredPrice]] = {}

        async def arrived() -> bool:
            nonlocal found
            found = await stored(rig)
            return all(wanted[venue].keys() <= found[venue].keys() for venue in wanted)

        while not await arrived():
            await asyncio.sleep(0.02)

    for venue, numbers in wanted.items():
        taken = {name: price.price for name, price in found[venue].items() if name in numbers}
        assert taken == pytest.approx(numbers, rel=1e-12), venue  # Deribit tells volatilities in percent
        assert all(price.received_at_ns > 0 for price in found[venue].values())
        assert all(price.venue_time_ms > 0 for name, price in found[venue].items() if name.startswith("mark:")) or venue in {
            "hyperliquid",
            "dydx_v4",
        }
    for venue in ("binance_usdm", "binance_coinm", "bybit", "okx", "bitmex", "kraken_futures"):
        assert any(name.startswith("funding_time:") for name in wanted[venue]), venue
    for venue in ("bybit", "okx", "deribit"):
        assert {"volatility", "forward"} <= {name.partition(":")[0] for name in wanted[venue]}, venue


def sent_of(venue: str, quotes: Quotes) -> dict[str, float]:
    """`kind:name` -> number of what a venue sends on its topics. Indices, asked for while the tape was played, may be missed."""
    sent = {f"{kind.value}:{name}": float(text) for kind, numbers in quotes.numbers.items() for name, text in numbers.items()}
    return {
        name: number
        for name, number in sent.items()
        if not name.startswith("index:") and not (venue == "okx" and name.startswith("funding_") and not name.endswith("-SWAP"))
    }


async def test_no_venue_at_all_is_ready_and_says_why(tmp_path: Path) -> None:
    """`feeds.venues = []`: prices come in documents or from another process, and `/readyz` passes with these words."""
    simulator = Simulator(DIALECTS["binance_usdm"](), [])
    async with asyncio.timeout(60), local_rig(tmp_path, simulator, [], overrides={"feeds.venues": []}) as rig:
        await until(lambda: rig.daemon.feeds is not None)
        checks = {check.name: check for check in rig.daemon.readings.ready()}

    assert all(check.passed for check in checks.values()), checks
    assert "feeds.venues names none" in checks["feeds"].detail


def body_of(path: Path) -> Any:
    """A file of one JSON value."""
    return json.loads(path.read_text())


def recorded() -> dict[str, tuple[list[bytes], dict[str, float]]]:
    """Every recorded frame with marks of a venue that has a codec, by venue: frames in the order of their times, and the last marks.

    Read with the standard library alone. Rows and messages that were stored without their envelope get it back.
    """
    frames: dict[str, list[tuple[int, bytes, dict[str, Any]]]] = {venue: [] for venue in PROFILES}
    for frame in read_capture(WS / "deribit" / "cryptofeed_1.0.jsonl.gz"):
        body = json.loads(frame.data)
        if body.get("params", {}).get("channel", "").startswith("ticker."):
            data = body["params"]["data"]
            frames["deribit"].append((data["timestamp"], frame.data, {data["instrument_name"]: data["mark_price"]}))
    ticker = body_of(SINGLE / "deribit/ws_ticker.json")
    data = ticker["params"]["data"]
    frames["deribit"].append((data["timestamp"], json.dumps(ticker).encode(), {data["instrument_name"]: data["mark_price"]}))
    for path in sorted((WS / "hyperliquid").glob("gareth_webSocketDataSample__*.jsonl.gz")):
        for line in gzip.decompress(path.read_bytes()).splitlines():
            body = json.loads(line)
            page = body.get("data", {})
            if body.get("channel") == "webData2" and "assetCtxs" in page:
                rows = zip(page["meta"]["universe"], page["assetCtxs"], strict=True)
                frames["hyperliquid"].append((page["serverTime"], line, {row["name"]: context["markPx"] for row, context in rows}))
    for line in (WS / "excerpts_2026.jsonl").read_bytes().splitlines():
        body = json.loads(line)
        if body.get("e") == "markPriceUpdate":
            frames["binance_usdm"].append((body["E"], line, {body["s"]: body["p"]}))
        elif body.get("topic", "").startswith("tickers."):
            frames["bybit"].append((body["ts"], line, {body["data"]["symbol"]: body["data"]["markPrice"]}))
        elif body.get("arg", {}).get("channel") == "mark-price":
            (row,) = body["data"]
            frames["okx"].append((int(row["ts"]), line, {row["instId"]: row["markPx"]}))
    for name in ("linear", "option"):
        body = body_of(SINGLE / f"bybit/ws_ticker_{name}.json")
        frames["bybit"].append((body["ts"], json.dumps(body).encode(), {body["data"]["symbol"]: body["data"]["markPrice"]}))
    body = body_of(SINGLE / "binance/futures/market_data_json/mark_price_stream.json")
    frames["binance_usdm"].append((body["E"], json.dumps(body).encode(), {body["s"]: body["p"]}))
    text = gzip.decompress((SHARED / "data/meta/cryptofeed_rest/bitmex.0.gz").read_bytes()).decode()
    table = json.loads(text[text.index("[{") : text.rindex("}]") + 2])
    partial = {"table": "instrument", "action": "partial", "data": table}
    marks = {row["symbol"]: row["markPrice"] for row in table if row["markPrice"] is not None}
    frames["bitmex"].append((1, json.dumps(partial).encode(), marks))
    for index, name in enumerate(("ws_instrument", "ws_instrument_mark_update"), start=2):
        row = body_of(SINGLE / f"bitmex/{name}.json")
        update = {"table": "instrument", "action": "update", "data": [row]}
        frames["bitmex"].append((index, json.dumps(update).encode(), {row["symbol"]: row["markPrice"]}))
    body = body_of(SINGLE / "kraken/ws_futures_ticker.json")
    frames["kraken_futures"].append((body["time"], json.dumps(body).encode(), {body["product_id"]: body["markPrice"]}))
    body = body_of(SINGLE / "dydx/ws_markets_subscribed.json")
    rows = body["contents"]["markets"]
    frames["dydx_v4"].append((1, json.dumps(body).encode(), {name: row["oraclePrice"] for name, row in rows.items()}))
    body = body_of(SINGLE / "dydx/ws_markets_update.json")
    rows = body["contents"]["oraclePrices"]
    frames["dydx_v4"].append((2, json.dumps(body).encode(), {name: row["oraclePrice"] for name, row in rows.items()}))
    found: dict[str, tuple[list[bytes], dict[str, float]]] = {}
    for venue, several in frames.items():
        last: dict[str, float] = {}
        several.sort(key=lambda one: one[0])
        for _time, _frame, marks in several:
            last.update({name: float(mark) for name, mark in marks.items()})
        if several:
            found[venue] = ([frame for _time, frame, _marks in several], last)
    return found


@needs_shared
async def test_every_recorded_mark_is_in_the_cache(tmp_path: Path) -> None:
    """All recorded frames with marks of eight venues through the daemon: what stands in Redis are the last marks of the files."""
    frames = recorded()
    simulators: dict[str, Simulator] = {}
    for venue, (sent, _last) in frames.items():
        tape: list[Moment] = [(0.0, Sent("", frame)) for frame in sent]
        simulators[venue] = Simulator(DIALECTS[venue](), tape, speed="max")
    async with daemon_of(tmp_path, simulators, {venue: list(last) for venue, (_sent, last) in frames.items()}) as rig:
        feeds = rig.daemon.feeds
        assert feeds is not None
        for venue, simulator in simulators.items():
            await simulator.played()
            statistics = feeds.feeds[venue].statistics
            await until(lambda statistics=statistics, simulator=simulator: statistics.messages >= simulator.statistics.frames)  # type: ignore[misc]
        found = await stored(rig)

    assert set(frames) == set(PROFILES) - {"binance_coinm"}  # of which no frame with a mark was ever recorded
    assert len(frames["deribit"][0]) == 90
    assert len(frames["hyperliquid"][0]) == 6
    for venue, (_sent, last) in frames.items():
        taken = {name.partition(":")[2]: price.price for name, price in found[venue].items() if name.startswith(f"{PriceKind.MARK.value}:")}
        assert taken == last, venue


@needs_shared
def test_the_page_says_what_each_codec_is_proven_on() -> None:
    """docs/reference/venues.md counts, for each venue, the recorded frames that go through the daemon and the marks they leave in Redis."""
    page = (Path(__file__).parents[2] / "docs" / "reference" / "venues.md").read_text()
    rows = {line.split("|")[1].strip(): line for line in page.partition("is proven on\n")[2].splitlines() if line.startswith("| ")}
    frames = recorded()
    for venue in PROFILES:
        sent, last = frames.get(venue, ([], {}))
        words = f"{len(sent)} frame{'s' * (len(sent) != 1)}, {len(last)} mark{'s' * (len(last) != 1)}" if sent else "none"

        assert rows[venue].endswith(f"| {words} |"), (venue, words)
