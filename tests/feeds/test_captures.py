"""Real frames from the venues: what the codecs read is what the file says, computed here by another reader."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from monitor.errors import CodecError
from monitor.feeds.simulator import Simulator
from monitor.feeds.supervisor import VenueFeed
from monitor.feeds.tape import Frame, frames_tape, read_capture
from monitor.feeds.venues import DIALECTS, PROFILES
from monitor.margin.prices import PriceKind
from monitor.wire.frames import Codec, Decoded, Wanted
from monitor.wire.prices import PriceBatch
from tests.support.fake_clock import FakeClock
from tests.support.shared import SHARED, needs_shared
from tests.support.waiting import until

pytestmark = needs_shared
WS = SHARED / "data" / "ws"
NAUTILUS = WS / "_fixtures_nautilus"
NOW_NS = 1_795_000_000_000_000_000

Numbers = dict[tuple[PriceKind, str], float]


def codec_of(venue: str) -> Codec:
    """A codec of the venue's first endpoint."""
    return PROFILES[venue].codec(next(iter(PROFILES[venue].endpoints)))


def take(numbers: Numbers, batches: list[PriceBatch]) -> None:
    """The last number of each kind and name."""
    for batch in batches:
        numbers.update({(batch.kind, name): price for name, price in zip(batch.names, batch.prices, strict=True)})


def read_all(codec: Codec, frames: list[Frame]) -> tuple[Numbers, dict[str, int]]:
    """Last numbers of a capture, and how the frames without prices ended."""
    numbers: Numbers = {}
    outcomes: dict[str, int] = {}
    for frame in frames:
        try:
            decoded = codec.decode(frame.data, frame.received_at_ns)
        except CodecError as error:
            outcomes[error.reason] = outcomes.get(error.reason, 0) + 1
            continue
        take(numbers, decoded.batches)
        for reason, count in (decoded.rejected or {}).items():
            outcomes[f"item {reason}"] = outcomes.get(f"item {reason}", 0) + count
    return numbers, outcomes


def decode_one(venue: str, body: Any) -> Decoded:
    """One frame through a fresh codec."""
    return codec_of(venue).decode(orjson.dumps(body), NOW_NS)


def numbers_of(decoded: Decoded) -> Numbers:
    """What one frame gave."""
    numbers: Numbers = {}
    take(numbers, decoded.batches)
    return numbers


def fixture(path: str) -> Any:
    """One frame of the single-frame collection."""
    return json.loads((NAUTILUS / path).read_text())


def deribit_last() -> Numbers:
    """The last numbers of the Deribit capture, read with the standard library."""
    numbers: Numbers = {}
    for frame in read_capture(WS / "deribit" / "cryptofeed_1.0.jsonl.gz"):
        body = json.loads(frame.data)
        data = body.get("params", {}).get("data")
        if body.get("params", {}).get("channel", "").startswith("ticker."):
            name = data["instrument_name"]
            numbers[PriceKind.MARK, name] = data["mark_price"]
            numbers[PriceKind.VOLATILITY, name] = data["mark_iv"] / 100
            numbers[PriceKind.FORWARD, name] = data["underlying_price"]
    return numbers


def test_deribit_options_of_a_real_half_minute() -> None:
    """89 tickers of ten options: the last marks, volatilities and forwards are the file's last; other channels are left alone."""
    frames = list(read_capture(WS / "deribit" / "cryptofeed_1.0.jsonl.gz"))
    numbers, outcomes = read_all(codec_of("deribit"), frames)

    assert numbers == deribit_last()
    assert len([item for item in numbers if item[0] is PriceKind.MARK]) == 10
    assert set(outcomes) == {"unknown_message"}


async def test_deribit_capture_through_simulator_and_feed() -> None:
    """The same capture as a tape: what the feed hands on is the file's last, and nothing is rejected but other channels."""
    expected = deribit_last()
    simulator = Simulator(DIALECTS["deribit"](), frames_tape(read_capture(WS / "deribit" / "cryptofeed_1.0.jsonl.gz")), speed="max")
    numbers: Numbers = {}
    async with simulator.running():
        names = frozenset(name for kind, name in expected if kind is PriceKind.MARK)
        wanted = Wanted(instruments=names, kinds=frozenset({PriceKind.FORWARD}))
        feed = VenueFeed(PROFILES["deribit"].at(simulator.url), wanted, lambda batches: take(numbers, batches))
        async with asyncio.TaskGroup() as group:
            running = group.create_task(feed.run())
            await simulator.played()
            await until(lambda: feed.statistics.messages >= simulator.statistics.frames)
            running.cancel()

    assert numbers == expected
    assert set(feed.statistics.rejected) == {"unknown_message"}


