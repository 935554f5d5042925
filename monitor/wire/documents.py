"""The portfolio document (docs/reference/portfolio.md): bytes to values, and everything that cannot be right refused with its path.

Missing is unknown, wrong is refused: what is only absent (a price, balances, tiers) is left None here and makes its pool unknown later.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import orjson

from monitor.errors import RefusedError
from monitor.margin.accounts import MODES, PORTFOLIO_MARGIN_VENUES, VENUES, Account, Adjustment, Balance, Order, Position
from monitor.margin.instruments import Asset, Instrument, Risk
from monitor.margin.numbers import ZERO
from monitor.margin.prices import NO_PRICES, PriceKind, Prices
from monitor.margin.tables import NO_TABLES, HouseRules, Tables
from monitor.wire.entries import asset_of, house_rules_of, instrument_of, risk_of
from monitor.wire.fields import (
    ABSENT,
    Row,
    Wrong,
    boolean,
    choice,
    identifier,
    integer,
    keys_within,
    listed,
    mapped,
    name,
    nonnegative,
    nonzero,
    number,
    optional,
    pointer,
    positive,
    required,
    row_of,
    shown,
    time,
    unit,
)

__all__ = ["Document", "Known", "Purpose", "account_id_of", "parse_document", "read_bytes", "read_document"]

Purpose = Literal["evaluate", "import", "stream"]
"""What a document is for: `evaluate` may carry its own time and prices; `stream` needs a sequence and may remove an account."""

Known = Callable[[str], Tables]
"""Configured tables of a venue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One portfolio document, read and checked. Exactly one of `account` and `remove` is set.

    Attributes:
        sequence, epoch: (epoch, sequence) rises by account; sequence is None only outside the stream.
        as_of: The moment described; None: now.
        tables: The document's own entries only; lay them over the venue's with `tables.over(known)`. Its `rules` (house only) stand
            under `account.rules`, or "house".
        prices: The document's own.
    """

    version: int = 1
    sequence: int | None = None
    epoch: int = 0
    as_of: datetime | None = None
    account: Account | None = None
    remove: str | None = None
    tables: Tables = NO_TABLES
    prices: Prices = NO_PRICES

    @property
    def account_id(self) -> str:
        """Whom it is about."""
        if self.account is not None:
            return self.account.id
        assert self.remove is not None
        return self.remove


# ---------------------------------------------------------------- bytes to JSON

_SPACE = b" \t\r\n"
_ODD_NUMBER = re.compile(rb"[eE][-+]?[0-9]{3}|[-+0-9.eE]{61}")


class _Doubled(dict[str, Any]):
    """An object with a key that stands in it twice."""

    doubled = ""


@dataclass(frozen=True, slots=True)
class _OddNumber:
    """A bare number outside rule 2, as written."""

    text: str

    def __str__(self) -> str:
        return self.text


def parse_document(data: bytes) -> object:
    """The JSON value of `data`, with nothing lost on the way: doubled keys and bare numbers outside rule 2 are refused.

    orjson keeps the last of doubled keys and turns 1e-400 into 0. Bytes that equal what orjson prints for the value (white space aside)
    hold neither; anything else is looked at closer, and at worst read again by a slower parser that tells.

    Raises:
        RefusedError: Not JSON (path "", the text says what and where), a doubled key, an odd number.
    """
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise _not_json(data, error) from None
    try:
        printed = orjson.dumps(body)
    except TypeError:  # it prints at most 254 levels
        raise _too_deep(account_id_of(body)) from None
    if data.translate(None, _SPACE) != printed.translate(None, _SPACE):
        # Without backslashes every string is printed as written, so each key lost leaves a colon missing.
        plain = b"\\" not in data and data.count(b":") == printed.count(b":") and _ODD_NUMBER.search(data) is None
        if not plain:
            _look_closely(data, account_id_of(body))
    return body


def _not_json(data: bytes, error: orjson.JSONDecodeError) -> RefusedError:
    """Why these bytes are not JSON, and where."""
    if not data.strip(_SPACE):
        return RefusedError("", "(nothing)", "a portfolio document; the input is empty")
    if data.startswith(b"\xef\xbb\xbf"):
        return RefusedError("", "byte order mark EF BB BF", "JSON in UTF-8 without byte order mark")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as wrong:
        line = data.count(b"\n", 0, wrong.start) + 1
        shown_bytes = data[wrong.start : wrong.start + 4].hex(" ")
        return RefusedError("", f"bytes {shown_bytes}", f"UTF-8 text; byte {wrong.start + 1} (line {line}) is not")
    near = error.doc[max(0, error.pos - 20) : error.pos + 20] if isinstance(error.doc, str) else ""
    if "end of data" in error.msg or error.pos >= len(data.rstrip(_SPACE)):
        return RefusedError("", shown(near), f"whole JSON; it ends too early, at line {error.lineno} column {error.colno}")
    return RefusedError("", shown(near), f"JSON; {error.msg} at line {error.lineno} column {error.colno}")


def _too_deep(account_id: str | None) -> RefusedError:
    return RefusedError("", "arrays or objects nested too deep", "a portfolio document", account_id=account_id)


def _look_closely(data: bytes, account_id: str | None) -> None:
    """Raises RefusedError for the first doubled key or odd bare number, in the order of the text's objects."""

    def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        row = dict(pairs)
        if len(row) == len(pairs):
            return row
        marked, seen = _Doubled(row), set[str]()
        for key, _ in pairs:
            if key in seen:
                marked.doubled = key
                break
            seen.add(key)
        return marked

    def number_of(text: str, keep: Callable[[str], Any]) -> Any:
        exponent = text.lower().partition("e")[2].lstrip("+-")
        return _OddNumber(text) if len(text) > 60 or len(exponent) > 2 else keep(text)

    try:
        body = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=object_of,
            parse_float=lambda text: number_of(text, float),
            parse_int=lambda text: number_of(text, int),
        )
    except RecursionError:
        raise _too_deep(account_id) from None
    waiting: list[tuple[list[str | int], Any]] = [([], body)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, _Doubled):
            raise RefusedError(
                pointer([*path, value.doubled]), shown(value[value.doubled]), "each key once; it stands here twice", account_id=account_id
            )
        if isinstance(value, _OddNumber):
            raise RefusedError(
                pointer(path), value.text[:80], "a number of at most 60 characters, exponent of at most two digits", account_id=account_id
            )
        if isinstance(value, dict):
            waiting += [([*path, key], item) for key, item in reversed(value.items())]
        elif isinstance(value, list):
            waiting += [([*path, index], item) for index, item in reversed(list(enumerate(value)))]


