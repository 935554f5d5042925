"""Warnings beside the margin levels: pure measures over snapshots of a pool, each with limits by severity.

A rule turns a snapshot into one number, and the number into a severity by its limits, with 5% of hysteresis: a severity is left only when
the number is 5% inside its limit. A number that cannot be worked out is no number: the reading is `unknown`, never healthy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal, localcontext
from typing import Any, NamedTuple

from monitor.alerting.messages import clean, money, percent, price
from monitor.margin.levels import Level
from monitor.margin.numbers import EXACT, ZERO, decimal_of

__all__ = [
    "RULES",
    "Limits",
    "PoolMemory",
    "PoolSnapshot",
    "PositionSnapshot",
    "Protection",
    "Rule",
    "RuleReading",
    "evaluate_rules",
    "snapshot_of",
]

ONE = Decimal(1)
HYSTERESIS = Decimal("0.05")
DAY_MS = 86_400_000
MOST_SAMPLES = 32
"""Samples kept for the rules that look back: one a 32nd of the longest window."""


@dataclass(frozen=True, slots=True)
class Protection:
    """Resting orders that would close part of a position: absolute quantity, and the mark at which they fire."""

    quantity: Decimal
    trigger_price: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionSnapshot:
    """One position as a rule sees it. Quantities are signed, long > 0; money in the pool's currency.

    Attributes:
        delta: Change of the pool's equity per +100% of the underlying, signed; None where nobody has worked it out (options).
        stops, targets: Stop-loss and take-profit orders; None: nobody has said whether there are any.
    """

    instrument: str
    underlying: str
    quantity: Decimal
    mark_price: Decimal | None
    notional: Decimal | None
    liquidation_price: Decimal | None
    delta: Decimal | None = None
    stops: tuple[Protection, ...] | None = None
    targets: tuple[Protection, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSnapshot:
    """One pool at one moment. `unknown` as in the result document; the numbers are then not to be relied on."""

    account: str
    group: str
    venue: str
    pool: str
    currency: str
    at_ms: int
    unknown: str | None
    equity: Decimal | None
    margin_ratio: Decimal | None
    leverage: Decimal | None
    positions: tuple[PositionSnapshot, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one rule for watch, margin_call, liquidation and bankrupt; None: that severity is never reached."""

    bounds: tuple[Decimal | None, Decimal | None, Decimal | None, Decimal | None]
    window_s: Decimal = Decimal(300)


@dataclass(frozen=True, slots=True)
class PoolMemory:
    """What the rules remember of one pool between snapshots.

    Attributes:
        day: The UTC day that `high` belongs to, counted from 1970.
        high: Highest equity of that day.
        samples: (ms, margin ratio, equity), oldest first.
        unknown_since: When the pool became unknown; None while it is known.
        severities: The last severity of each rule, for hysteresis.
    """

    day: int = -1
    high: Decimal | None = None
    samples: tuple[tuple[int, Decimal | None, Decimal | None], ...] = ()
    unknown_since: int | None = None
    severities: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RuleReading:
    """What one rule says of one pool. `unknown`: why it cannot say; `severity` is then the last one."""

    rule: str
    severity: Level
    value: Decimal | None
    text: str
    unknown: str | None = None


class Rule(NamedTuple):
    """One rule.

    Attributes:
        unit: fraction, number or duration (seconds).
        falls: True when a smaller number is worse.
        measure: (snapshot, memory, window in ms) -> the number and a sentence; the number None means: nothing to warn of.
            Raises Unmeasurable when an input is missing.
        has_window: Whether the limits may name a window.
        while_unknown: Whether it can also speak of a pool whose level is unknown.
    """

    unit: str
    falls: bool
    measure: Callable[[PoolSnapshot, PoolMemory, int], tuple[Decimal | None, str]]
    has_window: bool = False
    while_unknown: bool = False


class Unmeasurable(Exception):
    """An input of the measure is missing; says which. Stays inside this module."""


def liquidation_distance(snapshot: PoolSnapshot, _memory: PoolMemory, _window_ms: int) -> tuple[Decimal | None, str]:
    """Least |liquidation price - mark| / mark over the positions, a fraction; nothing when no position has a liquidation price."""
    nearest: tuple[Decimal, PositionSnapshot] | None = None
    for position in snapshot.positions:
        if position.liquidation_price is None:
            continue
        mark = _given(position.mark_price, f"mark of {position.instrument}")
        distance = abs(position.liquidation_price - mark) / mark
        if nearest is None or distance < nearest[0]:
            nearest = distance, position
    if nearest is None:
        return None, "no position has a liquidation price"
    distance, position = nearest
    return distance, (
        f"{position.instrument} is {percent(distance, up=False)} from its liquidation price {price(position.liquidation_price)} "
        f"(mark {price(position.mark_price)})"
    )


