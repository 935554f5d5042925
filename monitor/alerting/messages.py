"""What a person reads: an event as one line, as text and as Markdown, with everything that came from outside made harmless.

Every shown number is rounded towards danger: ratios, requirements and cures up, equity, headroom and distances down.
A name is shown literally: control and direction characters as escapes, Markdown and HTML signs as signs, mentions and addresses dead.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from enum import StrEnum
from typing import Any

from monitor.margin.levels import Level
from monitor.margin.numbers import ZERO, decimal_of, plain

__all__ = ["Markup", "Message", "clean", "headline", "line", "literal", "money", "percent", "price", "render", "suspicions", "utc"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
WIDE = Context(prec=300)
"""Wide enough to round any number that `decimal_of` reads (60 digits, exponent of two digits)."""
SHOWN_POSITIONS = 5
SHOWN_WAYS = 4
LONGEST_NAME = 160
MARKDOWN_SIGNS = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~=&$^@:])")
LIVE_SIGNS = re.compile(r"([@<]|:(?=//))")
RANKS = {level.word: int(level) for level in Level}
INTERNAL = frozenset({"kind", "received_at_ns", "venue_time_ms"})
HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that are never printed as they are: controls, direction and zero-width marks, line separators, unassigned."""


class Markup(StrEnum):
    """How a message is marked up."""

    TEXT = "text"
    MARKDOWN = "markdown"


@dataclass(frozen=True, slots=True)
class Message:
    """A message for people. `title` is one line of plain text; `body` follows `markup` and does not repeat the title."""

    title: str
    body: str
    markup: Markup = Markup.TEXT


def clean(value: object) -> str:
    """A value from outside as harmless text of one line: hidden characters as escapes, at most 160 characters."""
    text = value if isinstance(value, str) else str(value)
    if len(text) > LONGEST_NAME:
        text = text[: LONGEST_NAME - 3] + "..."
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape", "surrogatepass").decode() if unicodedata.category(character) in HIDDEN else character
        for character in text
    )


def literal(value: object, markup: Markup) -> str:
    """A value from outside, cleaned, and written so that a chat shows its characters and does nothing else with them.

    A zero-width space behind `@`, `<` and before `//` keeps mentions, tags and addresses dead. In Markdown every sign that CommonMark or
    Telegram's MarkdownV2 could act on has a backslash before it.
    """
    text = clean(value)
    if markup is Markup.MARKDOWN:
        text = MARKDOWN_SIGNS.sub(r"\\\1", text)
    return LIVE_SIGNS.sub("\\1\u200b", text)


def money(value: object, *, up: bool) -> str:
    """An amount with thousands separators: 2 decimals from 1,000, 4 from 1, else 8; rounded up or down. `?` for what is no number."""
    number = decimal_of(value)
    if number is None:
        return "?"
    size = abs(number)
    places = 2 if size >= 1000 else 4 if size >= 1 else 8
    return _trimmed(_quantized(number, places, up=up))


def percent(value: object, *, up: bool) -> str:
    """A fraction as a percentage with two decimals, rounded up or down as asked: 0.83101 up is `83.11%`."""
    number = decimal_of(value)
    return "?" if number is None else f"{_quantized(number * 100, 2, up=up):,f}%"


def price(value: object, *, up: bool = False) -> str:
    """A price with at most 8 significant digits, rounded up or down as asked."""
    number = decimal_of(value)
    if number is None:
        return "?"
    return _trimmed(_quantized(number, max(0, 7 - number.adjusted()), up=up))


def utc(milliseconds: object) -> str:
    """Milliseconds since 1970 as `2026-11-20T12:00:00.123Z`; empty when there is no such time."""
    if type(milliseconds) is not int or not 0 < milliseconds < 253_402_300_800_000:
        return ""
    return (EPOCH + timedelta(milliseconds=milliseconds)).strftime("%Y-%m-%dT%H:%M:%S.") + f"{milliseconds % 1000:03d}Z"