def hyperliquid_pages() -> Iterator[tuple[str, bytes]]:
    """Every recorded frame of the user's page."""
    for path in sorted((WS / "hyperliquid").glob("gareth_webSocketDataSample__*.jsonl.gz")):
        for line in gzip.decompress(path.read_bytes()).splitlines():
            yield path.name, line


def test_hyperliquid_pages_with_all_markets() -> None:
    """Seven pages of about 200 markets each: the marks are those at the names' places, digit by digit, in the server's time."""
    whole = 0
    for name, line in hyperliquid_pages():
        body = json.loads(line)
        if "channel" not in body:  # files whose frames were reduced to their data
            with pytest.raises(CodecError):
                codec_of("hyperliquid").decode(line, NOW_NS)
            continue
        decoded = codec_of("hyperliquid").decode(line, NOW_NS)
        data = body.get("data", {})
        if body["channel"] != "webData2" or "assetCtxs" not in data:
            assert decoded.batches == []
            continue
        whole += 1
        expected = {row["name"]: float(context["markPx"]) for row, context in zip(data["meta"]["universe"], data["assetCtxs"], strict=True)}
        marks = next(batch for batch in decoded.batches if batch.kind is PriceKind.MARK)
        assert dict(zip(marks.names, marks.prices, strict=True)) == expected, name
        assert set(marks.venue_times_ms) == {data["serverTime"]}
        assert decoded.rejected is None
    assert whole == 6


def test_hyperliquid_contexts_of_all_dexes() -> None:
    """The recorded frame of 412 markets in nine dexes: nothing without names; with names every mark at its place."""
    body = fixture("hyperliquid/ws_all_dexs_asset_ctxs.json")
    codec = codec_of("hyperliquid")
    count = sum(len(contexts) for _dex, contexts in body["data"]["ctxs"])

    blind = codec.decode(orjson.dumps(body), NOW_NS)
    assert blind.batches == []
    assert blind.rejected == {"no_universe": count}

    metas = [
        {"universe": [{"name": f"{dex}:M{index}" if dex else f"M{index}"} for index in range(len(contexts))]}
        for dex, contexts in body["data"]["ctxs"]
    ]
    answer = {"channel": "post", "data": {"id": 1, "response": {"type": "info", "payload": {"type": "allPerpMetas", "data": metas}}}}
    codec.decode(orjson.dumps(answer), NOW_NS)
    numbers = numbers_of(codec.decode(orjson.dumps(body), NOW_NS))

    expected = {
        (PriceKind.MARK, f"{dex}:M{index}" if dex else f"M{index}"): float(context["markPx"])
        for dex, contexts in body["data"]["ctxs"]
        for index, context in enumerate(contexts)
    }
    assert {item: price for item, price in numbers.items() if item[0] is PriceKind.MARK} == expected
    assert len(expected) == count == 412


def test_hyperliquid_mid_prices_are_not_taken() -> None:
    """The recorded all-mids frames carry 398 coins and not one mark."""
    assert decode_one("hyperliquid", fixture("hyperliquid/ws_allmids.json")).batches == []


def test_excerpts_of_2026() -> None:
    """Frames copied from the venues in autumn 2026, with their newer fields."""
    by_kind: dict[str, list[Decoded]] = {}
    for line in (WS / "excerpts_2026.jsonl").read_bytes().splitlines():
        body = orjson.loads(line)
        venue = "binance_usdm" if "e" in body else "okx" if "arg" in body else "bybit"
        by_kind.setdefault(venue, []).append(codec_of(venue).decode(line, NOW_NS))

    bybit, okx = by_kind["bybit"], by_kind["okx"]
    assert numbers_of(bybit[0]) == {(PriceKind.MARK, "BTCUSDT"): 86716.3, (PriceKind.INDEX, "BTC/USDT"): 86756.7}
    assert [type(control).__name__ for decoded in bybit for control in decoded.controls] == ["Confirmed", "Pong", "Denied"]
    assert numbers_of(by_kind["binance_usdm"][0]) == {
        (PriceKind.MARK, "BTCUSDT"): 86520.0,
        (PriceKind.FUNDING_RATE, "BTCUSDT"): 8.37e-06,
        (PriceKind.FUNDING_TIME, "BTCUSDT"): 1_790_150_400_000,
    }
    assert [numbers_of(decoded) for decoded in okx] == [
        {(PriceKind.MARK, "BTC-USDT-SWAP"): 83679.8},
        {},  # an index in USDT is no asset's in USD
        {
            (PriceKind.FUNDING_RATE, "BTC-USDT-SWAP"): 0.0000263463215391,
            (PriceKind.FUNDING_TIME, "BTC-USDT-SWAP"): 1_790_380_800_000,
        },
        {(PriceKind.MARK, "BTC-USDT-SWAP"): 110562.0},
    ]