def drawdown(snapshot: PoolSnapshot, memory: PoolMemory, _window_ms: int) -> tuple[Decimal | None, str]:
    """1 - equity / highest equity of the UTC day, a fraction. A withdrawal counts as a fall: the snapshot does not tell them apart."""
    equity = _given(snapshot.equity, "equity")
    if memory.high is None or memory.high <= 0:
        return None, "no equity yet today"
    fall = ONE - equity / memory.high
    high = money(memory.high, up=False)
    return fall, f"equity {money(equity, up=False)} {snapshot.currency} is {percent(fall, up=True)} below today's high of {high}"


def equity_drop(snapshot: PoolSnapshot, memory: PoolMemory, window_ms: int) -> tuple[Decimal | None, str]:
    """1 - equity / highest equity inside the window, a fraction."""
    equity = _given(snapshot.equity, "equity")
    inside = [sample[2] for sample in _inside(memory, snapshot, window_ms) if sample[2] is not None]
    high = max(inside, default=equity)
    if high <= 0:
        return None, "no equity in the window"
    fall = ONE - equity / high
    return fall, f"equity fell {percent(fall, up=True)} within {_duration(window_ms)}, to {money(equity, up=False)} {snapshot.currency}"


def time_to_liquidation(snapshot: PoolSnapshot, memory: PoolMemory, window_ms: int) -> tuple[Decimal | None, str]:
    """(1 - ratio) / (rise of the ratio per second over the window), seconds; nothing while the ratio does not rise. 0 at or above 1."""
    if snapshot.equity is not None and snapshot.equity <= 0:
        return ZERO, "equity is used up"
    ratio = _given(snapshot.margin_ratio, "margin ratio")
    if ratio >= ONE:
        return ZERO, f"margin ratio {percent(ratio, up=True)}"
    before = next(((at, old) for at, old, _ in _inside(memory, snapshot, window_ms) if old is not None), None)
    if before is None or snapshot.at_ms <= before[0] or ratio <= before[1]:
        return None, "the margin ratio is not rising"
    rise = (ratio - before[1]) * 1000 / (snapshot.at_ms - before[0])
    seconds = (ONE - ratio) / rise
    shown = _duration(int(min(seconds, Decimal(10**9)) * 1000))
    return seconds, f"margin ratio {percent(ratio, up=True)}, liquidation in {shown} at the pace of the last {_duration(window_ms)}"


def leverage(snapshot: PoolSnapshot, _memory: PoolMemory, _window_ms: int) -> tuple[Decimal | None, str]:
    """Notional / equity."""
    if not snapshot.positions:
        return None, "no positions"
    value = _given(snapshot.leverage, "leverage")
    return value, f"leverage {money(value, up=True)}"


def concentration(snapshot: PoolSnapshot, _memory: PoolMemory, _window_ms: int) -> tuple[Decimal | None, str]:
    """Gross notional of the largest underlying / gross notional of the pool, a fraction; 1 for a pool in a single underlying."""
    by_underlying: dict[str, Decimal] = {}
    for position in snapshot.positions:
        notional = _given(position.notional, f"notional of {position.instrument}")
        by_underlying[position.underlying] = by_underlying.get(position.underlying, ZERO) + abs(notional)
    total = sum(by_underlying.values(), ZERO)
    if not total:
        return None, "no positions"
    name = max(by_underlying, key=lambda each: by_underlying[each])
    share = by_underlying[name] / total
    return share, f"{name} makes up {percent(share, up=True)} of the gross notional {money(total, up=True)}"


def net_delta(snapshot: PoolSnapshot, _memory: PoolMemory, _window_ms: int) -> tuple[Decimal | None, str]:
    """Largest |sum of deltas of one underlying| / equity, a fraction: how much equity moves with the underlying."""
    if not snapshot.positions:
        return None, "no positions"
    equity = _given(snapshot.equity, "equity")
    if equity <= 0:
        raise Unmeasurable("equity is used up")
    net: dict[str, Decimal] = {}
    for position in snapshot.positions:
        net[position.underlying] = net.get(position.underlying, ZERO) + _given(position.delta, f"delta of {position.instrument}")
    name = max(net, key=lambda each: abs(net[each]))
    share = abs(net[name]) / equity
    return share, f"net delta of {name} is {money(net[name], up=net[name] > 0)} {snapshot.currency}, {percent(share, up=True)} of equity"


