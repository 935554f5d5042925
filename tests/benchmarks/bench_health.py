"""How long the exact evaluation of one pool takes: `PYTHONPATH=. python tests/benchmarks/bench_health.py`.

Prints microseconds a call, best of several rounds.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial

from monitor.margin.accounts import Account, Balance, Position
from monitor.margin.health import evaluate, margins
from monitor.margin.instruments import Instrument, Kind
from monitor.margin.levels import Level
from monitor.margin.liquidation import cure, pool_move, position_prices, report
from monitor.margin.pools import MarginPool, cut
from monitor.margin.prices import Prices
from monitor.margin.schedules import Tier, TierTable
from monitor.margin.tables import Tables

AS_OF = datetime(2026, 1, 1, tzinfo=UTC)
TIERS = TierTable.of(
    [
        Tier(floor=Decimal(floor), maintenance_rate=Decimal(rate), initial_rate=Decimal(rate) * 2)
        for floor, rate in ((0, "0.004"), (50_000, "0.005"), (600_000, "0.0065"), (3_000_000, "0.01"), (12_000_000, "0.02"))
    ]
)


def pool_of(size: int) -> tuple[MarginPool, Prices]:
    """A single-asset cross pool of `size` linear positions, every third one short."""
    names = [f"X{i}USDT" for i in range(size)]
    instruments = {
        name: Instrument(name=name, kind=Kind.LINEAR_PERPETUAL, settle="USDT", tick_size=Decimal("0.01"), tiers=TIERS) for name in names
    }
    positions = tuple(
        Position(
            instrument=name,
            quantity=Decimal("12.345") * (-1 if i % 3 == 2 else 1),
            entry_price=Decimal("2650.123") + i,
            leverage=Decimal(10),
        )
        for i, name in enumerate(names)
    )
    account = Account(
        id="bench", venue="binance_usdm", positions=positions, balances=(Balance(asset="USDT", wallet=Decimal("50000.12345678")),)
    )
    (pool,) = cut(account, Tables(instruments=instruments), AS_OF)
    return pool, Prices(mark={name: Decimal("2600.00231") + 3 * i for i, name in enumerate(names)})


def microseconds(statement: Callable[[], object], number: int = 100, rounds: int = 5) -> float:
    """Best time of one call."""
    return min(timeit.repeat(statement, number=number, repeat=rounds)) / number * 1e6


def main() -> None:
    """Prints one line per measure."""
    for size in (1, 10, 40):
        pool, prices = pool_of(size)
        measures: dict[str, Callable[[], object]] = {
            "evaluate": partial(evaluate, pool, prices, AS_OF),
            "margins": partial(margins, pool, prices, AS_OF),
            "position_prices": partial(position_prices, pool, prices, AS_OF),
            "pool_move": partial(pool_move, pool, prices, AS_OF),
            "cure": partial(cure, pool, prices, AS_OF, Level.WATCH),
            "report": partial(report, pool, prices, AS_OF),
        }
        print(f"{size:3} positions", *(f"{name} {microseconds(call):.0f} us" for name, call in measures.items()), sep="  ")


if __name__ == "__main__":
    main()
