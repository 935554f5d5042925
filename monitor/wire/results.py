"""The result document (docs/reference/portfolio.md, result.schema.json): verdicts to JSON, and the term-by-term text of `explain`.

Numbers are strings in plain notation, exact or to 40 digits; null is unknown or not applicable.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson

from monitor.margin.health import CollateralHealth, PoolHealth
from monitor.margin.numbers import plain
from monitor.margin.positions import PositionHealth, Term
from monitor.margin.scenarios import RiskUnit
from monitor.margin.verdict import AccountVerdict
from monitor.wire.inputs import Refusal

__all__ = ["account_body", "explain_lines", "pool_body", "result_body", "result_bytes", "time_text"]


def time_text(moment: datetime) -> str:
    """UTC, ISO 8601 with Z, whole seconds without a fraction."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def _text(number: Decimal | None) -> str | None:
    return None if number is None else plain(number)


def _term(term: Term) -> dict[str, Any]:
    return {"name": term.name, "initial_margin": _text(term.initial_margin), "maintenance_margin": _text(term.maintenance_margin)}


def _collateral(row: CollateralHealth) -> dict[str, Any]:
    return {
        "asset": row.asset,
        "amount": _text(row.amount),
        "price": _text(row.price),
        "weight": _text(row.weight),
        "value": _text(row.value),
        "initial_weight": _text(row.initial_weight),
        "initial_value": _text(row.initial_value),
        "available": _text(row.available),
    }


def _risk_unit(unit: RiskUnit) -> dict[str, Any]:
    return {
        "underlying": unit.underlying,
        "scenario_pnl": [plain(profit) for profit in unit.scenario_pnl],
        "delta": _text(unit.delta),
        "price_charge": _text(unit.price_charge),
        "extreme_charge": _text(unit.extreme_charge),
        "basis_charge": _text(unit.basis_charge),
        "minimum_charge": _text(unit.minimum_charge),
        "charge": _text(unit.charge),
        "initial_margin": _text(unit.initial_margin),
        "maintenance_margin": _text(unit.maintenance_margin),
    }


def _position(row: PositionHealth) -> dict[str, Any]:
    return {
        "instrument": row.instrument,
        "side": row.side,
        "quantity": plain(row.quantity),
        "mark_price": _text(row.mark_price),
        "notional": _text(row.notional),
        "option_value": _text(row.option_value),
        "entry_value": _text(row.entry_value),
        "unrealized_pnl": _text(row.unrealized_pnl),
        "initial_rate": _text(row.initial_rate),
        "maintenance_rate": _text(row.maintenance_rate),
        "deduction": _text(row.deduction),
        "initial_margin": _text(row.initial_margin),
        "maintenance_margin": _text(row.maintenance_margin),
        "liquidation_price": _text(row.liquidation_price),
        "bankruptcy_price": _text(row.bankruptcy_price),
        "terms": [_term(term) for term in row.terms],
    }


def pool_body(pool: PoolHealth) -> dict[str, Any]:
    """One pool of a result."""
    return {
        "pool": pool.pool,
        "currency": pool.currency,
        "wallet": _text(pool.wallet),
        "unrealized_pnl": _text(pool.unrealized_pnl),
        "option_value": _text(pool.option_value),
        "net_value": _text(pool.net_value),
        "equity": _text(pool.equity),
        "initial_equity": _text(pool.initial_equity),
        "initial_margin": _text(pool.initial_margin),
        "maintenance_margin": _text(pool.maintenance_margin),
        "fees": _text(pool.fees),
        "available": _text(pool.available),
        "headroom": _text(pool.headroom),
        "margin_ratio": _text(pool.margin_ratio),
        "initial_margin_ratio": _text(pool.initial_margin_ratio),
        "venue_ratio": _text(pool.venue_ratio),
        "leverage": _text(pool.leverage),
        "liquidatable": pool.liquidatable,
        "level": None if pool.level is None else pool.level.word,
        "unknown": pool.unknown,
        "terms": [_term(term) for term in pool.terms],
        "collateral": [_collateral(row) for row in pool.collateral],
        "risk_units": [_risk_unit(unit) for unit in pool.risk_units],
        "positions": [_position(row) for row in pool.positions],
    }


def account_body(verdict: AccountVerdict) -> dict[str, Any]:
    """One account of a result."""
    return {
        "id": verdict.account.id,
        "venue": verdict.account.venue,
        "rules": {"name": verdict.rules.name, "since": verdict.rules.since},
        "as_of": time_text(verdict.as_of),
        "level": None if verdict.level is None else verdict.level.word,
        "unknown": verdict.unknown,
        "pools": [pool_body(pool) for pool in verdict.pools],
    }