def test_bitmex_rows_of_a_real_market() -> None:
    """The instruments of 2021-07-22 as a partial: every mark, and the index of each coin whose perpetual is quoted in dollars."""
    text = gzip.decompress((SHARED / "data/meta/cryptofeed_rest/bitmex.0.gz").read_bytes()).decode()
    rows = json.loads(text[text.index("[{") : text.rindex("}]") + 2])
    decoded = decode_one("bitmex", {"table": "instrument", "action": "partial", "data": rows})
    numbers = numbers_of(decoded)

    assert {name: price for (kind, name), price in numbers.items() if kind is PriceKind.MARK} == {
        row["symbol"]: row["markPrice"] for row in rows if row["markPrice"] is not None
    }
    perpetuals = [row for row in rows if row["typ"] == "FFWCSX" and row["quoteCurrency"] == "USD"]
    assert {name: price for (kind, name), price in numbers.items() if kind is PriceKind.INDEX} == {
        row["underlying"]: row["indicativeSettlePrice"] for row in perpetuals
    }
    assert {row["underlying"] for row in perpetuals} >= {"XBT", "ETH"}
    assert decoded.rejected is None


def test_single_frames() -> None:
    """One collected frame each of BitMEX, Kraken, dYdX, Deribit and Bybit."""
    for path in ("bitmex/ws_instrument.json", "bitmex/ws_instrument_mark_update.json"):
        row = fixture(path)
        assert (
            numbers_of(decode_one("bitmex", {"table": "instrument", "action": "update", "data": [row]}))[PriceKind.MARK, row["symbol"]]
            == (row["markPrice"])
        )
    kraken = fixture("kraken/ws_futures_ticker.json")
    numbers = numbers_of(decode_one("kraken_futures", kraken))
    assert (numbers[PriceKind.MARK, "PI_XBTUSD"], numbers[PriceKind.INDEX, "XBT"]) == (kraken["markPrice"], kraken["index"])
    dydx = fixture("dydx/ws_markets_subscribed.json")
    assert {name: price for (kind, name), price in numbers_of(decode_one("dydx_v4", dydx)).items() if kind is PriceKind.MARK} == {
        name: float(row["oraclePrice"]) for name, row in dydx["contents"]["markets"].items()
    }
    update = fixture("dydx/ws_markets_update.json")
    assert {name: price for (_kind, name), price in numbers_of(decode_one("dydx_v4", update)).items()} == {
        name: float(row["oraclePrice"]) for name, row in update["contents"]["oraclePrices"].items()
    }
    assert decode_one("dydx_v4", fixture("dydx/ws_markets_status_update.json")).rejected is None
    ticker = fixture("deribit/ws_ticker.json")
    assert numbers_of(decode_one("deribit", ticker))[PriceKind.MARK, "BTC-PERPETUAL"] == ticker["params"]["data"]["mark_price"]
    option = fixture("bybit/ws_ticker_option.json")
    assert numbers_of(decode_one("bybit", option)) == {
        (PriceKind.MARK, "BTC-6JAN23-17500-C"): 7.86976724,
        (PriceKind.VOLATILITY, "BTC-6JAN23-17500-C"): 0.4896,
        (PriceKind.FORWARD, "BTC-6JAN23-17500-C"): 16815.1,
    }
    linear = fixture("bybit/ws_ticker_linear.json")
    assert numbers_of(decode_one("bybit", linear))[PriceKind.MARK, "BTCUSDT"] == float(linear["data"]["markPrice"])
    summary = {"arg": {"channel": "opt-summary", "instFamily": "BTC-USD"}, "data": fixture("okx/ws_opt_summary.json")}
    assert numbers_of(decode_one("okx", summary))[PriceKind.VOLATILITY, "BTC-USD-250328-92000-C"] == 0.53
    binance = fixture("binance/futures/market_data_json/mark_price_stream.json")
    assert numbers_of(decode_one("binance_usdm", binance))[PriceKind.MARK, "BTCUSDT"] == float(binance["p"])
    for path in ("deribit/ws_error.json", "deribit/ws_subscribe_response.json", "deribit/ws_test_request.json"):
        assert len(decode_one("deribit", fixture(path)).controls) == 1
    for path in ("bybit/ws_subscription_ack.json", "bybit/ws_subscription_failure.json"):
        assert len(decode_one("bybit", fixture(path)).controls) == 1


