"""Mutated frames: the venues' own shapes with something wrong in them. Same seed, same inputs."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

__all__ = ["NASTY", "mutants", "seeds_of"]

FRAMES = Path(__file__).resolve().parents[1] / "wire" / "frames"

NASTY: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63, 2**64 - 1, -(2**63), 0.0, -0.0, 1e308, -1e308, 5e-324, 1e-19, 1e19, 0.1),
    *("", " ", "0", "-0", "-1", "1", "1.5", "NaN", "Infinity", "1e999", "1e-999", "1_000", " 1", "1 ", "１", "1,2", "[1]", "0x1", "1" * 61),
    *(
        "A",
        "BTCUSDT",
        "x" * 65,
        "A B",
        "A\n",
        "A\x00",
        "*",
        "{x}",
        "\u202eTDSU",
        "é",
        "💥",
        "null",
        "1790143909000",
        "2026-09-23T05:31:49.000Z",
    ),
    *(
        "2026-13-01T00:00:00Z",
        "9999-12-31T23:59:59.999999Z",
        "tickers.",
        "ticker..",
        ".",
        ":",
        "/",
        "mark-price",
        "BTC-USD",
        "-USD",
        "USD",
        "_usd",
    ),
    *(
        [],
        [[]],
        {},
        [None],
        [1],
        [{}],
        [[], []],
        {"": None},
        {"a": {"a": {"a": {}}}},
        [["", [{}]]],
        {"data": []},
        {"universe": [{"name": 7}]},
    ),
    *(1790143909000, 1790143909, 4102444800000, 253402300800000, -62135596800000),
]
"""Values that something somewhere once took for a number, a name or a time."""


def seeds_of(venue: str) -> list[bytes]:
    """The recorded shapes of one venue."""
    seeds = []
    for line in (FRAMES / f"{venue}.jsonl").read_bytes().splitlines():
        body = orjson.loads(line)
        seeds.append(body["text"].encode() if "text" in body else orjson.dumps(body["frame"]))
    return seeds


def mutants(seeds: list[bytes], rng: random.Random) -> Iterator[bytes]:
    """Mutated frames for ever: bytes changed, values replaced, keys dropped and doubled, frames cut, joined and nested."""
    trees = [orjson.loads(seed) for seed in seeds if seed[:1] in b"{["]
    while True:
        kind = rng.random()
        if kind < 0.6:
            tree = orjson.loads(orjson.dumps(rng.choice(trees)))
            for _ in range(rng.choice((1, 1, 1, 2, 3))):
                tree = _replaced(tree, rng)
            try:
                yield orjson.dumps(tree)
            except (TypeError, orjson.JSONEncodeError):
                continue
        else:
            data = bytearray(rng.choice(seeds))
            for _ in range(rng.choice((1, 1, 2, 4))):
                _damage(data, rng)
            yield bytes(data)


def _replaced(tree: Any, rng: random.Random) -> Any:
    """The tree with one place changed. Goes down at random."""
    if type(tree) is dict and tree and rng.random() < 0.9:
        key = rng.choice(list(tree))
        action = rng.random()
        if action < 0.08:
            del tree[key]
        elif action < 0.14:
            tree[str(rng.choice(NASTY))[:20]] = tree.pop(key)
        elif action < 0.18:
            tree[rng.choice(("e", "data", "event", "topic", "channel", "type", "result", "id", "error", "st", "table"))] = _nasty(rng)
        else:
            tree[key] = _replaced(tree[key], rng)
        return tree
    if type(tree) is list and tree and rng.random() < 0.9:
        index = rng.randrange(len(tree))
        action = rng.random()
        if action < 0.08:
            tree.append(tree[index])
        elif action < 0.14:
            del tree[index]
        else:
            tree[index] = _replaced(tree[index], rng)
        return tree
    return _nasty(rng)


def _nasty(rng: random.Random) -> Any:
    """One of them, never the list's own object: it may be changed later."""
    value = rng.choice(NASTY)
    return copy.deepcopy(value) if type(value) in {list, dict} else value


def _damage(data: bytearray, rng: random.Random) -> None:
    """One change to the bytes."""
    at = rng.randrange(len(data) + 1)
    action = rng.randrange(6)
    if action == 0 and data:
        data[at % len(data)] = rng.randrange(256)
    elif action == 1:
        del data[at : at + rng.randrange(1, 8)]
    elif action == 2:
        data[at:at] = rng.randbytes(rng.randrange(1, 5))
    elif action == 3:
        data[at:at] = rng.choice((b'"', b"{", b"}", b"[", b"]", b",", b":", b"0", b"-", b"e", b"\\", b"\\ud800", b"null", b"NaN", b"1e400"))
    elif action == 4:
        del data[at:]
    else:
        piece = data[at : at + 40]
        data[at:at] = piece * rng.randrange(1, 4)