def account_id_of(body: object) -> str | None:
    """Whom a body is about, as far as it can be read at all; for the refusal of a body that may be wrong in any way."""
    if isinstance(body, dict):
        account = body.get("account")
        found = account.get("id") if isinstance(account, dict) else body.get("remove")
        if isinstance(found, str):
            return found[:128]
    return None


# ---------------------------------------------------------------- JSON to values

_DOCUMENT = frozenset(("version", "sequence", "epoch", "as_of", "account", "remove", "instruments", "assets", "prices", "risk", "rules"))
_ACCOUNT = frozenset(
    (
        "id",
        "venue",
        "mode",
        "margin_model",
        "group",
        "rules",
        "valuation_currency",
        "taker_fee",
        "minimum_initial_rate",
        "balances",
        "positions",
        "orders",
        "adjustments",
    )
)
_BALANCE = frozenset(("asset", "wallet", "cash", "collateral"))
_POSITION = frozenset(
    (
        "instrument",
        "quantity",
        "side",
        "entry_price",
        "cost",
        "leverage",
        "margin_mode",
        "isolated_wallet",
        "isolated_cash",
        "unsettled_funding",
    )
)
_ORDER = frozenset(("instrument", "side", "quantity", "price", "notional", "count"))
_SUMS: Mapping[str, Callable[[Row, str], Any]] = {
    "pnl": number,
    "option_value": number,
    "credit": nonnegative,
    "notional": nonnegative,
    "initial_margin": nonnegative,
    "maintenance_margin": nonnegative,
}
_ADJUSTMENT = frozenset(("name", "asset", *_SUMS))
_TERM = re.compile(r"[a-z0-9][a-z0-9 _.-]{0,63}", re.ASCII).fullmatch
_PRICE_READERS: Mapping[str, Callable[[Row, str], Any]] = {
    PriceKind.MARK: positive,
    PriceKind.INDEX: positive,
    PriceKind.SMOOTHED: positive,
    PriceKind.FORWARD: positive,
    PriceKind.VOLATILITY: positive,
    PriceKind.INTEREST_RATE: number,
    PriceKind.FUNDING_RATE: number,
    PriceKind.OPEN_INTEREST: nonnegative,
    PriceKind.DEPOSITS: nonnegative,
    PriceKind.BORROWS: nonnegative,
}
_PRICES = frozenset(map(str, _PRICE_READERS))
_VENUES = {venue: venue for venue in VENUES}
_MARGIN_MODELS = {"standard": "standard", "portfolio": "portfolio"}
_SIDES = {"both": "both", "long": "long", "short": "short"}
_MARGIN_MODES = {"cross": "cross", "isolated": "isolated"}
_ORDER_SIDES = {"buy": "buy", "sell": "sell"}


