"""From what is to be said to one message: a single notice in full, many as a digest that names the worst and counts the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any

import orjson

from monitor.alerting.messages import LIVE_SIGNS, Markup, clean, literal, money, percent, render, suspicions, utc
from monitor.margin.levels import Level
from monitor.margin.numbers import decimal_of

__all__ = ["Change", "Entry", "Notice", "compose", "essence"]

LISTED = 10
"""Lines of a digest."""
ITEMS = 50
"""Items a notice carries for machines."""
GROUPS = 5
KEPT_POSITIONS = 5
# fmt: off
KEPT = (
    "id", "kind", "account", "pool", "venue", "group", "currency", "level", "previous", "unknown", "previous_unknown", "rev", "cause",
    "equity", "maintenance_margin", "fees", "margin_ratio", "headroom", "shortfall", "pool_liquidation", "rules", "from", "to", "reason",
    "decided_at_ns", "numbers", "level_at_median", "margin_ratio_at_median",
)
# fmt: on


class Change(StrEnum):
    """Why something is said."""

    ALERT = "alert"
    REPEAT = "repeat"
    BETTER = "better"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing to say.

    Attributes:
        about: level, unknown, blind or the name of a rule.
        severity: What was reached; with BETTER what it is now.
        was: With BETTER, the severity told before.
        at_ms: When it was decided. since_ms: Since when it stands without a break, if it does.
        present: Severity at the moment of composing.
        unknown: Why the present level cannot be claimed, or None.
        facts: `essence` of the latest event, or a rule's text.
    """

    change: Change
    account: str
    pool: str
    about: str
    group: str
    venue: str
    severity: Level
    was: Level
    at_ms: int
    since_ms: int | None
    present: Level
    unknown: str | None
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A finished message for the sinks of one route."""

    route: str
    sinks: tuple[str, ...]
    level: Level
    title: str
    text: str
    markdown: str
    count: int
    items: tuple[dict[str, Any], ...]
    at_ms: int

    def to_json(self, notice_id: str) -> bytes:
        """The body of a row of `{p}:notices`. `items` are the worst; `more` says how many are not listed."""
        return orjson.dumps(
            {
                "id": notice_id,
                "kind": "notice",
                "route": self.route,
                "sinks": self.sinks,
                "level": self.level.word,
                "title": self.title,
                "text": self.text,
                "markdown": self.markdown,
                "count": self.count,
                "items": self.items,
                "more": self.count - len(self.items),
                "at_ms": self.at_ms,
            }
        )


def essence(body: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of an event for later messages (repeats, digests): all but long lists."""
    kept = {key: body[key] for key in KEPT if body.get(key) is not None}
    positions = body.get("positions")
    if isinstance(positions, list):
        with_distance = [p for p in positions if isinstance(p, Mapping) and p.get("liquidation_price") is not None]
        nearest = sorted(with_distance, key=lambda p: abs(decimal_of(p.get("distance")) or Decimal(0)))[:3]
        losing = sorted((p for p in positions if isinstance(p, Mapping)), key=lambda p: decimal_of(p.get("unrealized_pnl")) or Decimal(0))
        chosen = [*nearest, *(p for p in losing if not any(p is near for near in nearest))][:KEPT_POSITIONS]
        kept["positions"] = chosen
        kept["more_positions"] = len(positions) - len(chosen)
    cure = body.get("cure")
    if isinstance(cure, Mapping):
        reduce = cure.get("reduce")
        enough = (
            [step for step in reduce if isinstance(step, Mapping) and step.get("quantity") is not None] if isinstance(reduce, list) else []
        )
        kept["cure"] = {"below": cure.get("below"), "deposit": cure.get("deposit"), "reduce": enough[:3]}
    return kept


def compose(route: str, sinks: tuple[str, ...], entries: Sequence[Entry], now_ms: int) -> Notice:
    """One message for all entries (at least one), worst first."""
    ordered = sorted(entries, key=_urgency)
    if len(ordered) == 1:
        title, text, markdown = _single(ordered[0])
    else:
        title, text, markdown = _summary(ordered), _digest(ordered, Markup.TEXT), _digest(ordered, Markup.MARKDOWN)
    return Notice(
        route=route,
        sinks=sinks,
        level=max(entry.severity if entry.change is not Change.BETTER else Level.HEALTHY for entry in ordered),
        title=title,
        text=text,
        markdown=markdown,
        count=len(ordered),
        items=tuple(_item(entry) for entry in ordered[:ITEMS]),
        at_ms=now_ms,
    )


def headline(entry: Entry) -> str:
    """One line of clean text for one entry. It says what was reached, and what holds now where that differs."""
    whom = " ".join(clean(part) for part in (entry.account, entry.pool) if part)
    since = f", since {utc(entry.since_ms)[11:16]}Z" if entry.change is Change.REPEAT and entry.since_ms is not None else ""
    still = "STILL " if entry.change is Change.REPEAT else ""
    if entry.about == "blind":
        return f"BLIND partition {clean(entry.pool).partition('/')[0]}: a stretch of prices was never seen"
    if entry.about == "unknown":
        if entry.change is Change.BETTER:
            return f"KNOWN AGAIN {whom}" + (f": {_word(entry.facts.get('level'))}" if entry.unknown is None else "")
        reason = entry.unknown or entry.facts.get("unknown")
        return f"{still}UNKNOWN {whom}" + (f": {clean(reason)}" if reason else ", known again since") + since
    if entry.about != "level":
        name = entry.about.replace("_", " ")
        text = clean(entry.facts.get("text", ""))
        if entry.change is Change.BETTER:
            return f"BETTER {whom}: {name}, {text}" if entry.present else f"OVER {whom}: {name} warning"
        return f"{still}{name.upper()} {whom}: {text}{since}"
    if entry.change is Change.BETTER:
        return f"BETTER {whom}: {_word(entry.present.word)}, was {_word(entry.was.word)}"
    now = ""
    if entry.unknown is not None:
        now = f"; unknown now: {clean(entry.unknown)}"
    elif entry.present is not entry.severity:
        now = f"; {_word(entry.present.word)} now"
    return f"{still}{_word(entry.severity.word).upper()} {whom}{since}{now}"


