"""Random margin pools of every venue, within what the venue's tables look like: for laws that must hold of all of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random

from monitor.margin.accounts import Account, Balance, Order, Position
from monitor.margin.instruments import ONE_WEIGHT, Asset, Instrument, Kind, Risk
from monitor.margin.pools import MarginPool, cut
from monitor.margin.prices import Prices
from monitor.margin.schedules import Tier, TierTable, WeightRow, WeightTable
from monitor.margin.tables import HouseRules, Tables

__all__ = ["AS_OF", "BREEDS", "Specimen", "random_pool", "random_portfolio", "random_tiers", "with_marks"]

AS_OF = datetime(2026, 1, 1, tzinfo=UTC)
ZERO, ONE = Decimal(0), Decimal(1)
INDEX = {name: Decimal(price) for name, price in (("USDT", "1"), ("USDC", "0.999"), ("BTC", "50000"), ("XBT", "50000"), ("ETH", "3000"))}

BREEDS: dict[str, tuple[str, str | None]] = {
    "binance_usdm": ("binance_usdm", None),
    "binance multi-assets": ("binance_usdm", "multi_asset"),
    "binance_coinm": ("binance_coinm", None),
    "bybit": ("bybit", None),
    "bybit contract account": ("bybit", "single_asset"),
    "okx": ("okx", None),
    "okx single-currency": ("okx", "single_asset"),
    "deribit": ("deribit", None),
    "deribit cross": ("deribit", "multi_asset"),
    "hyperliquid": ("hyperliquid", None),
    "dydx_v4": ("dydx_v4", None),
    "bitmex": ("bitmex", None),
    "kraken_futures": ("kraken_futures", None),
    "drift": ("drift", None),
    "mango_v4": ("mango_v4", None),
    "house": ("house", None),
    "house, debts as requirement": ("house", None),
}
"""Name -> venue and mode."""

SETTLES = {"hyperliquid": "USDC", "dydx_v4": "USDC", "kraken_futures": "USD", "drift": "USDC", "mango_v4": "USDC"}
COIN_SETTLES = {"bitmex": "XBT"}
MIXED = {"bitmex", "deribit", "bybit", "okx", "house"}
MULTI_ONLY = {"kraken_futures", "drift", "mango_v4", "house"}
MULTI_DEFAULT = MULTI_ONLY | {"bybit", "okx"}


@dataclass(frozen=True, slots=True)
class Specimen:
    """A pool, its prices, and what it was drawn from."""

    breed: str
    pool: MarginPool
    prices: Prices

    @property
    def rounds(self) -> bool:
        """The venue rounds amounts: laws hold to its unit."""
        return self.pool.rules.value is not None or self.pool.rules.margins is not None


def _decimal(r: Random, low: float, high: float, places: int) -> Decimal:
    return Decimal(str(round(r.uniform(low, high), places)))


def random_tiers(r: Random, *, whole: bool = False, scale: Decimal = ONE) -> TierTable:
    """One to five rows of rising rates; `whole`: the whole position takes the row's rate (deduction 0)."""
    floors = [0, *sorted(r.sample([1000, 5000, 20_000, 50_000, 100_000, 250_000, 1_000_000], r.randint(0, 4)))]
    rate = Decimal(r.choice(["0.004", "0.005", "0.01", "0.02"]))
    rows = []
    for floor in floors:
        rows.append(Tier(floor=floor * scale, maintenance_rate=rate, initial_rate=min(ONE, 2 * rate), deduction=ZERO if whole else None))
        rate = min(ONE, rate * Decimal(r.choice(["1", "1.5", "2", "3"])))
    return TierTable.of(rows)


def _weights(r: Random, *, debt: bool) -> WeightTable:
    floors = [0, *sorted(r.sample([1, 2, 5, 10, 100, 1000, 5000, 20_000], r.randint(0, 3)))]
    weight = ONE if debt else Decimal(r.choice(["1", "0.98", "0.95"]))
    rows = []
    for floor in floors:
        rows.append(WeightRow(floor=Decimal(floor), weight=weight))
        weight = weight + Decimal(r.choice(["0", "0.05"])) if debt else max(ZERO, weight - Decimal(r.choice(["0", "0.05", "0.3"])))
    return WeightTable.of(rows)


def _flat(weight: str) -> WeightTable:
    return WeightTable.of([WeightRow(floor=ZERO, weight=Decimal(weight))])


def _asset(r: Random, venue: str, name: str) -> Asset:
    if venue in {"drift", "mango_v4"}:
        return Asset(name=name, weights=_flat("0.9"), debt_weights=_flat("1.1"))
    borrow = None
    if venue in {"bybit", "okx"}:
        borrow = TierTable.of(
            [Tier(floor=ZERO, maintenance_rate=Decimal("0.02")), Tier(floor=Decimal(5), maintenance_rate=Decimal("0.04"))]
        )
    dearer = venue in {"binance_usdm", "house", "okx"}
    return Asset(
        name=name,
        weights=_weights(r, debt=False),
        debt_weights=_weights(r, debt=True) if dearer else ONE_WEIGHT,
        borrow_tiers=borrow,
        taker_fee=Decimal("0.001") if venue == "okx" else ZERO,
    )