def read_bytes(data: bytes, *, purpose: Purpose, known: Known, now: datetime | None = None) -> Document:
    """`read_document` of `parse_document`: what a consumer of the update stream calls."""
    return read_document(parse_document(data), purpose=purpose, known=known, now=now)


def read_document(body: object, *, purpose: Purpose, known: Known, now: datetime | None = None) -> Document:
    """A parsed JSON value as a document.

    Args:
        body: What `parse_document` returned.
        purpose: `evaluate`, `import` or `stream`; decides which of `as_of`, `prices`, `sequence` and `remove` may or must be there.
        known: Configured tables of a venue: instruments that the document need not bring itself.
        now: The present, UTC. With it (or with `as_of`) a position in an instrument past its expiry is refused; None leaves that out,
            for documents that were accepted before and are only read again.

    Raises:
        RefusedError: Something that cannot be right; its `path` is a JSON pointer to the offending key, its `account_id` whose it is.
    """
    try:
        return _document(row_of(body), purpose, known, now)
    except Wrong as wrong:
        raise wrong.refused(account_id_of(body)) from None


def _document(row: Row, purpose: Purpose, known: Known, now: datetime | None) -> Document:
    keys_within(row, _DOCUMENT)
    if "version" in row and (type(row["version"]) not in (int, float) or row["version"] != 1):
        raise Wrong("version", row["version"], "1")
    sequence = integer(row, "sequence") if "sequence" in row else None
    epoch = optional(row, "epoch", integer, 0)
    if purpose == "stream" and sequence is None:
        raise Wrong("sequence", ABSENT, "an integer: the update stream needs it")
    if "remove" in row:
        return _removal(row, purpose, sequence, epoch)
    if "account" not in row:
        raise Wrong("account", ABSENT, "an account, or remove on the update stream")
    if purpose != "evaluate":
        for key in ("as_of", "prices"):
            if key in row:
                raise Wrong(key, row[key], f"nothing: {purpose} uses the present, and feeds give the prices")
    as_of = time(row, "as_of") if "as_of" in row else None
    instruments = mapped(row, "instruments", instrument_of) if "instruments" in row else {}
    assets = mapped(row, "assets", asset_of) if "assets" in row else {}
    risk = mapped(row, "risk", risk_of) if "risk" in row else {}
    try:
        account = _account(row_of(row["account"]), instruments, known)
    except Wrong as wrong:
        raise wrong.under("account") from None
    rules: dict[str, HouseRules] = {}
    if "rules" in row:
        if account.venue != "house":
            raise Wrong("rules", row["rules"], f"nothing: only house has rules in the document, {account.venue} has its own")
        rule_name = account.rules or "house"
        rules[rule_name] = house_rules_of(row, "rules", rule_name=rule_name)
    moment = as_of or now
    if moment is not None:
        _refuse_expired(account, instruments, known, moment)
    return Document(
        sequence=sequence,
        epoch=epoch,
        as_of=as_of,
        account=account,
        tables=_tables(instruments, assets, risk, rules),
        prices=_prices(row) if "prices" in row else NO_PRICES,
    )


def _tables(instruments: dict[str, Instrument], assets: dict[str, Asset], risk: dict[str, Risk], rules: dict[str, HouseRules]) -> Tables:
    if not (instruments or assets or risk or rules):
        return NO_TABLES
    return Tables(instruments=instruments, assets=assets, risk=risk, rules=rules)


def _removal(row: Row, purpose: Purpose, sequence: int | None, epoch: int) -> Document:
    if purpose != "stream":
        raise Wrong("remove", row["remove"], "an account: remove is for the update stream only")
    for key in ("account", "as_of", "instruments", "assets", "prices", "risk", "rules"):
        if key in row:
            raise Wrong(key, row[key], "nothing beside remove but sequence, epoch and version")
    return Document(sequence=sequence, epoch=epoch, remove=identifier(row, "remove"))


def _prices(row: Row) -> Prices:
    try:
        kinds = row_of(row["prices"])
        keys_within(kinds, _PRICES)
        return Prices(**{kind: mapped(kinds, kind, _PRICE_READERS[kind]) for kind in kinds})
    except Wrong as wrong:
        raise wrong.under("prices") from None