def without_stop(snapshot: PoolSnapshot, _memory: PoolMemory, _window_ms: int) -> tuple[Decimal | None, str]:
    """Largest share of a position that no stop closes before its liquidation price, a fraction.

    A stop counts when it fires between the mark and the liquidation price; one beyond that price would come too late.
    """
    return _uncovered(snapshot, "stops")


def without_target(snapshot: PoolSnapshot, _memory: PoolMemory, _window_ms: int) -> tuple[Decimal | None, str]:
    """Largest share of a position that no take-profit order closes on its winning side, a fraction."""
    return _uncovered(snapshot, "targets")


def unknown_time(snapshot: PoolSnapshot, memory: PoolMemory, _window_ms: int) -> tuple[Decimal | None, str]:
    """How long the pool has been unknown, seconds."""
    if snapshot.unknown is None or memory.unknown_since is None:
        return None, "known"
    seconds = Decimal(snapshot.at_ms - memory.unknown_since) / 1000
    return seconds, f"unknown for {_duration(snapshot.at_ms - memory.unknown_since)}: {snapshot.unknown}"


RULES: dict[str, Rule] = {
    "distance": Rule("fraction", falls=True, measure=liquidation_distance),
    "drawdown": Rule("fraction", falls=False, measure=drawdown),
    "equity_drop": Rule("fraction", falls=False, measure=equity_drop, has_window=True),
    "time_to_liquidation": Rule("duration", falls=True, measure=time_to_liquidation, has_window=True),
    "leverage": Rule("number", falls=False, measure=leverage),
    "concentration": Rule("fraction", falls=False, measure=concentration),
    "net_delta": Rule("fraction", falls=False, measure=net_delta),
    "without_stop": Rule("fraction", falls=False, measure=without_stop),
    "without_target": Rule("fraction", falls=False, measure=without_target),
    "unknown_time": Rule("duration", falls=False, measure=unknown_time, while_unknown=True),
}
"""Every rule by the name it has in the configuration."""


def evaluate_rules(limits: Mapping[str, Limits], snapshot: PoolSnapshot, memory: PoolMemory) -> tuple[list[RuleReading], PoolMemory]:
    """The readings of all configured rules for one snapshot, and what to remember for the next one.

    Snapshots of a pool must come in the order of their time.
    """
    with localcontext(EXACT):
        memory = _remembered(memory, snapshot, max((each.window_s for each in limits.values()), default=ZERO))
        readings = [_reading(name, each, snapshot, memory) for name, each in limits.items()]
    return readings, replace(memory, severities={reading.rule: int(reading.severity) for reading in readings if reading.severity})


def snapshot_of(
    account: Mapping[str, Any], pool: Mapping[str, Any], at_ms: int, underlying_of: Callable[[str], str | None]
) -> PoolSnapshot:
    """A snapshot from an account and a pool of a result document (the form of `health:<account>`).

    A position's delta is its signed notional; of an option (`option_value` is there) it is left open. Stops and targets are left open too:
    a portfolio document does not carry them.
    """
    positions: list[PositionSnapshot] = []
    for position in pool.get("positions") or ():
        quantity, notional = decimal_of(position.get("quantity")) or ZERO, decimal_of(position.get("notional"))
        is_option = position.get("option_value") is not None
        positions.append(
            PositionSnapshot(
                instrument=position["instrument"],
                underlying=underlying_of(position["instrument"]) or position["instrument"],
                quantity=quantity,
                mark_price=decimal_of(position.get("mark_price")),
                notional=notional,
                liquidation_price=decimal_of(position.get("liquidation_price")),
                delta=None if is_option or notional is None else notional.copy_sign(quantity),
            )
        )
    return PoolSnapshot(
        account=account["id"],
        group=account.get("group") or "",
        venue=account.get("venue") or "",
        pool=pool["pool"],
        currency=pool.get("currency") or "",
        at_ms=at_ms,
        unknown=pool.get("unknown"),
        equity=decimal_of(pool.get("equity")),
        margin_ratio=decimal_of(pool.get("margin_ratio")),
        leverage=decimal_of(pool.get("leverage")),
        positions=tuple(positions),
    )