def headline(body: Mapping[str, Any]) -> str:
    """What happened to whom, in one short line of clean text: `MARGIN CALL acme-1 cross:USDT`.

    An unknown pool is called unknown whatever its last level was.
    """
    if body.get("kind") == "blind":
        return f"BLIND partition {clean(body.get('id', '?')).partition('/')[0]}: a stretch of prices was never seen"
    whom = clean(body.get("account", "?"))
    if body.get("pool"):
        whom += f" {clean(body['pool'])}"
    reason = body.get("unknown")
    if reason is not None:
        return f"UNKNOWN {whom}: {clean(reason)}"
    level, previous = body.get("level"), body.get("previous")
    if body.get("kind") == "numbers":
        return f"NUMBERS {whom}: {_word(level)}"
    again = ", known again" if body.get("previous_unknown") is not None else ""
    if _rank(level) < _rank(previous):
        return f"BETTER {whom}: {_word(level)}, was {_word(previous)}{again}"
    return f"{_word(level).upper()} {whom}{again}"


def line(body: Mapping[str, Any]) -> str:
    """An event in one line for consoles and logs, clean but without escapes for markup.

    `2026-11-20T12:00:00.123Z MARGIN CALL acme-1 cross:USDT (desk, binance_usdm) ratio=83.11% equity=... cause=...`
    A finished notice is told by its title.
    """
    if body.get("kind") == "notice":
        title = clean(body.get("title", "?"))
        return f"{utc(body.get('at_ms'))} NOTICE {clean(body.get('route', '?'))}: {title} id={clean(body.get('id', '?'))}"
    parts = [utc(_milliseconds(body.get("decided_at_ns"))), headline(body)]
    where = ", ".join(clean(body[key]) for key in ("group", "venue") if body.get(key))
    if where:
        parts.append(f"({where})")
    if body.get("kind") == "blind":
        parts += [f"{key}={clean(body[key])}" for key in ("from", "to") if body.get(key) is not None]
    elif body.get("unknown") is None:
        parts += _figures_in_line(body) if "equity" in body else ["numbers follow"] if "numbers" in body else []
    cause = _cause(body, Markup.TEXT, clean_only=True)
    if cause:
        parts.append(f"cause={cause}")
    if doubted := suspicions(body):
        parts.append(f"suspicious={','.join(reason for reason, _ in doubted)}")
    parts.append(f"id={clean(body.get('id', '?'))}")
    return " ".join(part for part in parts if part)


def render(body: Mapping[str, Any], markup: Markup = Markup.TEXT) -> Message:
    """The whole message of one event: level, ratio, liquidation prices and how far, what hurts, the smallest cure, the cause."""
    bullet, (strong, end) = "- ", ("**", "**") if markup is Markup.MARKDOWN else ("", "")
    out: list[str] = []

    def say(text: str) -> None:
        out.append(text)

    def shown(value: object) -> str:
        return literal(value, markup)

    where = [f"{word} {shown(body[key])}" for word, key in (("group", "group"), ("venue", "venue"), ("pool", "pool")) if body.get(key)]
    if where:
        say(", ".join(where))
    currency = f" {shown(body['currency'])}" if body.get("currency") else ""
    if body.get("kind") == "blind":
        stretch = [f"{key} {shown(body[key])}" for key in ("from", "to") if body.get(key) is not None]
        say("Level changes inside this stretch may be missing" + (": " + ", ".join(stretch) if stretch else "") + shown("."))
    elif body.get("unknown") is not None:
        say(f"{strong}The level is not known{end}: {shown(body['unknown'])}")
        say(f"Last known level: {shown(_word(body.get('level')))}" + shown(". It must not be relied on."))
    elif body.get("numbers") is not None and "equity" not in body:
        say(f"{strong}{shown(_word(body.get('level')))}{end}, level before: {shown(_word(body.get('previous')))}. Its numbers follow.")
    else:
        ratio, previous = body.get("margin_ratio"), body.get("previous")
        figure = f"{strong}Margin ratio {shown(percent(ratio, up=True))}{end}" if ratio is not None else f"{strong}Equity is used up{end}"
        say(figure + shown(" (100% is liquidation)") + (f", level before: {shown(_word(previous))}" if previous else ""))
        say(
            f"Equity {shown(money(body.get('equity'), up=False))}{currency}, maintenance margin "
            f"{shown(money(body.get('maintenance_margin'), up=True))}{currency}, fees {shown(money(body.get('fees'), up=True))}{currency}, "
            f"headroom {shown(money(body.get('headroom'), up=False))}{currency}"
        )
        shortfall = decimal_of(body.get("shortfall"))
        if shortfall:
            say(f"Missing to leave {shown(_word(body.get('level')))}: {shown(money(shortfall, up=True))}{currency}")
        moves = _moves(body, markup)
        if moves:
            say(moves)
        positions = _mappings(body.get("positions"))
        chosen = _telling(positions)
        for position in chosen:
            say(bullet + _position(position, markup))
        left_out = body.get("more_positions")
        more = len(positions) - len(chosen) + (left_out if type(left_out) is int else 0)
        if more > 0:
            say(f"{bullet}and {more} more")
        cure = _cure(body, markup, currency)
        if cure:
            say(f"{strong}Cure{end}: {cure}")
        if _rank(body.get("level")) >= 3:
            say(shown("The venue may already have closed positions."))
    cause = _cause(body, markup)
    if cause:
        say(f"Cause: {cause}")
    for doubt in _doubts(body, markup):
        say(f"{strong}Suspicious price{end}: {doubt}")
    rules = body.get("rules")
    about = f"Event {shown(body.get('id', '?'))}, revision {shown(body.get('rev', '?'))}"
    if isinstance(rules, Mapping) and rules.get("name"):
        about += f", rules {shown(rules['name'])}" + (f" since {shown(rules['since'])}" if rules.get("since") else "")
    say(about)
    return Message(title=LIVE_SIGNS.sub("\\1\u200b", headline(body)), body="\n".join(out), markup=markup)


