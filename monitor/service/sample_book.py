"""A seeded book of Binance USD-M accounts: what the demo, the replay and the tests evaluate when nobody brings accounts of their own.

Every account is a portfolio document (docs/reference/portfolio.md). The mix: cross accounts with one to five
instruments, some of them in hedge mode with a long and a short leg, some with an isolated position beside the cross
pool. Effective leverage lies between 1 and `most_leverage`, evenly in its logarithm, so that a fall of a few percent already
finds somebody and a crash finds many.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["sample_documents", "sample_tables"]

GROUPS = ("desk-1", "desk-2", "prime", "retail")


def sample_documents(
    count: int, prices: Mapping[str, float], *, seed: int = 7, sequence: int = 1, most_leverage: float = 25.0
) -> Iterator[dict[str, Any]]:
    """`count` portfolio documents over the instruments of `prices` (name -> price around which entries lie). Same seed, same book."""
    rng = random.Random(seed)
    names = list(prices)
    popularity = [1 / (rank + 1) for rank in range(len(names))]
    for index in range(count):
        account: dict[str, Any] = {
            "id": f"acct-{index:06d}",
            "venue": "binance_usdm",
            "group": GROUPS[index % len(GROUPS)],
            "positions": [],
        }
        chosen = _choose(rng, names, popularity, min(len(names), rng.choice((1, 1, 2, 2, 3, 5))))
        leverage = math.exp(rng.uniform(0, math.log(most_leverage)))
        gross = math.exp(rng.gauss(math.log(20_000), 1.2))
        hedged = rng.random() < 0.2
        isolated = chosen[-1] if rng.random() < 0.2 else None
        cross_notional = 0.0
        for name in chosen:
            notional = gross * rng.uniform(0.3, 1.0) / len(chosen)
            entry = prices[name] * math.exp(rng.gauss(0, 0.01))
            quantity = notional / entry
            side = rng.choice((1, -1))
            if name == isolated:
                wallet = notional / min(leverage * 1.5, 40)
                account["positions"].append(
                    {**_position(name, side * quantity, entry), "margin_mode": "isolated", "isolated_wallet": f"{wallet:.4f}"}
                )
            elif hedged:
                account["positions"].append({**_position(name, quantity, entry), "side": "long"})
                account["positions"].append({**_position(name, -quantity * rng.uniform(0.2, 0.9), entry), "side": "short"})
                cross_notional += notional
            else:
                account["positions"].append(_position(name, side * quantity, entry))
                cross_notional += notional
        account["balances"] = [{"asset": "USDT", "wallet": f"{max(cross_notional / leverage, 10):.2f}"}]
        yield {"version": 1, "sequence": sequence, "account": account}


def sample_tables(prices: Mapping[str, float]) -> dict[str, Any]:
    """Instrument tables for made-up instruments: linear perpetuals in USDT, three tiers each, cheaper ones with higher rates.

    For markets that no venue lists (the demo's, a benchmark's 400 symbols). Same shape as a file in config/venues/binance_usdm.
    """
    instruments: dict[str, Any] = {}
    for rank, (name, price) in enumerate(prices.items()):
        base = 0.004 if rank < 2 else 0.005 if rank < 20 else 0.01
        instruments[name] = {
            "kind": "linear_perpetual",
            "settle": "USDT",
            "underlying": name.removesuffix("USDT"),
            "tick_size": f"{10 ** (math.floor(math.log10(price)) - 4):.10f}".rstrip("0").rstrip("."),
            "tiers": [
                {"floor": "0", "maintenance_rate": f"{base:.4f}", "max_leverage": "100"},
                {"floor": "50000", "maintenance_rate": f"{base * 2:.4f}", "max_leverage": "50"},
                {"floor": "600000", "maintenance_rate": f"{base * 5:.4f}", "max_leverage": "20"},
            ],
        }
        if not instruments[name]["tick_size"]:
            instruments[name]["tick_size"] = "1"
    return {"venue": "binance_usdm", "source": "made up for a sample market", "read": "2026-11-20", "instruments": instruments}


def _choose(rng: random.Random, names: list[str], popularity: list[float], count: int) -> list[str]:
    """`count` different names, popular ones more often."""
    chosen: list[str] = []
    while len(chosen) < count:
        (name,) = rng.choices(names, popularity)
        if name not in chosen:
            chosen.append(name)
    return chosen


def _position(name: str, quantity: float, entry: float) -> dict[str, Any]:
    return {"instrument": name, "quantity": f"{quantity:.6g}" if abs(quantity) < 1e6 else f"{quantity:.0f}", "entry_price": f"{entry:.8g}"}