def _single(entry: Entry) -> tuple[str, str, str]:
    title = _dead(headline(entry))
    if entry.about in {"level", "unknown", "blind"}:
        return title, render(entry.facts, Markup.TEXT).body, render(entry.facts, Markup.MARKDOWN).body
    return title, _rule_text(entry, Markup.TEXT), _rule_text(entry, Markup.MARKDOWN)


def _rule_text(entry: Entry, markup: Markup) -> str:
    where = [f"{word} {literal(value, markup)}" for word, value in (("group", entry.group), ("venue", entry.venue)) if value]
    return "\n".join([*([", ".join(where)] if where else []), literal(entry.facts.get("text", ""), markup)])


def _digest(entries: Sequence[Entry], markup: Markup) -> str:
    lines = [f"- {_short(entry, markup)}" for entry in entries[:LISTED]]
    if len(entries) > LISTED:
        lines.append(f"and {len(entries) - LISTED:,} more")
    for word, names in (("Groups", (entry.group for entry in entries)), ("Venues", (entry.venue for entry in entries))):
        counts = Counter(name for name in names if name)
        if counts:
            named = [f"{literal(name, markup)} {count:,}" for name, count in counts.most_common(GROUPS)]
            rest = sum(counts.values()) - sum(count for _, count in counts.most_common(GROUPS))
            lines.append(f"{word}: " + ", ".join([*named, *([f"others {rest:,}"] if rest else [])]))
    doubted: Counter[str] = Counter()
    for entry in entries:
        if reasons := [reason.replace("_", " ") for reason, _ in suspicions(entry.facts)]:
            doubted[f"{clean(entry.facts['cause'].get('instrument', '?'))} ({', '.join(reasons)})"] += 1
    if doubted:
        named = [f"{literal(name, markup)} behind {count:,}" for name, count in doubted.most_common(GROUPS)]
        lines.append("Suspicious prices: " + ", ".join(named) + literal(". Check at the venue first.", markup))
    return "\n".join(lines)


def _short(entry: Entry, markup: Markup) -> str:
    text = literal(headline(entry), markup)
    if entry.about != "level" or entry.unknown is not None or entry.change is Change.BETTER:
        return text
    ratio = decimal_of(entry.facts.get("margin_ratio"))
    text += literal(f", {percent(ratio, up=True)}" if ratio is not None else ", equity used up", markup)
    cure = entry.facts.get("cure")
    if isinstance(cure, Mapping) and decimal_of(cure.get("deposit")):
        text += literal(f", deposit {money(cure['deposit'], up=True)} {clean(entry.facts.get('currency', ''))}", markup)
    return text


def _summary(entries: Sequence[Entry]) -> str:
    """`37 alerts on 30 accounts: 3 liquidation, 30 margin call, 2 unknown; 2 better`."""
    counts: Counter[str] = Counter()
    for entry in entries:
        if entry.change is not Change.BETTER:
            counts[_word(entry.severity.word) if entry.about == "level" else entry.about.replace("_", " ")] += 1
    better = sum(entry.change is Change.BETTER for entry in entries)
    accounts = len({entry.account for entry in entries if entry.account})
    parts = [", ".join(f"{count:,} {word}" for word, count in counts.items())] if counts else []
    if better:
        parts.append(f"{better:,} better")
    what = "alerts" if counts else "changes"
    return f"{len(entries):,} {what} on {accounts:,} account{'s' if accounts != 1 else ''}: " + "; ".join(parts)


def _urgency(entry: Entry) -> tuple[int, int, Decimal, str, str, str]:
    ratio = decimal_of(entry.facts.get("margin_ratio"))
    rank = -int(entry.severity) if entry.change is not Change.BETTER else 1
    return (rank, entry.about != "level", -(ratio if ratio is not None else Decimal(10**9)), entry.account, entry.pool, entry.about)


def _item(entry: Entry) -> dict[str, Any]:
    return {
        "change": entry.change.value,
        "about": entry.about,
        "account": entry.account,
        "pool": entry.pool,
        "group": entry.group,
        "venue": entry.venue,
        "severity": entry.severity.word,
        "was": entry.was.word,
        "present": None if entry.unknown is not None else entry.present.word,
        "unknown": entry.unknown,
        "at_ms": entry.at_ms,
        "event": entry.facts.get("id"),
        "margin_ratio": entry.facts.get("margin_ratio") if entry.unknown is None else None,
        "text": _dead(headline(entry)),
    }


def _word(level: object) -> str:
    return clean(level).replace("_", " ") if level is not None else "unknown"


def _dead(text: str) -> str:
    return LIVE_SIGNS.sub("\\1\u200b", text)