def result_body(verdicts: Iterable[AccountVerdict], refusals: Iterable[Refusal]) -> dict[str, Any]:
    """The whole result: accounts in input order, and what was refused."""
    return {
        "version": 1,
        "accounts": [account_body(verdict) for verdict in verdicts],
        "refused": [
            {
                "source": refusal.source,
                "line": refusal.line,
                "id": refusal.id,
                "path": refusal.path,
                "value": refusal.value,
                "expected": refusal.expected,
            }
            for refusal in refusals
        ],
    }


def result_bytes(verdicts: Iterable[AccountVerdict], refusals: Iterable[Refusal], *, indent: bool = False) -> bytes:
    """The result as one JSON document."""
    return orjson.dumps(result_body(verdicts, refusals), option=orjson.OPT_INDENT_2 if indent else 0)


Line = tuple[str, str, str]
"""(what, number, how it comes about) of one line of `explain`."""


def explain_lines(verdict: AccountVerdict) -> list[tuple[str, list[Line]]]:
    """The account term by term: sections of (what, number, how it comes about), the rule set with its date and source first."""
    rules = verdict.rules
    basis = f"margins on value at {rules.value_basis}; closing fee: {rules.closing_fee}; liquidation {rules.liquidation} the requirement"
    head: list[Line] = [
        ("rules", rules.name, f"since {rules.since}" if rules.since else "since the beginning"),
        ("source", rules.source, basis),
        ("as of", time_text(verdict.as_of), ""),
        ("level", "unknown" if verdict.level is None else verdict.level.word, verdict.unknown or ""),
    ]
    return [(verdict.account.id, head), *((pool.pool, _explain_pool(pool)) for pool in verdict.pools)]


def _shown(number: Decimal | None) -> str:
    return "?" if number is None else plain(number)


def _explain_pool(pool: PoolHealth) -> list[Line]:
    """Lines of one pool: collateral, positions, terms, sums, verdict."""
    unit = pool.currency
    lines: list[Line] = []
    for row in pool.collateral:
        how = f"{_shown(row.amount)} {row.asset} * price {_shown(row.price)} * weight {_shown(row.weight)}"
        lines.append((f"collateral {row.asset}", _shown(row.value), how))
    for position in pool.positions:
        lines.extend(_explain_position(position))
    for risk in pool.risk_units:
        how = (
            f"max(max(price {_shown(risk.price_charge)}, extreme {_shown(risk.extreme_charge)}) + basis {_shown(risk.basis_charge)},"
            f" minimum {_shown(risk.minimum_charge)}); delta {_shown(risk.delta)}"
        )
        lines.append((f"charge {risk.underlying}", _shown(risk.charge), how if risk.missing is None else risk.missing))
    lines.extend(
        (f"maintenance: {term.name}", _shown(term.maintenance_margin), f"initial {_shown(term.initial_margin)}") for term in pool.terms
    )
    lines.append(("equity", _shown(pool.equity), f"{unit}, with haircuts; net value {_shown(pool.net_value)}"))
    lines.append(("maintenance margin", _shown(pool.maintenance_margin), "sum of the terms"))
    lines.append(("fees", _shown(pool.fees), "closing and repaying cost beside maintenance"))
    lines.append(("headroom", _shown(pool.headroom), "equity - maintenance margin - fees"))
    lines.append(
        ("margin ratio", _shown(pool.margin_ratio), f"(maintenance margin + fees) / equity; the venue prints {_shown(pool.venue_ratio)}")
    )
    lines.append(("initial margin", _shown(pool.initial_margin), f"available {_shown(pool.available)}"))
    lines.append(("level", "unknown" if pool.level is None else pool.level.word, pool.unknown or ""))
    return lines


def _explain_position(position: PositionHealth) -> list[Line]:
    """Lines of one position: value and profit, maintenance by its schedule, prices."""
    name = position.instrument if position.side == "both" else f"{position.instrument} {position.side}"
    lines: list[Line] = [
        (name, plain(position.quantity), f"mark {_shown(position.mark_price)}, notional {_shown(position.notional)}"),
        ("  profit", _shown(position.unrealized_pnl), f"value at entry {_shown(position.entry_value)}"),
    ]
    if position.option_value is not None:
        lines.append(("  option value", plain(position.option_value), ""))
    how = "" if position.maintenance_rate is None else f"rate {plain(position.maintenance_rate)}, deduction {_shown(position.deduction)}"
    lines.append(("  maintenance", _shown(position.maintenance_margin), how))
    lines.extend(
        (f"    {term.name}", _shown(term.maintenance_margin), f"initial {_shown(term.initial_margin)}") for term in position.terms[1:]
    )
    lines.append(("  initial margin", _shown(position.initial_margin), f"rate {_shown(position.initial_rate)}"))
    lines.append(
        (
            "  liquidation price",
            "none" if position.liquidation_price is None else plain(position.liquidation_price),
            f"bankruptcy {'none' if position.bankruptcy_price is None else plain(position.bankruptcy_price)}",
        )
    )
    return lines