def _account(row: Row, instruments: Mapping[str, Instrument], known: Known) -> Account:
    keys_within(row, _ACCOUNT)
    required(row, "id")
    required(row, "venue")
    required(row, "positions")
    venue = choice(row, "venue", _VENUES)
    modes = MODES[venue]
    mode = None
    if "mode" in row:
        mode = row["mode"]
        if mode not in modes:
            raise Wrong("mode", mode, f"{' or '.join(modes)}: the modes of {venue}")
    margin_model = choice(row, "margin_model", _MARGIN_MODELS) if "margin_model" in row else "standard"
    if margin_model == "portfolio" and venue not in PORTFOLIO_MARGIN_VENUES:
        raise Wrong("margin_model", margin_model, f"standard: {venue} has no portfolio margin here")
    configured = known(venue).instruments

    def position(item: object) -> Position:
        return _position(item, instruments, configured, venue)

    def order(item: object) -> Order:
        return _order(item, instruments, configured, venue)

    return Account(
        id=identifier(row, "id"),
        venue=venue,
        positions=_positions(row, position),
        balances=_balances(row, (mode or modes[0]) == "multi_asset") if "balances" in row else None,
        mode=mode,
        margin_model=margin_model,
        group=identifier(row, "group") if "group" in row else None,
        rules=identifier(row, "rules") if "rules" in row else None,
        valuation_currency=name(row, "valuation_currency") if "valuation_currency" in row else "USD",
        taker_fee=unit(row, "taker_fee") if "taker_fee" in row else None,
        minimum_initial_rate=nonnegative(row, "minimum_initial_rate") if "minimum_initial_rate" in row else ZERO,
        orders=tuple(listed(row, "orders", order)) if "orders" in row else (),
        adjustments=tuple(listed(row, "adjustments", _adjustment)) if "adjustments" in row else (),
    )


def _balances(row: Row, one_pool: bool) -> tuple[Balance, ...]:
    balances = listed(row, "balances", _balance)
    seen = set[str]()
    for index, balance in enumerate(balances):
        if balance.asset in seen:
            raise Wrong("asset", balance.asset, "each asset once").under("balances", index)
        seen.add(balance.asset)
        if one_pool and (balance.cash is None) != (balances[0].cash is None):
            kind, other = ("wallet", "cash") if balance.cash is None else ("cash", "wallet")
            value = balance.wallet if balance.cash is None else balance.cash
            raise Wrong(kind, str(value), f"{other} as in the first row: one kind per pool").under("balances", index)
    return tuple(balances)


def _balance(value: object) -> Balance:
    row = row_of(value)
    keys_within(row, _BALANCE)
    required(row, "asset")
    if "wallet" in row:
        if "cash" in row:
            raise Wrong("cash", row["cash"], "only one of wallet and cash")
    elif "cash" not in row:
        raise Wrong("wallet", ABSENT, "wallet (before unrealised profit) or cash (after paying for the notional)")
    return Balance(
        asset=name(row, "asset"),
        wallet=number(row, "wallet") if "wallet" in row else None,
        cash=number(row, "cash") if "cash" in row else None,
        collateral=boolean(row, "collateral") if "collateral" in row else True,
    )


def _positions(row: Row, position: Callable[[object], Position]) -> tuple[Position, ...]:
    positions = listed(row, "positions", position)
    sides: dict[str, str] = {}
    for index, held in enumerate(positions):
        before = sides.setdefault(held.instrument, "")
        if before == "":
            sides[held.instrument] = held.side
        elif (before == "both") != (held.side == "both"):
            expected = f"one-way (both) or hedge (long, short) in one instrument, not mixed; {held.instrument} has {before} above"
            raise Wrong("side", held.side, expected).under("positions", index)
        elif before in {held.side, "long and short"}:
            raise Wrong("instrument", held.instrument, f"each instrument and side once; {held.side} stands twice").under("positions", index)
        else:
            sides[held.instrument] = "long and short"
    return tuple(positions)


def _known_instrument(row: Row, own: Mapping[str, Instrument], configured: Mapping[str, Instrument], venue: str) -> str:
    """The instrument that a position or order is in; it must be in one of the tables."""
    instrument = row.get("instrument", ABSENT)
    if type(instrument) is str and (instrument in configured or instrument in own):
        return instrument
    required(row, "instrument")
    name(row, "instrument")
    raise Wrong("instrument", instrument, f"an instrument in the document's own `instruments` or in the tables of {venue}")


