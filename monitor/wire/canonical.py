"""A document's canonical bytes and their hash: equal documents, however they were spelled, have equal ones.

Keys sorted, no white space, defaults and what the reader derives left out, numbers quoted in plain notation (with an exponent where that
would be longer than 60 characters). Reading the bytes back gives an equal `Document`; a property test holds that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from datetime import datetime
from decimal import Decimal, localcontext
from typing import Any, TypeVar

import orjson

from monitor.margin.accounts import Account, Adjustment, Balance, Order, Position
from monitor.margin.instruments import ONE_WEIGHT, Asset, Instrument, Risk
from monitor.margin.numbers import EXACT, ZERO
from monitor.margin.prices import Prices
from monitor.margin.schedules import TierTable, WeightTable
from monitor.margin.tables import HouseRules
from monitor.wire.documents import Document

__all__ = ["document_bytes", "document_hash", "number_text", "table_body", "time_text"]

ONE = Decimal(1)
_T = TypeVar("_T")


def document_bytes(document: Document) -> bytes:
    """The canonical bytes of a document."""
    tables = document.tables
    body = _present(
        sequence=document.sequence,
        epoch=document.epoch or None,
        as_of=None if document.as_of is None else time_text(document.as_of),
        remove=document.remove,
        account=None if document.account is None else _account(document.account),
        rules=next((_rules(rules) for rules in tables.rules.values()), None),
        prices=_prices(document.prices) or None,
        **table_body(tables.instruments, tables.assets, tables.risk),
    )
    return orjson.dumps(body, option=orjson.OPT_SORT_KEYS)


def document_hash(document: Document) -> str:
    """SHA-256 of the canonical bytes, 64 hex digits."""
    return hashlib.sha256(document_bytes(document)).hexdigest()


def number_text(number: Decimal) -> str:
    """A number as rule 2 has it, exactly: in plain notation, or with an exponent where that has over 60 characters."""
    if not number:
        return "0"
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    figures = "".join(map(str, digits)).lstrip("0")
    significant = figures.rstrip("0")
    exponent += len(figures) - len(significant)
    minus = "-" if sign else ""
    plain = minus + _placed(significant, exponent)
    if len(plain) <= 60:
        return plain
    power = max(-99, min(99, exponent + len(significant) - 1))
    return f"{minus}{_placed(significant, exponent - power)}e{power}"


def _placed(figures: str, exponent: int) -> str:
    """Plain notation of figures * 10**exponent."""
    if exponent >= 0:
        return figures + "0" * exponent
    figures = figures.rjust(1 - exponent, "0")
    return f"{figures[:exponent]}.{figures[exponent:]}"


def time_text(moment: datetime) -> str:
    """UTC, ISO 8601, with a fraction only where there is one."""
    text = moment.isoformat().removesuffix("+00:00")
    return f"{text.rstrip('0') if '.' in text else text}Z"


def table_body(instruments: Mapping[str, Instrument], assets: Mapping[str, Asset], risk: Mapping[str, Risk]) -> dict[str, Any]:
    """The fields `instruments`, `assets` and `risk` of a document or of a table file; those without an entry are left out."""
    return _present(
        instruments={name: _instrument(entry) for name, entry in instruments.items()} or None,
        assets={name: _asset(entry) for name, entry in assets.items()} or None,
        risk={name: _risk(entry) for name, entry in risk.items()} or None,
    )


def _present(**items: Any) -> dict[str, Any]:
    return {name: value for name, value in items.items() if value is not None}


def _number(number: Decimal | None, default: Decimal | None = None) -> str | None:
    return None if number is None or number == default else number_text(number)


def _word(word: _T, default: _T) -> _T | None:
    return None if word == default else word


def _rows(entries: Iterable[_T], write: Callable[[_T], dict[str, Any]]) -> list[dict[str, Any]] | None:
    return [write(entry) for entry in entries] or None


def _account(account: Account) -> dict[str, Any]:
    return _present(
        id=account.id,
        venue=account.venue,
        mode=account.mode,
        margin_model=_word(account.margin_model, "standard"),
        group=account.group,
        rules=account.rules,
        valuation_currency=_word(account.valuation_currency, "USD"),
        taker_fee=_number(account.taker_fee),
        minimum_initial_rate=_number(account.minimum_initial_rate, ZERO),
        balances=None if account.balances is None else [_balance(balance) for balance in account.balances],
        positions=[_position(position) for position in account.positions],
        orders=_rows(account.orders, _order),
        adjustments=_rows(account.adjustments, _adjustment),
    )


def _balance(balance: Balance) -> dict[str, Any]:
    return _present(
        asset=balance.asset,
        wallet=_number(balance.wallet),
        cash=_number(balance.cash),
        collateral=None if balance.collateral else False,
    )


def _position(position: Position) -> dict[str, Any]:
    body = _present(
        instrument=position.instrument,
        quantity=number_text(position.quantity),
        side=_word(position.side, "both"),
        entry_price=_number(position.entry_price),
        cost=_number(position.cost),
        leverage=_number(position.leverage),
        margin_mode=_word(position.margin_mode, "cross"),
        isolated_wallet=_number(position.isolated_wallet),
        isolated_cash=_number(position.isolated_cash),
        unsettled_funding=_number(position.unsettled_funding, ZERO),
    )
    if position.is_isolated and not body.keys() & {"isolated_wallet", "isolated_cash", "leverage"}:
        body["isolated_wallet"] = None
    return body


def _order(order: Order) -> dict[str, Any]:
    return _present(
        instrument=order.instrument,
        side=order.side,
        quantity=_number(order.quantity),
        price=_number(order.price),
        notional=_number(order.notional),
        count=_word(order.count, 1),
    )


def _adjustment(adjustment: Adjustment) -> dict[str, Any]:
    return _present(
        name=adjustment.name,
        asset=adjustment.asset,
        pnl=_number(adjustment.pnl),
        option_value=_number(adjustment.option_value),
        credit=_number(adjustment.credit),
        notional=_number(adjustment.notional),
        initial_margin=_number(adjustment.initial_margin),
        maintenance_margin=_number(adjustment.maintenance_margin),
    )


def _instrument(entry: Instrument) -> dict[str, Any]:
    return _present(
        kind=entry.kind.value,
        settle=entry.settle,
        underlying=entry.underlying,
        contract_size=_number(entry.contract_size, ONE),
        tick_size=_number(entry.tick_size),
        expiry=None if entry.expiry is None else time_text(entry.expiry),
        option_type=entry.option_type,
        strike=_number(entry.strike),
        taker_fee=_number(entry.taker_fee),
        tier_unit=_word(entry.tier_unit, "notional"),
        tiers=_tiers(entry.tiers),
        open_interest_lower=_number(entry.open_interest_lower),
        open_interest_upper=_number(entry.open_interest_upper),
        size_factor=_number(entry.size_factor, ZERO),
        profit_weight=_number(entry.profit_weight, ONE),
        initial_profit_weight=_number(entry.initial_profit_weight),
    )


def _tiers(table: TierTable | None) -> list[dict[str, Any]] | None:
    """Rows without what `TierTable.of` derives: it would derive the same again, and a quotient may not fit into 60 characters."""
    if table is None:
        return None
    rows = []
    before = None
    with localcontext(EXACT):
        for tier in table.rows:
            assert tier.maintenance_rate is not None and tier.deduction is not None
            from_leverage = None if tier.max_leverage is None else 1 / (2 * tier.max_leverage)
            derived = ZERO
            if before is not None:
                assert before.maintenance_rate is not None and before.deduction is not None
                derived = before.deduction + tier.floor * (tier.maintenance_rate - before.maintenance_rate)
            rows.append(
                _present(
                    floor=number_text(tier.floor),
                    maintenance_rate=_number(tier.maintenance_rate, from_leverage),
                    initial_rate=_number(tier.initial_rate),
                    max_leverage=_number(tier.max_leverage),
                    deduction=_number(tier.deduction, derived),
                    slope=_number(tier.slope, ZERO),
                )
            )
            before = tier
    return rows


def _asset(entry: Asset) -> dict[str, Any]:
    return _present(
        weights=_weights(entry.weights),
        debt_weights=None if entry.debt_weights == ONE_WEIGHT else _weights(entry.debt_weights),
        borrow_tiers=_tiers(entry.borrow_tiers),
        taker_fee=_number(entry.taker_fee, ZERO),
        size_factor=_number(entry.size_factor, ZERO),
        deposit_scale_start=_number(entry.deposit_scale_start),
        borrow_scale_start=_number(entry.borrow_scale_start),
    )


def _weights(table: WeightTable) -> list[dict[str, Any]]:
    return [
        _present(floor=number_text(row.floor), weight=number_text(row.weight), initial_weight=_number(row.initial_weight))
        for row in table.rows
    ]


def _risk(entry: Risk) -> dict[str, Any]:
    return _present(
        price_moves=[number_text(move) for move in entry.price_moves],
        extreme_moves=[number_text(move) for move in entry.extreme_moves] or None,
        extreme_factor=_number(entry.extreme_factor),
        profit_offset=_number(entry.profit_offset, ONE),
        basis_floor=_number(entry.basis_floor, ZERO),
        basis_annualised=_number(entry.basis_annualised, ZERO),
        minimum_charge=_number(entry.minimum_charge, ZERO),
        delta_shock_threshold=_number(entry.delta_shock_threshold),
        delta_shock_maximum=_number(entry.delta_shock_maximum),
        maintenance_factor=number_text(entry.maintenance_factor),
        initial_factor=number_text(entry.initial_factor),
    )


def _rules(rules: HouseRules) -> dict[str, str]:
    plain = HouseRules()
    return _present(
        value_basis=_word(rules.value_basis, plain.value_basis),
        closing_fee=_word(rules.closing_fee, plain.closing_fee),
        debts=_word(rules.debts, plain.debts),
        netting=_word(rules.netting, plain.netting),
        liquidation=_word(rules.liquidation, plain.liquidation),
    )


def _prices(prices: Prices) -> dict[str, dict[str, str]]:
    kinds: dict[str, Mapping[str, Decimal]] = {field.name: getattr(prices, field.name) for field in fields(prices)}
    return {kind: {name: number_text(number) for name, number in entries.items()} for kind, entries in kinds.items() if entries}
