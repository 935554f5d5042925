"""Binance USD-M frames."""

from __future__ import annotations

import orjson
import pytest

from monitor.errors import CodecError
from monitor.margin.prices import PriceKind
from monitor.wire.frames import Confirmed, Denied, Notice, Topic, Wanted
from monitor.wire.venues.binance_usdm import codec, topics

E_MS = 1_790_143_909_000
NOW_NS = (E_MS + 35) * 1_000_000

# Fields of a frame seen in 2026, with the newer `ap` and `st`.
MARK = (
    b'{"e":"markPriceUpdate","E":1790143909000,"s":"BTCUSDT","p":"86520.10","ap":"86520.00","P":"86595.6","i":"86561",'
    b'"r":"0.00000837","T":1790150400000,"st":1}'
)


def test_a_single_event_is_a_mark_and_a_rate() -> None:
    """`p` is the mark, `r` the funding rate; the instrument's index `i` is not the index of an asset and is not taken."""
    decoded = codec().decode(MARK, NOW_NS)

    assert [(batch.kind, batch.names, batch.prices, batch.venue_times_ms, batch.received_at_ns) for batch in decoded.batches] == [
        (PriceKind.MARK, ["BTCUSDT"], [86520.1], [E_MS], NOW_NS),
        (PriceKind.FUNDING_RATE, ["BTCUSDT"], [8.37e-06], [E_MS], NOW_NS),
        (PriceKind.FUNDING_TIME, ["BTCUSDT"], [1_790_150_400_000.0], [E_MS], NOW_NS),
    ]
    assert decoded.controls == []
    assert decoded.rejected is None


def test_the_combined_form_says_the_same() -> None:
    """`{"stream", "data"}` is read like its data."""
    combined = b'{"stream":"btcusdt@markPrice@1s","data":' + MARK + b"}"

    assert codec().decode(combined, NOW_NS).batches == codec().decode(MARK, NOW_NS).batches


def test_an_array_of_all_symbols_is_one_batch() -> None:
    """The all-symbols frame keeps its order; a bad item is counted by reason and its neighbours are used."""
    items = [
        {"e": "markPriceUpdate", "E": E_MS, "s": name, "p": price, "r": ""} for name, price in [("B", "2"), ("A", "NaN"), ("C", "0.5")]
    ]
    items.append({"e": "markPriceUpdate", "E": E_MS, "s": "D"})

    decoded = codec().decode(orjson.dumps(items), NOW_NS)

    assert [(batch.kind, batch.names, batch.prices) for batch in decoded.batches] == [(PriceKind.MARK, ["B", "C"], [2.0, 0.5])]
    assert decoded.rejected == {"not_a_number": 2}


def test_asset_indices_are_by_asset() -> None:
    """`!assetIndex@arr` gives the index of each asset in USD."""
    frame = orjson.dumps(
        [{"e": "assetIndexUpdate", "E": E_MS, "s": "ADAUSD", "i": "0.27462452"}, {"e": "assetIndexUpdate", "E": E_MS, "s": "X"}]
    )

    decoded = codec().decode(frame, NOW_NS)

    assert [(batch.kind, batch.names, batch.prices) for batch in decoded.batches] == [(PriceKind.INDEX, ["ADA"], [0.27462452])]
    assert decoded.rejected == {"bad_name": 1}


def test_a_frame_of_two_kinds_is_cut() -> None:
    """Marks and asset indices in one array are both used; an event that is not an object is counted."""
    frame = orjson.dumps([orjson.loads(MARK), {"e": "assetIndexUpdate", "E": E_MS, "s": "ADAUSD", "i": "0.2"}, 7])

    decoded = codec().decode(frame, NOW_NS)

    assert {batch.kind for batch in decoded.batches} == {PriceKind.MARK, PriceKind.INDEX, PriceKind.FUNDING_RATE, PriceKind.FUNDING_TIME}
    assert decoded.rejected == {"wrong_shape": 1}


@pytest.mark.parametrize(
    ("frame", "control"),
    [
        (b'{"result":null,"id":7}', Confirmed(request=7)),
        (b'{"error":{"code":2,"msg":"Invalid request"},"id":7}', Denied(request=7, text="2: Invalid request")),
        (b'{"code":3,"msg":"Invalid JSON"}', Denied(request=None, text="3: Invalid JSON")),
        (b'{"result":["a@b"],"id":3}', Notice("subscriptions: ['a@b']")),
    ],
)
def test_answers(frame: bytes, control: object) -> None:
    """Confirmations and errors carry the number of their request."""
    assert codec().decode(frame, NOW_NS).controls == [control]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", "not_json"),
        (b"{", "not_json"),
        (b"\xff\xfe", "not_json"),
        (b'{"p":1e400}', "not_json"),
        (b"[" * 2000, "not_json"),
        (b"null", "wrong_shape"),
        (b"7", "wrong_shape"),
        (b'"text"', "wrong_shape"),
        (b"[1,2]", "wrong_shape"),
        (b'[{"s":"A"}]', "wrong_shape"),
        (b"{}", "unknown_message"),
        (b'{"e":"somethingNew","E":1}', "unknown_message"),
        (b'{"data":"x"}', "wrong_shape"),
    ],
)
def test_what_cannot_be_read_is_a_codec_error(frame: bytes, reason: str) -> None:
    """The error names the venue and a reason of the closed set, and keeps a bounded piece of the bytes."""
    with pytest.raises(CodecError) as caught:
        codec().decode(frame, NOW_NS)

    assert (caught.value.venue, caught.value.reason) == ("binance_usdm", reason)
    assert len(caught.value.raw) <= 256


def test_an_empty_array_is_nothing() -> None:
    """A frame without events is no error and no batch."""
    decoded = codec().decode(b"[]", NOW_NS)

    assert (decoded.batches, decoded.controls, decoded.rejected) == ([], [], None)


def test_one_stream_carries_all_marks() -> None:
    """Whatever is wanted, the marks are one topic and the asset indices another."""
    plan = topics(Wanted(instruments=frozenset({"ETHUSDT", "BTCUSDT"}), assets=frozenset({"BTC"})))

    assert plan == (
        Topic(key="!markPrice@arr@1s", endpoint="market", supplies=((PriceKind.MARK, ("BTCUSDT", "ETHUSDT")),)),
        Topic(key="!assetIndex@arr", endpoint="market", supplies=((PriceKind.INDEX, ("BTC",)),)),
    )
    assert [topic.open_kind for topic in topics(Wanted(everything=True))] == [PriceKind.MARK]
    assert topics(Wanted()) == ()


def test_requests_are_as_documented() -> None:
    """SUBSCRIBE and UNSUBSCRIBE carry topics and a number; nothing is said first, and there is no ping message."""
    assert orjson.loads(codec().subscribe(["a"], 1)) == {"method": "SUBSCRIBE", "params": ["a"], "id": 1}
    assert orjson.loads(codec().unsubscribe(["a"], 2)) == {"method": "UNSUBSCRIBE", "params": ["a"], "id": 2}
    assert (codec().opening(), codec().ping(3)) == ((), None)
