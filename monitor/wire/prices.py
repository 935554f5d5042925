"""The batch of prices that travels on the `ticks` stream, and its bytes.

A batch is one message: numbers of one kind from one venue, each name at most once, in the order received. The evaluator decides it tick by
tick in that order. Prices are float64 in their shortest notation (see `monitor.margin.numbers.exact_of_float`), so that what the exact core
reads back is the decimal that the venue sent.
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from monitor.errors import CodecError
from monitor.margin.prices import PriceKind

__all__ = ["PriceBatch", "decode_batch", "encode_batch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceBatch:
    """Numbers of one kind from one venue.

    Attributes:
        venue: Whose.
        kind: What the numbers are.
        names: Instruments or assets, each once.
        prices: Same length, finite; > 0 where the kind requires it (the codec of the venue has checked it).
        venue_times_ms: The venue's own event time of each, ms since 1970; 0 where it gives none.
        received_at_ns: Wall clock when the frame arrived, for display and latency, never for staleness.
    """

    venue: str
    kind: PriceKind
    names: list[str]
    prices: list[float]
    venue_times_ms: list[int]
    received_at_ns: int


def encode_batch(batch: PriceBatch) -> bytes:
    """The bytes put on the stream. One time is written once when all names share it."""
    times = batch.venue_times_ms
    shared = times[0] if times and times.count(times[0]) == len(times) else times
    return orjson.dumps(
        {"v": batch.venue, "k": batch.kind.value, "r": batch.received_at_ns, "t": shared, "s": batch.names, "p": batch.prices}
    )


def decode_batch(data: bytes) -> PriceBatch:
    """The batch that `encode_batch` wrote. Raises CodecError ("ticks") for anything else: a foreign writer, a damaged entry."""
    try:
        body = orjson.loads(data)
        names, prices, times = body["s"], body["p"], body["t"]
        if isinstance(times, int):
            times = [times] * len(names)
        if not len(names) == len(prices) == len(times):
            raise ValueError("lengths differ")
        return PriceBatch(
            venue=body["v"], kind=PriceKind(body["k"]), names=names, prices=prices, venue_times_ms=times, received_at_ns=body["r"]
        )
    except (ValueError, KeyError, TypeError) as error:
        raise CodecError("ticks", "not_a_batch", bytes(data), str(error)) from error
