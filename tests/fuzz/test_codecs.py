"""A hundred thousand mutated inputs over all codecs in every test run; `campaign.py` throws ten million at each."""

from __future__ import annotations

import contextlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.errors import CodecError
from monitor.feeds.venues import PROFILES
from monitor.margin.prices import PriceKind
from monitor.wire.frames import Decoded
from monitor.wire.prices import PriceBatch, decode_batch
from tests.fuzz.campaign import NOW_NS, attack, attack_dialect, check

EACH = -(-100_000 // len(PROFILES))


@pytest.mark.parametrize("venue", sorted(PROFILES))
def test_only_codec_errors_come_out(venue: str) -> None:
    """Whatever a venue sends, a codec gives prices, controls, counts or a CodecError; and the mutations reach all of these."""
    outcomes = attack(venue, EACH, seed=random.randrange(2**32))

    assert sum(outcomes.values()) == EACH
    assert outcomes["prices"] > EACH / 50
    assert outcomes["not_json"] > EACH / 50
    assert len(outcomes) >= 5


@pytest.mark.parametrize("venue", sorted(PROFILES))
def test_a_simulator_survives_its_clients(venue: str) -> None:
    """Whatever a client sends, a dialect answers or is silent; it never raises."""
    assert attack_dialect(venue, 2_000, seed=random.randrange(2**32)) > 0


@given(st.binary(max_size=200))
def test_bytes_of_any_kind(frame: bytes) -> None:
    """Random bytes are a CodecError or nothing, for every codec and for the batch on the stream."""
    for venue, profile in PROFILES.items():
        with contextlib.suppress(CodecError):
            check(profile.codec(next(iter(profile.endpoints))).decode(frame, NOW_NS), venue)
    with contextlib.suppress(CodecError):
        decode_batch(frame)


def test_the_check_can_fail() -> None:
    """A batch with a price of zero, or with a name twice, does not pass."""
    for names, prices in ((["A"], [0.0]), (["A", "A"], [1.0, 1.0]), (["A b"], [1.0])):
        decoded = Decoded(NOW_NS)
        decoded.batches.append(
            PriceBatch(
                venue="v",
                kind=PriceKind.MARK,
                names=names,
                prices=prices,
                venue_times_ms=[0] * len(names),
                received_at_ns=NOW_NS,
            )
        )
        with pytest.raises(AssertionError):
            check(decoded, "v")


def test_a_row_without_a_text_for_a_name_beside_an_empty_name() -> None:
    """Found by the campaign: BitMEX rows with an empty symbol, then with a number for one, cost themselves and raise nothing."""
    codec = PROFILES["bitmex"].codec(next(iter(PROFILES["bitmex"].endpoints)))
    empty = b'{"symbol":"","typ":"FFWCSX","quoteCurrency":"USD","underlying":"XBT"}'
    number = b'{"symbol":-1e+308,"indicativeSettlePrice":75847.62,"timestamp":"2026-05-27T12:56:42.500Z"}'

    assert codec.decode(b'{"table":"instrument","action":"update","data":[%b,%b]}' % (empty, number), NOW_NS).batches == []