@pytest.mark.parametrize(
    ("venue", "folder"),
    [
        ("binance_usdm", "binance_usdm/cryptofeed_1.0.jsonl.gz"),
        ("binance_coinm", "binance_coinm/cryptofeed_1.0.jsonl.gz"),
        ("okx", "okx/cryptofeed_1.0.jsonl.gz"),
        ("bitmex", "bitmex/cryptofeed_1.0.jsonl.gz"),
        ("kraken_futures", "kraken_futures/cryptofeed_1.0.jsonl.gz"),
        ("bybit", "bybit/cryptofeed_25.0.jsonl.gz"),
        ("dydx_v4", "dydx_v3/cryptofeed_1.0.jsonl.gz"),
    ],
)
def test_half_minutes_without_marks(venue: str, folder: str) -> None:
    """Thousands of real frames of other channels, and of retired versions, give no mark and raise nothing but codec errors."""
    frames = list(read_capture(WS / folder))
    numbers, outcomes = read_all(codec_of(venue), frames)

    assert numbers == {}
    assert len(frames) > 400
    assert set(outcomes) <= {"unknown_message", "wrong_shape", "item bad_name"}


@pytest.mark.parametrize("path", sorted((WS / "binance_usdm").glob("hftbacktest*")) + sorted((WS / "binance_coinm").glob("hftbacktest*")))
def test_raw_streams_of_a_receiver_whose_clock_is_slow(path: Path) -> None:
    """Real best-price and trade frames, received 1.27 s before they were sent by the clock: not marks, and nothing breaks."""
    venue = path.parent.name
    codec = codec_of(venue)
    with gzip.open(path) as file:
        for _number, line in zip(range(5_000), file, strict=False):
            stamp, _, frame = line.partition(b" ")
            with pytest.raises(CodecError) as caught:
                codec.decode(frame, int(stamp))
            assert caught.value.reason == "unknown_message"


@pytest.mark.parametrize("path", sorted((WS / "binance_usdm").glob("hftbacktest*")))
async def test_the_skew_of_a_receiver_whose_clock_is_slow(path: Path) -> None:
    """Marks with the event times of the capture, received when its frames were: the feed tells the 1.27 s by which the clock was wrong.

    The frames themselves carry no marks: their stamps are real, the marks are not. Event time and receive time both stay with the number.
    """
    with gzip.open(path) as file:
        stamps = [(int(line[:19]), json.loads(line[20:])["data"]["E"]) for _number, line in zip(range(300), file, strict=False)]
    clock = FakeClock(wall_ns=stamps[0][0])
    simulator = Simulator(DIALECTS["binance_usdm"](), [], clock=clock)
    taken: list[PriceBatch] = []
    async with simulator.running():
        feed = VenueFeed(PROFILES["binance_usdm"].at(simulator.url), Wanted(everything=True), taken.extend, clock=clock)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(feed.run())
            await simulator.subscribed()
            for number, (received_ns, event_ms) in enumerate(stamps, start=1):
                await clock.advance(max(0.0, (received_ns - clock.wall_ns()) / 1e9))
                mark = {"e": "markPriceUpdate", "E": event_ms, "s": f"S{number}USDT", "p": "1", "r": "", "T": 0}
                await simulator.send_all(orjson.dumps(mark))
                await until(lambda number=number: feed.statistics.marks >= number)  # type: ignore[misc]
            running.cancel()

    delays = [received_ns / 1e9 - event_ms / 1e3 for received_ns, event_ms in stamps]
    assert feed.statistics.skew.seconds == pytest.approx(min(delays), abs=0.02)
    assert -1.30 < min(delays) < -1.20
    assert [batch.venue_times_ms[0] for batch in taken] == [event_ms for _received, event_ms in stamps]
    assert all(abs(batch.received_at_ns - stamp[0]) < 20_000_000 for batch, stamp in zip(taken, stamps, strict=True))
