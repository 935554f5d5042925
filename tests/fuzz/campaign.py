"""Throws mutated frames at every codec: only CodecError may come out, and what is decoded must be prices.

    python -m tests.fuzz.campaign --inputs 10000000 [--seed 1] [--processes 2]

Prints one line a venue and ends with 1 at the first input that breaks the rule, which is printed with its seed.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import random
import sys
import time
from collections import Counter
from itertools import islice

from monitor.errors import CodecError
from monitor.feeds.venues import DIALECTS, PROFILES
from monitor.margin.prices import PriceKind
from monitor.wire.frames import Codec, Decoded, Fault, is_name
from monitor.wire.prices import decode_batch, encode_batch
from monitor.wire.quotes import Quotes
from tests.fuzz.mutations import mutants, seeds_of

__all__ = ["attack", "attack_dialect", "check"]

NOW_NS = 1_790_143_910_000_000_000
SIGNED = {PriceKind.FUNDING_RATE, PriceKind.OPEN_INTEREST}
REASONS = {fault.value for fault in Fault}
LIFE = 200
"""Inputs one codec takes before a fresh one is made: what it remembers must not save it."""


def check(decoded: Decoded, venue: str) -> None:
    """What a codec hands back holds the contract of a price batch."""
    for batch in decoded.batches:
        assert batch.venue == venue, batch
        assert len(batch.names) == len(batch.prices) == len(batch.venue_times_ms) == len(set(batch.names)) > 0, batch
        for name, price, moment in zip(batch.names, batch.prices, batch.venue_times_ms, strict=True):
            assert is_name(name), batch
            assert type(price) is float, batch
            assert math.isfinite(price), batch
            assert price > 0 or batch.kind in SIGNED, batch
            assert type(moment) is int, batch
            assert moment == 0 or 1_262_304_000_000 <= moment <= NOW_NS // 1_000_000 + 86_400_000, batch
        assert decode_batch(encode_batch(batch)) == batch
    assert decoded.rejected is None or (decoded.rejected.keys() <= REASONS and min(decoded.rejected.values()) > 0)


def attack(venue: str, inputs: int, seed: int) -> Counter[str]:
    """Decodes so many mutated frames of one venue. Returns how many ended how. Raises AssertionError with the input that broke the rule."""
    rng = random.Random(f"{seed}:{venue}")
    profile, seeds, outcomes = PROFILES[venue], seeds_of(venue), Counter[str]()
    endpoint = next(iter(profile.endpoints))
    codec: Codec = profile.codec(endpoint)
    for number, frame in enumerate(islice(mutants(seeds, rng), inputs)):
        if number % LIFE == 0:
            codec = profile.codec(endpoint)
        try:
            decoded = codec.decode(frame, NOW_NS)
            check(decoded, venue)
            outcomes["prices" if decoded.batches else "controls" if decoded.controls else "nothing"] += 1
        except CodecError as error:
            outcomes[error.reason] += 1
            if error.venue != venue or error.reason not in REASONS or len(error.raw) > 256:
                raise AssertionError(f"{venue}, seed {seed}, input {number}: not a proper CodecError: {error}: {frame!r}") from error
        except Exception as error:
            raise AssertionError(f"{venue}, seed {seed}, input {number}: {type(error).__name__}: {error}: {frame!r}") from error
    return outcomes


def attack_dialect(venue: str, inputs: int, seed: int) -> int:
    """Sends so many mutated requests to one venue's simulator. Returns the answers. Raises AssertionError likewise."""
    rng = random.Random(f"{seed}:{venue}:requests")
    profile, dialect = PROFILES[venue], DIALECTS[venue]()
    codec = profile.codec(next(iter(profile.endpoints)))
    seeds = [codec.subscribe(["a"], 1), codec.unsubscribe(["a"], 2), *codec.opening()]
    ping = codec.ping(3)
    if ping is not None:
        seeds.append(ping)
    target = next(iter(profile.at("ws://127.0.0.1:1").endpoints.values())).removeprefix("ws://127.0.0.1:1")
    peer = dialect.peer(target)
    assert peer is not None
    answers = 0
    quotes = Quotes(time_ms=NOW_NS // 1_000_000, numbers={PriceKind.MARK: {"BTCUSDT": "1.5", "PF_XBTUSD": "2"}})
    for number, message in enumerate(islice(mutants(seeds, rng), inputs)):
        try:
            answers += len(peer.hear(message, quotes).replies)
            if number % 50 == 0:
                peer.frames(quotes)
                peer = dialect.peer(target)
                assert peer is not None
        except Exception as error:
            raise AssertionError(f"{venue}, seed {seed}, request {number}: {type(error).__name__}: {error}: {message!r}") from error
    return answers


def _job(job: tuple[str, int, int]) -> tuple[str, int, Counter[str], float]:
    venue, inputs, seed = job
    started = time.perf_counter()
    return venue, inputs, attack(venue, inputs, seed), time.perf_counter() - started


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--inputs", type=int, default=10_000_000, help="of each venue")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    jobs = [(venue, options.inputs, options.seed) for venue in PROFILES]
    try:
        with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
            for venue, inputs, outcomes, seconds in pool.imap_unordered(_job, jobs):
                words = ", ".join(f"{word} {count}" for word, count in outcomes.most_common())
                print(f"{venue}: {inputs} inputs in {seconds:.0f} s: {words}", flush=True)
    except AssertionError as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