def _position(value: object, own: Mapping[str, Instrument], configured: Mapping[str, Instrument], venue: str) -> Position:
    row = row_of(value)
    keys_within(row, _POSITION)
    instrument = _known_instrument(row, own, configured, venue)
    if "quantity" not in row:
        required(row, "quantity")
    quantity = nonzero(row, "quantity")
    side = "both"
    if "side" in row:
        side = choice(row, "side", _SIDES)
        if side != "both" and (side == "short") != (quantity < 0):
            raise Wrong("side", side, f"{'short' if quantity < 0 else 'long'}, the sign of quantity {quantity}")
    margin_mode = choice(row, "margin_mode", _MARGIN_MODES) if "margin_mode" in row else "cross"
    if "entry_price" in row and "cost" in row:
        raise Wrong("cost", row["cost"], "only one of entry_price and cost")
    isolated_wallet = isolated_cash = None
    if "isolated_wallet" in row and row["isolated_wallet"] is not None:
        isolated_wallet = number(row, "isolated_wallet")
    if "isolated_cash" in row:
        if "isolated_wallet" in row:
            raise Wrong("isolated_cash", row["isolated_cash"], "only one of isolated_wallet and isolated_cash")
        isolated_cash = number(row, "isolated_cash")
    if margin_mode != "cross":
        if "isolated_wallet" not in row and isolated_cash is None and "leverage" not in row:
            raise Wrong("isolated_wallet", ABSENT, "isolated_wallet, isolated_cash or leverage: an isolated position needs one")
    elif isolated_wallet is not None or isolated_cash is not None:
        key = "isolated_cash" if isolated_wallet is None else "isolated_wallet"
        raise Wrong(key, row[key], "nothing: only a position with margin_mode isolated has it")
    return Position(
        instrument=instrument,
        quantity=quantity,
        side=side,
        entry_price=positive(row, "entry_price") if "entry_price" in row else None,
        cost=number(row, "cost") if "cost" in row else None,
        leverage=positive(row, "leverage") if "leverage" in row else None,
        margin_mode=margin_mode,
        isolated_wallet=isolated_wallet,
        isolated_cash=isolated_cash,
        unsettled_funding=number(row, "unsettled_funding") if "unsettled_funding" in row else ZERO,
    )


def _order(value: object, own: Mapping[str, Instrument], configured: Mapping[str, Instrument], venue: str) -> Order:
    row = row_of(value)
    keys_within(row, _ORDER)
    instrument = _known_instrument(row, own, configured, venue)
    required(row, "side")
    if "notional" in row:
        if "price" in row:
            raise Wrong("price", row["price"], "nothing beside notional")
    elif "quantity" not in row or "price" not in row:
        raise Wrong("notional", ABSENT, "notional, or quantity with price")
    return Order(
        instrument=instrument,
        side=choice(row, "side", _ORDER_SIDES),
        quantity=positive(row, "quantity") if "quantity" in row else None,
        price=positive(row, "price") if "price" in row else None,
        notional=positive(row, "notional") if "notional" in row else None,
        count=_count(row) if "count" in row else 1,
    )


def _count(row: Row) -> int:
    count = integer(row, "count")
    if count < 1:
        raise Wrong("count", row["count"], "an integer of 1 or more")
    return count


def _adjustment(value: object) -> Adjustment:
    row = row_of(value)
    keys_within(row, _ADJUSTMENT)
    term = required(row, "name")
    if type(term) is not str or _TERM(term) is None:
        raise Wrong("name", term, "a lower-case letter or digit, then at most 63 lower-case letters, digits, blanks or _ . -")
    required(row, "asset")
    sums = {key: read(row, key) for key, read in _SUMS.items() if key in row}
    if not sums:
        raise Wrong(None, row, f"at least one of {', '.join(_SUMS)}")
    return Adjustment(name=term, asset=name(row, "asset"), **sums)


def _refuse_expired(account: Account, own: Mapping[str, Instrument], known: Known, moment: datetime) -> None:
    """Raises Wrong when the account holds or orders something that is past its expiry at `moment`."""
    configured = known(account.venue).instruments
    rows: tuple[tuple[str, tuple[Position | Order, ...]], ...] = (("positions", account.positions), ("orders", account.orders))
    for field, held_rows in rows:
        for index, held in enumerate(held_rows):
            instrument = own.get(held.instrument) or configured[held.instrument]
            if instrument.expiry is not None and instrument.expiry < moment:
                expiry = instrument.expiry.isoformat().replace("+00:00", "Z")
                expected = f"an expiry at or after {moment.isoformat().replace('+00:00', 'Z')}, the moment described"
                if held.instrument in own:
                    raise Wrong("expiry", expiry, expected).under("instruments", held.instrument)
                raise Wrong("instrument", f"{held.instrument}, expired {expiry}", expected).under("account", field, index)