def _positions(r: Random, venue: str, instrument: Instrument, mark: Decimal) -> list[Position]:
    worth = Decimal(str(round(10 ** r.uniform(2, 5.5), 2)))
    inverse = instrument.kind.is_inverse
    step = ONE if inverse else Decimal("0.001")
    quantity = (worth / instrument.contract_size / (ONE if inverse else mark)).quantize(step) or step
    entry = mark * _decimal(r, 0.8, 1.25, 4)
    leverage = Decimal(r.choice([2, 5, 10, 20]))
    if r.random() < 0.25 and venue in {"binance_usdm", "bybit", "okx"}:
        other = (quantity * _decimal(r, 0.2, 1.2, 2)).quantize(step) or step
        return [
            Position(instrument=instrument.name, quantity=quantity, side="long", entry_price=entry, leverage=leverage),
            Position(instrument=instrument.name, quantity=-other, side="short", entry_price=entry * Decimal("1.01"), leverage=leverage),
        ]
    signed = quantity if r.random() < 0.5 else -quantity
    return [Position(instrument=instrument.name, quantity=signed, entry_price=entry, leverage=leverage)]


def random_pool(r: Random, breed: str | None = None) -> Specimen:
    """A cross pool of up to four instruments and three assets, from far above its requirement to far below."""
    breed = breed or r.choice(sorted(BREEDS))
    venue, mode = BREEDS[breed]
    coin = venue == "binance_coinm" or (venue in MIXED and r.random() < 0.4)
    settle = COIN_SETTLES.get(venue, "BTC") if coin else SETTLES.get(venue, "USDC" if venue == "deribit" else "USDT")
    instruments: dict[str, Instrument] = {}
    marks: dict[str, Decimal] = {}
    positions: list[Position] = []
    for place in range(r.randint(1, 4)):
        name = f"X{place}"
        marks[name] = _decimal(r, 1000, 60_000, 1) if coin else _decimal(r, 1, 60_000, r.randint(0, 4))
        whole = venue in {"okx", "kraken_futures", "bitmex"}
        instruments[name] = Instrument(
            name=name,
            kind=Kind.INVERSE_PERPETUAL if coin else Kind.LINEAR_PERPETUAL,
            settle=settle,
            underlying=r.choice(["BTC", "ETH"]),
            contract_size=ONE if venue == "dydx_v4" else Decimal(r.choice(["1", "10", "0.1"])),
            taker_fee=Decimal("0.0006"),
            tiers=random_tiers(r, whole=whole, scale=Decimal("0.0001") if coin else ONE),
            tier_unit="quantity" if venue in {"okx", "kraken_futures"} and r.random() < 0.3 else "notional",
            size_factor=Decimal("0.0001") if venue == "drift" and r.random() < 0.5 else ZERO,
            profit_weight=Decimal(r.choice(["1", "0.95", "0.5", "0"])) if venue in {"drift", "mango_v4"} else ONE,
        )
        positions += _positions(r, venue, instruments[name], marks[name])
    worth = ZERO
    signed = ZERO
    for position in positions:
        units = position.quantity * instruments[position.instrument].contract_size
        worth += abs(units) * (ONE if coin else marks[position.instrument])
        signed += units * marks[position.instrument]
    wallet = worth * _decimal(r, 0.005, 0.6, 4) / (50_000 if coin else 1)
    cash = venue in {"hyperliquid", "dydx_v4"}
    amount = (wallet - signed).quantize(Decimal("0.000001")) if cash else wallet.quantize(Decimal("0.00000001"))
    balances = [Balance(asset=settle, cash=amount) if cash else Balance(asset=settle, wallet=amount)]
    assets: dict[str, Asset] = {}
    if mode == "multi_asset" or (mode is None and venue in MULTI_DEFAULT):
        for other in r.sample([name for name in ("BTC", "ETH", "USDC", "USDT") if name != settle], r.randint(0, 2)):
            share = wallet * INDEX.get(settle, ONE) * _decimal(r, 0.1, 1, 2) / INDEX[other]
            sign = -1 if r.random() < 0.3 and venue != "kraken_futures" else 1
            balances.append(Balance(asset=other, wallet=sign * share.quantize(Decimal("0.000001"))))
        assets = {row.asset: _asset(r, venue, row.asset) for row in balances if r.random() < 0.8}
    rules = {}
    if venue == "house":
        rules["house"] = HouseRules(
            debts="requirement" if "debts" in breed else "equity",
            netting=r.choice(["none", "larger_side"]),
            value_basis=r.choice(["mark", "mark", "entry"]),
            closing_fee=r.choice(["none", "entry"]) if r.random() < 0.5 else "none",
            liquidation=r.choice(["at", "below"]),
        )
    orders: tuple[Order, ...] = ()
    if venue in {"drift", "mango_v4"} and r.random() < 0.4:
        first = positions[0]
        orders = (
            Order(
                instrument=first.instrument,
                side=r.choice(["buy", "sell"]),
                quantity=abs(first.quantity) * Decimal("1.3"),
                price=marks[first.instrument],
            ),
        )
    account = Account(id="a", venue=venue, mode=mode, positions=tuple(positions), balances=tuple(balances), orders=orders)
    (pool,) = cut(account, Tables(instruments=instruments, assets=assets, rules=rules), AS_OF)
    return Specimen(breed, pool, Prices(mark=marks, index=INDEX, funding_rate=dict.fromkeys(marks, Decimal("0.0001"))))