def _reading(name: str, limits: Limits, snapshot: PoolSnapshot, memory: PoolMemory) -> RuleReading:
    rule, held = RULES[name], Level(memory.severities.get(name, 0))
    if snapshot.unknown is not None and not rule.while_unknown:
        return RuleReading(name, held, None, f"not known: {clean(snapshot.unknown)}", snapshot.unknown)
    try:
        value, text = rule.measure(snapshot, memory, int(limits.window_s * 1000))
    except Unmeasurable as error:
        return RuleReading(name, held, None, f"not known: {clean(str(error))}", str(error))
    return RuleReading(name, _severity(value, limits, held, falls=rule.falls), value, clean(text))


def _severity(value: Decimal | None, limits: Limits, held: Level, *, falls: bool) -> Level:
    """The greatest severity whose limit is reached, or that is held and not yet left by 5%."""
    if value is None:
        return Level.HEALTHY
    for severity in (4, 3, 2, 1):
        bound = limits.bounds[severity - 1]
        if bound is None:
            continue
        slack = bound * HYSTERESIS if severity <= held else ZERO
        if (value <= bound + slack) if falls else (value >= bound - slack):
            return Level(severity)
    return Level.HEALTHY


def _remembered(memory: PoolMemory, snapshot: PoolSnapshot, window_s: Decimal) -> PoolMemory:
    """The memory with this snapshot in it."""
    if snapshot.unknown is not None:
        since = memory.unknown_since if memory.unknown_since is not None else snapshot.at_ms
        return replace(memory, unknown_since=since)
    day, high, equity = snapshot.at_ms // DAY_MS, memory.high, snapshot.equity
    if equity is not None:
        high = equity if high is None or day != memory.day else max(high, equity)
    samples = memory.samples
    window_ms = int(window_s * 1000)
    if window_ms and (not samples or snapshot.at_ms - samples[-1][0] >= window_ms // MOST_SAMPLES):
        kept = [sample for sample in samples if sample[0] >= snapshot.at_ms - window_ms]
        samples = (*kept, (snapshot.at_ms, snapshot.margin_ratio, equity))
    return replace(memory, day=day, high=high, samples=samples, unknown_since=None)


def _inside(memory: PoolMemory, snapshot: PoolSnapshot, window_ms: int) -> Sequence[tuple[int, Decimal | None, Decimal | None]]:
    return [sample for sample in memory.samples if snapshot.at_ms - window_ms <= sample[0] <= snapshot.at_ms]


def _uncovered(snapshot: PoolSnapshot, what: str) -> tuple[Decimal | None, str]:
    worst: tuple[Decimal, str] | None = None
    for position in snapshot.positions:
        orders: tuple[Protection, ...] | None = getattr(position, what)
        if orders is None:
            raise Unmeasurable(f"{'stops' if what == 'stops' else 'take-profit orders'} of {position.instrument}")
        mark, size = _given(position.mark_price, f"mark of {position.instrument}"), abs(position.quantity)
        if not size:
            continue
        covered = sum((order.quantity for order in orders if _fires(order, position, mark, what)), ZERO)
        share = max(ZERO, ONE - covered / size)
        if worst is None or share > worst[0]:
            worst = share, position.instrument
    if worst is None:
        return None, "no positions"
    name = "stop before its liquidation price" if what == "stops" else "take-profit order"
    return worst[0], f"{percent(worst[0], up=True)} of {worst[1]} has no {name}"


def _fires(order: Protection, position: PositionSnapshot, mark: Decimal, what: str) -> bool:
    """Whether an order closes the position on the right side: a stop between mark and liquidation price, a target beyond the mark."""
    is_long, at, liquidation = position.quantity > 0, order.trigger_price, position.liquidation_price
    if what == "targets":
        return at >= mark if is_long else at <= mark
    if is_long:
        return at <= mark and (liquidation is None or liquidation >= mark or at > liquidation)
    return at >= mark and (liquidation is None or liquidation <= mark or at < liquidation)


def _given(value: Decimal | None, name: str) -> Decimal:
    if value is None:
        raise Unmeasurable(name)
    return value


def _duration(milliseconds: int) -> str:
    """`12s`, `4m10s`, `3h20m`, `5d`."""
    seconds = max(0, milliseconds // 1000)
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m" + (f"{seconds % 60}s" if seconds % 60 else "")
    if seconds < 86_400:
        return f"{seconds // 3600}h" + (f"{seconds % 3600 // 60}m" if seconds % 3600 // 60 else "")
    return f"{seconds // 86_400}d"
