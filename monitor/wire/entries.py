"""Entries of the instrument, asset, risk and rule tables: the same in a portfolio document and in a file of `config/venues`."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from monitor.margin.instruments import ONE_WEIGHT, Asset, Instrument, Kind, Risk
from monitor.margin.numbers import ZERO
from monitor.margin.schedules import Tier, TierTable, WeightRow, WeightTable
from monitor.margin.tables import HouseRules
from monitor.wire.fields import (
    ABSENT,
    Row,
    Wrong,
    choice,
    debt_weight,
    keys_within,
    listed,
    name,
    nonnegative,
    number,
    optional,
    positive,
    required,
    row_of,
    time,
    unit,
)

__all__ = ["RULE_WORDS", "asset_of", "house_rules_of", "instrument_of", "risk_of"]

ONE = Decimal(1)
_INSTRUMENT = frozenset(
    (
        "kind",
        "settle",
        "underlying",
        "contract_size",
        "tick_size",
        "expiry",
        "option_type",
        "strike",
        "taker_fee",
        "tier_unit",
        "tiers",
        "size_factor",
        "profit_weight",
        "initial_profit_weight",
        "open_interest_lower",
        "open_interest_upper",
    )
)
_TIER = frozenset(("floor", "maintenance_rate", "initial_rate", "max_leverage", "deduction", "slope"))
_WEIGHT = frozenset(("floor", "weight", "initial_weight"))
_ASSET = frozenset(("weights", "debt_weights", "borrow_tiers", "taker_fee", "size_factor", "deposit_scale_start", "borrow_scale_start"))
_RISK = frozenset(
    (
        "price_moves",
        "extreme_moves",
        "extreme_factor",
        "profit_offset",
        "basis_floor",
        "basis_annualised",
        "minimum_charge",
        "delta_shock_threshold",
        "delta_shock_maximum",
        "maintenance_factor",
        "initial_factor",
    )
)
_KINDS: Mapping[str, Kind] = {kind.value: kind for kind in Kind}
_OPTION_TYPES = {"call": "call", "put": "put"}
_TIER_UNITS = {"notional": "notional", "quantity": "quantity"}
RULE_WORDS: Mapping[str, Mapping[str, str]] = {
    key: {word: word for word in words}
    for key, words in {
        "value_basis": ("mark", "entry"),
        "closing_fee": ("none", "entry", "mark"),
        "debts": ("equity", "requirement"),
        "netting": ("none", "larger_side"),
        "liquidation": ("at", "below"),
    }.items()
}
"""Fields of a house rule set and their words; the first is the default."""
_RULES = frozenset(RULE_WORDS)


def _tier(value: object) -> Tier:
    row = row_of(value)
    keys_within(row, _TIER)
    required(row, "floor")
    if "initial_rate" in row and "max_leverage" in row:
        raise Wrong("initial_rate", row["initial_rate"], "only one of initial_rate and max_leverage")
    if "maintenance_rate" not in row and "max_leverage" not in row:
        raise Wrong("maintenance_rate", ABSENT, "maintenance_rate, or max_leverage of which it is half the inverse")
    return Tier(
        floor=nonnegative(row, "floor"),
        maintenance_rate=unit(row, "maintenance_rate") if "maintenance_rate" in row else None,
        initial_rate=unit(row, "initial_rate") if "initial_rate" in row else None,
        max_leverage=positive(row, "max_leverage") if "max_leverage" in row else None,
        deduction=nonnegative(row, "deduction") if "deduction" in row else None,
        slope=nonnegative(row, "slope") if "slope" in row else ZERO,
    )


def _rising(rows: list[Tier] | list[WeightRow], key: str) -> None:
    """Rule 4: the first floor is 0 and floors rise."""
    if rows[0].floor:
        raise _floor(key, 0, rows[0].floor, "0, the first floor")
    for index in range(1, len(rows)):
        if rows[index].floor <= rows[index - 1].floor:
            raise _floor(key, index, rows[index].floor, f"a floor above {rows[index - 1].floor}, the floor of the row before")


def _floor(key: str, index: int, floor: Decimal, expected: str) -> Wrong:
    return Wrong("floor", str(floor), expected).under(key, index)


def _tiers(row: Row, key: str) -> TierTable:
    rows = listed(row, key, _tier, at_least=1)
    _rising(rows, key)
    return TierTable.of(rows)


def _weights(row: Row, key: str) -> WeightTable:
    def weight_row(value: object) -> WeightRow:
        inner = row_of(value)
        keys_within(inner, _WEIGHT)
        required(inner, "floor")
        required(inner, "weight")
        read = debt_weight if key == "debt_weights" else unit
        return WeightRow(
            floor=nonnegative(inner, "floor"),
            weight=read(inner, "weight"),
            initial_weight=read(inner, "initial_weight") if "initial_weight" in inner else None,
        )

    rows = listed(row, key, weight_row, at_least=1)
    _rising(rows, key)
    return WeightTable.of(rows)


def instrument_of(entries: Row, key: str) -> Instrument:
    """The instrument at `key`. Raises Wrong."""
    try:
        return _instrument(key, row_of(entries[key]))
    except Wrong as wrong:
        raise wrong.under(key) from None


def _instrument(key: str, row: Row) -> Instrument:
    keys_within(row, _INSTRUMENT)
    required(row, "kind")
    required(row, "settle")
    kind = choice(row, "kind", _KINDS)
    if kind.is_option:
        for field in ("underlying", "expiry", "option_type", "strike"):
            if field not in row:
                raise Wrong(field, ABSENT, f"a value: an option needs its {field}")
    else:
        for field in ("option_type", "strike"):
            if field in row:
                raise Wrong(field, row[field], f"nothing: only options have a {field}")
        if kind.value.endswith("_future"):
            if "expiry" not in row:
                raise Wrong("expiry", ABSENT, "a UTC time: a future needs its expiry")
        elif "expiry" in row:
            raise Wrong("expiry", row["expiry"], "nothing: a perpetual has no expiry")
    for field, other in (("open_interest_lower", "open_interest_upper"), ("open_interest_upper", "open_interest_lower")):
        if field in row and other not in row:
            raise Wrong(other, ABSENT, f"a number: {field} needs it")
    return Instrument(
        name=key,
        kind=kind,
        settle=name(row, "settle"),
        underlying=name(row, "underlying") if "underlying" in row else None,
        contract_size=optional(row, "contract_size", positive, ONE),
        tick_size=positive(row, "tick_size") if "tick_size" in row else None,
        expiry=time(row, "expiry") if "expiry" in row else None,
        option_type=choice(row, "option_type", _OPTION_TYPES) if "option_type" in row else None,
        strike=positive(row, "strike") if "strike" in row else None,
        taker_fee=unit(row, "taker_fee") if "taker_fee" in row else None,
        tier_unit=choice(row, "tier_unit", _TIER_UNITS) if "tier_unit" in row else "notional",
        tiers=_tiers(row, "tiers") if "tiers" in row else None,
        open_interest_lower=nonnegative(row, "open_interest_lower") if "open_interest_lower" in row else None,
        open_interest_upper=nonnegative(row, "open_interest_upper") if "open_interest_upper" in row else None,
        size_factor=optional(row, "size_factor", nonnegative, ZERO),
        profit_weight=optional(row, "profit_weight", unit, ONE),
        initial_profit_weight=unit(row, "initial_profit_weight") if "initial_profit_weight" in row else None,
    )


def asset_of(entries: Row, key: str) -> Asset:
    """The asset at `key`. Raises Wrong."""
    try:
        row = row_of(entries[key])
        keys_within(row, _ASSET)
        if not row:
            raise Wrong(None, row, f"at least one of {', '.join(sorted(_ASSET))}")
        return Asset(
            name=key,
            weights=optional(row, "weights", _weights, ONE_WEIGHT),
            debt_weights=optional(row, "debt_weights", _weights, ONE_WEIGHT),
            borrow_tiers=_tiers(row, "borrow_tiers") if "borrow_tiers" in row else None,
            taker_fee=optional(row, "taker_fee", unit, ZERO),
            size_factor=optional(row, "size_factor", nonnegative, ZERO),
            deposit_scale_start=positive(row, "deposit_scale_start") if "deposit_scale_start" in row else None,
            borrow_scale_start=positive(row, "borrow_scale_start") if "borrow_scale_start" in row else None,
        )
    except Wrong as wrong:
        raise wrong.under(key) from None


def _moves(row: Row, key: str, *, at_least: int) -> tuple[Decimal, ...]:
    """Moves of the underlying as fractions, each above -1 (a price stays above 0) and each once."""

    def move(value: object) -> Decimal:
        try:
            read = number({"": value}, "")
        except Wrong as wrong:
            wrong.parts.clear()
            raise
        if read <= -1:
            raise Wrong(None, value, "a move above -1: a price stays above 0")
        return read

    moves = listed(row, key, move, at_least=at_least)
    for index, read in enumerate(moves):
        if read in moves[:index]:
            raise Wrong(index, row[key][index], "each move once").under(key)
    return tuple(moves)


def risk_of(entries: Row, key: str) -> Risk:
    """The scenarios of the underlying at `key`. Raises Wrong."""
    try:
        row = row_of(entries[key])
        keys_within(row, _RISK)
        for field in ("price_moves", "maintenance_factor", "initial_factor"):
            required(row, field)
        if "extreme_moves" in row and "extreme_factor" not in row:
            raise Wrong("extreme_factor", ABSENT, "a rate from 0 to 1: extreme_moves needs it")
        return Risk(
            underlying=key,
            price_moves=_moves(row, "price_moves", at_least=1),
            maintenance_factor=positive(row, "maintenance_factor"),
            initial_factor=positive(row, "initial_factor"),
            profit_offset=optional(row, "profit_offset", unit, ONE),
            extreme_moves=_moves(row, "extreme_moves", at_least=0) if "extreme_moves" in row else (),
            extreme_factor=unit(row, "extreme_factor") if "extreme_factor" in row else None,
            basis_floor=optional(row, "basis_floor", unit, ZERO),
            basis_annualised=optional(row, "basis_annualised", unit, ZERO),
            minimum_charge=optional(row, "minimum_charge", unit, ZERO),
            delta_shock_threshold=nonnegative(row, "delta_shock_threshold") if "delta_shock_threshold" in row else None,
            delta_shock_maximum=unit(row, "delta_shock_maximum") if "delta_shock_maximum" in row else None,
        )
    except Wrong as wrong:
        raise wrong.under(key) from None


def house_rules_of(entries: Row, key: str, *, rule_name: str, extra: frozenset[str] = frozenset(), since: str | None = None) -> HouseRules:
    """The house rule set at `key`. Raises Wrong. `extra` are further keys that the caller reads itself (a file's `since`)."""
    try:
        row = row_of(entries[key])
        keys_within(row, _RULES | extra)
        words = {field: choice(row, field, RULE_WORDS[field]) for field in RULE_WORDS if field in row}
        return HouseRules(name=rule_name, since=since, **words)
    except Wrong as wrong:
        raise wrong.under(key) from None