def random_portfolio(r: Random) -> Specimen:
    """A pool under portfolio margin: up to three futures and one option, with scenarios of both underlyings."""
    venue = r.choice(["deribit", "house", "okx"])
    coin = r.random() < 0.5 and venue != "house"
    settle = "BTC" if coin else "USDT"
    instruments: dict[str, Instrument] = {}
    marks: dict[str, Decimal] = {}
    positions: list[Position] = []
    for place in range(r.randint(1, 3)):
        name, underlying = f"F{place}", "BTC" if coin else r.choice(["BTC", "ETH"])
        marks[name] = _decimal(r, 0.97, 1.03, 4) * INDEX[underlying]
        dated = r.random() < 0.4
        future = Kind.INVERSE_FUTURE if coin else Kind.LINEAR_FUTURE
        perpetual = Kind.INVERSE_PERPETUAL if coin else Kind.LINEAR_PERPETUAL
        instruments[name] = Instrument(
            name=name,
            kind=future if dated else perpetual,
            settle=settle,
            underlying=underlying,
            expiry=AS_OF + timedelta(days=90) if dated else None,
            taker_fee=Decimal("0.0005"),
        )
        worth = Decimal(str(round(10 ** r.uniform(3, 5.5), 2)))
        quantity = (worth if coin else worth / marks[name]).quantize(Decimal("0.001"))
        entry = marks[name] * _decimal(r, 0.9, 1.1, 3)
        positions.append(Position(instrument=name, quantity=quantity * r.choice([1, -1]), entry_price=entry))
    forward: dict[str, Decimal] = {}
    if r.random() < 0.4:
        instruments["O"] = Instrument(
            name="O",
            kind=Kind.INVERSE_OPTION if coin else Kind.LINEAR_OPTION,
            settle=settle,
            underlying="BTC",
            expiry=AS_OF + timedelta(days=30),
            option_type=r.choice(["call", "put"]),
            strike=Decimal(r.choice([40_000, 50_000, 60_000])),
        )
        forward["O"] = Decimal(50_100)
        positions.append(Position(instrument="O", quantity=_decimal(r, 0.1, 3, 2) * r.choice([1, -1])))
    moves = tuple(Decimal(move) / 100 for move in (-16, -8, 0, 8, 16))
    risk = {
        name: Risk(
            underlying=name,
            price_moves=moves,
            maintenance_factor=Decimal("0.8"),
            initial_factor=ONE,
            profit_offset=Decimal(r.choice(["0", "0.6", "1"])),
            extreme_moves=(Decimal("-0.3"), Decimal("0.3")) if r.random() < 0.5 else (),
            extreme_factor=Decimal("0.5"),
            basis_floor=Decimal("0.01"),
            basis_annualised=Decimal("0.05"),
            minimum_charge=Decimal(r.choice(["0", "0.05", "0.2"])),
        )
        for name in ("BTC", "ETH")
    }
    wallet = Decimal(str(round(10 ** r.uniform(3, 5), 2))) / (50_000 if coin else 1)
    account = Account(
        id="a",
        venue=venue,
        mode=r.choice(["single_asset", "multi_asset"]),
        margin_model="portfolio",
        positions=tuple(positions),
        balances=(Balance(asset=settle, wallet=wallet.quantize(Decimal("0.00000001"))),),
    )
    (pool,) = cut(account, Tables(instruments=instruments, risk=risk), AS_OF)
    prices = Prices(mark=marks, index=INDEX, forward=forward, volatility=dict.fromkeys(forward, Decimal("0.6")))
    return Specimen(f"{venue} portfolio", pool, prices)


def with_marks(prices: Prices, **marks: Decimal) -> Prices:
    """The same prices with some marks replaced."""
    return replace(prices, mark={**prices.mark, **marks})
