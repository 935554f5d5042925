"""What if: an account's document with some changes, evaluated by the very path of `margin-monitor evaluate`.

The answer carries the changed document with its moment and its prices, so that anybody can evaluate it again and get the same digits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import ROUND_FLOOR, Decimal, localcontext
from typing import Any

import orjson

from monitor.errors import RefusedError
from monitor.margin.instruments import Instrument
from monitor.margin.legs import signed_value
from monitor.margin.levels import Thresholds
from monitor.margin.liquidation import market_index_betas, pool_move
from monitor.margin.numbers import EXACT, ZERO, plain
from monitor.margin.pools import cut
from monitor.margin.prices import Prices
from monitor.margin.tables import Tables
from monitor.margin.verdict import judge
from monitor.wire.documents import read_bytes
from monitor.wire.event_body import prices_used
from monitor.wire.results import account_body, time_text

__all__ = ["Changes", "changes_of", "what_if"]

MOST_MOVE = Decimal(50)
MOST_CHANGES = 50
MOST_DIGITS = 30
ONE = Decimal(1)
PLACES = Decimal("1e-8")
AMOUNT = Decimal("1e-12")


@dataclass(frozen=True, slots=True)
class Changes:
    """What is tried.

    Attributes:
        move: Percent by which every price of the market moves, -50 to 50. moves: the same for one underlying asset, over `move`.
        trades: (instrument, quantity) added at the mark price, signed. closes: instruments of which every position is closed at its mark.
        deposits: (asset, amount), signed.
    """

    move: Decimal = ZERO
    moves: Mapping[str, Decimal] = field(default_factory=dict)
    trades: tuple[tuple[str, Decimal], ...] = ()
    closes: tuple[str, ...] = ()
    deposits: tuple[tuple[str, Decimal], ...] = ()


def changes_of(parameters: Sequence[tuple[str, str]]) -> Changes:
    """Reads `move=-10`, `move=BTC:-10`, `trade=BTCUSDT:0.5`, `close=BTCUSDT`, `deposit=USDT:1000`. Raises RefusedError."""
    move, moves = ZERO, dict[str, Decimal]()
    trades: list[tuple[str, Decimal]] = []
    closes: list[str] = []
    deposits: list[tuple[str, Decimal]] = []
    if len(parameters) > MOST_CHANGES:
        raise RefusedError("/", str(len(parameters)), f"at most {MOST_CHANGES} changes")
    for key, text in parameters:
        name, colon, number = text.rpartition(":")
        if key == "move":
            percent = _number(key, number if colon else text)
            if abs(percent) > MOST_MOVE:
                raise RefusedError("/move", text, "-50 to 50 percent")
            if colon:
                moves[name] = percent
            else:
                move = percent
        elif key == "close":
            closes.append(text)
        elif key in {"trade", "deposit"} and name:
            (trades if key == "trade" else deposits).append((name, _number(key, number)))
        else:
            raise RefusedError(f"/{key}", text, "move=[ASSET:]PERCENT, trade=INSTRUMENT:QUANTITY, close=INSTRUMENT or deposit=ASSET:AMOUNT")
    return Changes(move, moves, tuple(trades), tuple(closes), tuple(deposits))


def _number(key: str, text: str) -> Decimal:
    try:
        number = Decimal(text)
    except ArithmeticError:
        raise RefusedError(f"/{key}", text, "a number") from None
    if not number.is_finite() or len(text) > MOST_DIGITS or abs(number) > Decimal(10) ** 15:
        raise RefusedError(f"/{key}", text, f"a number of at most {MOST_DIGITS} characters, below 1e15")
    return number


def what_if(
    data: bytes, changes: Changes, *, known: Callable[[str], Tables], prices: Prices, now: datetime, thresholds: Thresholds
) -> dict[str, Any]:
    """The account of a document after some changes.

    Args:
        data: The document as held. prices: of its venue, now.
        known: Configured tables of a venue.

    Returns:
        `account`: as in the result document of `evaluate`; `document`: what was evaluated, complete with time and prices;
        `moves`: by pool, how far the market can move from there before liquidation (fractions, or null).

    Raises:
        RefusedError: A change that cannot be made: an instrument or asset that is not there.
    """
    body: dict[str, Any] = orjson.loads(data)
    for key in ("sequence", "epoch"):
        body.pop(key, None)
    body["as_of"] = time_text(now)
    account = body["account"]
    first = read_bytes(orjson.dumps({**body, "prices": {}}), purpose="evaluate", known=known)
    assert first.account is not None
    tables = first.tables.over(known(first.account.venue))
    with localcontext(EXACT):
        market = {asset for pool in cut(first.account, tables, now) for asset in market_index_betas(pool)}
        moved = _moved(prices, tables, changes, market)
        for instrument in changes.closes:
            _close(account, instrument, moved, tables)
        for instrument, quantity in changes.trades:
            _trade(account, instrument, quantity, moved, tables)
        for asset, amount in changes.deposits:
            _add(account, asset, amount)
    draft = read_bytes(orjson.dumps({**body, "prices": {}}), purpose="evaluate", known=known)
    assert draft.account is not None
    used: dict[str, dict[str, str]] = {}
    for pool in cut(draft.account, tables, now):
        for kind, table in prices_used(pool, moved).items():
            used.setdefault(kind, {}).update(table)
    body["prices"] = used
    document = read_bytes(orjson.dumps(body), purpose="evaluate", known=known)
    assert document.account is not None and document.as_of is not None
    verdict = judge(document.account, tables, document.prices, document.as_of, thresholds=thresholds)
    moves = {pool.name: pool_move(pool, document.prices, document.as_of) for pool in cut(document.account, tables, document.as_of)}
    return {
        "account": account_body(verdict),
        "document": body,
        "moves": {name: {"down": _text(move.down), "up": _text(move.up)} for name, move in moves.items()},
    }


def _text(number: Decimal | None) -> str | None:
    return None if number is None else plain(number.quantize(PLACES))


def _moved(prices: Prices, tables: Tables, changes: Changes, market: set[str]) -> Prices:
    """The prices after the moves: marks, forwards of options that have a model, and index prices of coins; cash stands still."""
    everywhere = 1 + changes.move / 100
    factors = {asset: 1 + percent / 100 for asset, percent in changes.moves.items()}
    for asset in factors:
        if asset not in market and not any(row.underlying == asset for row in tables.instruments.values()):
            raise RefusedError("/move", asset, "an asset that an instrument of the tables is on")
    mark, forward = dict(prices.mark), dict(prices.forward)
    for name, instrument in tables.instruments.items():
        factor = factors.get(instrument.underlying or "", everywhere)
        if factor == 1:
            continue
        if instrument.kind.is_option:
            if name in forward and name in prices.volatility:
                forward[name] *= factor
                mark.pop(name, None)
        elif name in mark:
            mark[name] *= factor
    index = {
        name: price * factors.get(name, everywhere if name in market else ONE) if name in market or name in factors else price
        for name, price in prices.index.items()
    }
    return replace(prices, mark=mark, forward=forward, index=index)


def _close(account: dict[str, Any], name: str, prices: Prices, tables: Tables) -> None:
    rows = [row for row in account["positions"] if row["instrument"] == name]
    if not rows:
        raise RefusedError("/close", name, "an instrument of which the account has a position")
    for row in rows:
        _reduce(account, row, ONE, prices, tables)


def _trade(account: dict[str, Any], name: str, quantity: Decimal, prices: Prices, tables: Tables) -> None:
    """Adds a signed quantity at the mark price: to the position of that side, or against it, and what is left over becomes a new one."""
    if name not in tables.instruments:
        raise RefusedError("/trade", name, "an instrument of the document or of the configured tables")
    if name not in prices.mark:
        raise RefusedError("/trade", name, "an instrument that has a mark price now")
    if not quantity:
        return
    positions = account.setdefault("positions", [])
    rows = [row for row in positions if row["instrument"] == name]
    rows.sort(key=lambda row: row.get("margin_mode") == "isolated")
    hedged = any(row.get("side", "both") != "both" for row in positions)
    same = next((row for row in rows if (_decimal(row["quantity"]) > 0) == (quantity > 0)), None)
    if same is None and rows and not hedged:
        held = _decimal(rows[0]["quantity"])
        closed = min(abs(quantity), abs(held))
        _reduce(account, rows[0], closed / abs(held), prices, tables)
        quantity -= closed if quantity > 0 else -closed
    if not quantity:
        return
    instrument = tables.instruments[name]
    mark = prices.mark[name]
    units = quantity * instrument.contract_size
    paid = _rounded(signed_value(units, mark, inverse=instrument.kind.is_inverse))
    if same is None:
        same = {"instrument": name, "quantity": plain(quantity), "cost": plain(paid)}
        if hedged:
            same["side"] = "long" if quantity > 0 else "short"
        positions.append(same)
    else:
        cost = _cost(same, instrument)
        same.pop("entry_price", None)
        if cost is not None:
            same["cost"] = plain(cost + paid)
        same["quantity"] = plain(_decimal(same["quantity"]) + quantity)
    cash = any("cash" in balance for balance in account.get("balances") or ())
    if instrument.kind.is_option or cash:
        _receive(account, same, instrument.settle, -paid)


def _reduce(account: dict[str, Any], row: dict[str, Any], part: Decimal, prices: Prices, tables: Tables) -> None:
    """Closes a part of a position at its mark price, without fees: what it realises goes into the balance that carries it."""
    name = row["instrument"]
    instrument = tables.instruments[name]
    mark = prices.mark.get(name)
    if mark is None:
        raise RefusedError("/close", name, "an instrument that has a mark price now")
    quantity, cost = _decimal(row["quantity"]), _cost(row, instrument)
    value = signed_value(quantity * instrument.contract_size * part, mark, inverse=instrument.kind.is_inverse)
    cash = any("cash" in balance for balance in account.get("balances") or ()) or "isolated_cash" in row
    if instrument.kind.is_option or cash:
        realised = value
    elif cost is None:
        raise RefusedError("/close", name, "a position with entry_price or cost: without it the profit is not known")
    else:
        realised = value - cost * part
    funding = _decimal(row.get("unsettled_funding") or 0)
    realised = _rounded(realised + funding * part)
    if part < 1:
        row["quantity"] = plain(quantity * (1 - part))
        if cost is not None and ("cost" in row or "entry_price" not in row):
            row["cost"] = plain(_rounded(cost * (1 - part)))
        if funding:
            row["unsettled_funding"] = plain(_rounded(funding * (1 - part)))
        _receive(account, row, instrument.settle, realised)
        return
    account["positions"].remove(row)
    if row.get("margin_mode") == "isolated":
        own = row.get("isolated_wallet", row.get("isolated_cash"))
        if own is None:
            raise RefusedError("/close", name, "an isolated position with isolated_wallet or isolated_cash")
        realised += _decimal(own)
    _add(account, instrument.settle, realised)


def _receive(account: dict[str, Any], row: dict[str, Any], asset: str, amount: Decimal) -> None:
    """Puts an amount where a position's margin is: its own wallet, or the account's balance."""
    for key in ("isolated_wallet", "isolated_cash"):
        if row.get(key) is not None:
            row[key] = plain(_decimal(row[key]) + amount)
            return
    _add(account, asset, amount)


def _add(account: dict[str, Any], asset: str, amount: Decimal) -> None:
    balances = account.get("balances")
    if balances is None:
        raise RefusedError("/deposit", asset, "an account whose balances are stated")
    for balance in balances:
        if balance["asset"] == asset:
            key = "cash" if "cash" in balance else "wallet"
            if balance[key] is None:
                raise RefusedError("/deposit", asset, "a balance that is stated")
            balance[key] = plain(_decimal(balance[key]) + amount)
            return
    balances.append({"asset": asset, "cash" if any("cash" in balance for balance in balances) else "wallet": plain(amount)})


def _cost(row: Mapping[str, Any], instrument: Instrument) -> Decimal | None:
    if row.get("cost") is not None:
        return _decimal(row["cost"])
    if row.get("entry_price") is None:
        return None
    units = _decimal(row["quantity"]) * instrument.contract_size
    return _rounded(signed_value(units, _decimal(row["entry_price"]), inverse=instrument.kind.is_inverse))


def _decimal(value: Any) -> Decimal:
    return Decimal(str(value))


def _rounded(amount: Decimal) -> Decimal:
    """To 12 places, downwards: a quotient of an inverse contract has no end."""
    return amount.quantize(AMOUNT, ROUND_FLOOR)