def _figures_in_line(body: Mapping[str, Any]) -> list[str]:
    currency = clean(body.get("currency", ""))
    ratio = body.get("margin_ratio")
    parts = [f"ratio={percent(ratio, up=True) if ratio is not None else 'none'}"]
    for name, key, up in (("equity", "equity", False), ("maintenance", "maintenance_margin", True), ("headroom", "headroom", False)):
        if body.get(key) is not None:
            parts.append(f"{name}={money(body[key], up=up)}{currency}")
    near = _telling(_mappings(body.get("positions")))[:1]
    parts += [f"nearest={_position(position, Markup.TEXT, clean_only=True)!r}" for position in near]
    cure = body.get("cure")
    if isinstance(cure, Mapping) and decimal_of(cure.get("deposit")):
        parts.append(f"deposit={money(cure['deposit'], up=True)}{currency}")
    return parts


def _telling(positions: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The positions worth showing: nearest to their liquidation price first, then the largest losses, at most five."""

    def distance(position: Mapping[str, Any]) -> Decimal | None:
        number = decimal_of(position.get("distance"))
        return abs(number) if number is not None and position.get("liquidation_price") is not None else None

    near = sorted((p for p in positions if distance(p) is not None), key=lambda p: distance(p) or ZERO)
    hurting = sorted((p for p in positions if _pnl(p) < 0), key=_pnl)
    chosen: list[Mapping[str, Any]] = []
    for position in (*near[:3], *hurting[:3], *near[3:], *hurting[3:]):
        if len(chosen) < SHOWN_POSITIONS and not any(position is other for other in chosen):
            chosen.append(position)
    return chosen


def _pnl(position: Mapping[str, Any]) -> Decimal:
    return decimal_of(position.get("unrealized_pnl")) or ZERO


def _position(position: Mapping[str, Any], markup: Markup, *, clean_only: bool = False) -> str:
    def shown(value: object) -> str:
        return clean(value) if clean_only else literal(value, markup)

    side, quantity = position.get("side"), position.get("quantity")
    text = shown(position.get("instrument", "?"))
    text += f" {shown(side)}" if side and side != "both" else ""
    text += f" {shown(quantity)}: mark {shown(price(position.get('mark_price')))}"
    distance = decimal_of(position.get("distance"))
    if position.get("liquidation_price") is None:
        text += ", no liquidation price"
    else:
        below = distance is not None and distance < 0
        text += f", liquidation {shown(price(position['liquidation_price'], up=below))}"
        if distance is not None:
            text += f" {shown('(' + percent(abs(distance), up=False) + (' below)' if below else ' above)'))}"
    if position.get("unrealized_pnl") is not None:
        text += f", unrealized {shown(money(position['unrealized_pnl'], up=False))}"
    return text


def _moves(body: Mapping[str, Any], markup: Markup) -> str:
    pool = body.get("pool_liquidation")
    if not isinstance(pool, Mapping):
        return ""
    moves = [
        f"{word} by {literal(percent(abs(number), up=False), markup)}"
        for word, key in (("fall", "down"), ("rise", "up"))
        if (number := decimal_of(pool.get(key))) is not None
    ]
    return f"The pool is liquidated when all marks {' or '.join(moves)}" if moves else ""


def _cure(body: Mapping[str, Any], markup: Markup, currency: str) -> str:
    cure = body.get("cure")
    if not isinstance(cure, Mapping):
        return ""
    ways: list[str] = []
    if decimal_of(cure.get("deposit")):
        ways.append(f"deposit {literal(money(cure['deposit'], up=True), markup)}{currency}")
    for step in _mappings(cure.get("reduce")):
        side, quantity = step.get("side"), decimal_of(step.get("quantity"))
        if quantity is None or len(ways) == SHOWN_WAYS:  # closing all of this position is not enough
            continue
        what = f"{literal(plain(abs(quantity)), markup)} of {literal(step.get('instrument', '?'), markup)}"
        ways.append(f"close {what}" + (f" {literal(side, markup)}" if side and side != "both" else ""))
    below = f", to get below {literal(_word(cure['below']), markup)}" if cure.get("below") and ways else ""
    return ", or ".join(ways) + below


def _cause(body: Mapping[str, Any], markup: Markup, *, clean_only: bool = False) -> str:
    def shown(value: object) -> str:
        return clean(value) if clean_only else literal(value, markup)

    cause = body.get("cause")
    if not isinstance(cause, Mapping):
        return ""
    kind = shown(cause.get("kind", "?"))
    if cause.get("price") is not None:
        at = utc(cause.get("venue_time_ms"))
        return f"{kind} {shown(cause.get('instrument', '?'))} {shown(price(cause['price']))}" + (f" at {shown(at)}" if at else "")
    if cause.get("kind") == "document":
        return f"account document {shown(cause.get('epoch', '?'))}/{shown(cause.get('sequence', '?'))}"
    rest = (f"{shown(key)} {shown(value)}" for key, value in cause.items() if key not in INTERNAL and _is_scalar(value))
    return " ".join((kind, *rest))


def suspicions(body: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Why to doubt the price that caused an event: clean reasons, each with its reference and deviation."""
    cause = body.get("cause")
    found = _mappings(cause.get("suspicious")) if isinstance(cause, Mapping) else []
    return [(clean(each.get("reason", "?")), each) for each in found]


def _doubts(body: Mapping[str, Any], markup: Markup) -> list[str]:
    """Lines about a price to doubt: why, what the level would be at other venues' prices, and that it counts all the same."""
    found = suspicions(body)
    if not found:
        return []
    reasons = []
    for reason, each in found:
        deviation = decimal_of(each.get("deviation"))
        far = (
            f", {percent(abs(deviation), up=True)} {'below' if deviation < 0 else 'above'} {price(each.get('reference'))}"
            if deviation
            else ""
        )
        reasons.append(literal(reason.replace("_", " ") + far, markup))
    other = ""
    if body.get("level_at_median") is not None:
        ratio = body.get("margin_ratio_at_median")
        other = f"At the other venues' prices: {_word(body['level_at_median'])}" + (
            f", {percent(ratio, up=True)}. " if ratio is not None else ". "
        )
    return ["; ".join(reasons), literal(f"{other}The venue liquidates by its own price all the same: check there first.", markup)]


def _mappings(value: object) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list | tuple) else []


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _word(level: object) -> str:
    return clean(level).replace("_", " ") if level is not None else "unknown"


def _rank(level: object) -> int:
    """0 for healthy to 4 for bankrupt, -1 for anything else."""
    return RANKS.get(level, -1) if isinstance(level, str) else -1


def _milliseconds(nanoseconds: object) -> int | None:
    return nanoseconds // 1_000_000 if type(nanoseconds) is int else None


def _quantized(number: Decimal, places: int, *, up: bool) -> Decimal:
    return number.quantize(Decimal(1).scaleb(-places), rounding=ROUND_CEILING if up else ROUND_FLOOR, context=WIDE) or ZERO


def _trimmed(number: Decimal) -> str:
    text = f"{number:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
