"""What the rules say of a pool, as it travels from the process that evaluates to the one that alerts.

Only what stands travels: a rule that is not named has nothing to warn of, and a pool that is not told between a `Mark.BEGIN` and its
`Mark.END` neither, or is gone. Beside it travels what the rules remember of the pool, for the process that reads them next.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

import orjson

from monitor.alerting.rules import PoolMemory, PoolSnapshot, RuleReading
from monitor.margin.levels import Level
from monitor.margin.numbers import decimal_of, plain

__all__ = ["Item", "Mark", "PoolReadings", "caught_up", "decode_readings", "encode_readings", "readings_of"]


class Mark(StrEnum):
    """Between the two every pool of a partition that has something to tell is told."""

    BEGIN = "begin"
    END = "end"


class PoolReadings(NamedTuple):
    """One pool at one moment.

    Attributes:
        unknown: Why the pool cannot be judged; the readings are then the last ones.
        standing: Readings with a severity, and those that cannot be worked out though the pool is known.
        day, high, unknown_since: As in `PoolMemory`.
    """

    account: str
    pool: str
    group: str
    venue: str
    at_ms: int
    unknown: str | None
    standing: tuple[RuleReading, ...]
    day: int = -1
    high: Decimal | None = None
    unknown_since: int | None = None

    def all(self, rules: Iterable[str]) -> list[RuleReading]:
        """The readings of all these rules, also of those that have nothing to warn of."""
        found = {reading.rule: reading for reading in self.standing}
        return [found.get(name) or RuleReading(name, Level.HEALTHY, None, "", self.unknown) for name in rules]

    def memory(self) -> PoolMemory:
        """What the rules may go on from."""
        severities = {reading.rule: int(reading.severity) for reading in self.standing if reading.severity}
        return PoolMemory(day=self.day, high=self.high, unknown_since=self.unknown_since, severities=severities)

    def says(self) -> tuple[object, ...]:
        """What a receiver must hear of at once when it changes; numbers and texts may wait for the next time."""
        return (self.unknown, *((reading.rule, reading.severity, reading.unknown) for reading in self.standing))


Item = PoolReadings | Mark


def readings_of(snapshot: PoolSnapshot, readings: Sequence[RuleReading], memory: PoolMemory) -> PoolReadings:
    """What is told of one pool."""
    return PoolReadings(
        account=snapshot.account,
        pool=snapshot.pool,
        group=snapshot.group,
        venue=snapshot.venue,
        at_ms=snapshot.at_ms,
        unknown=snapshot.unknown,
        standing=tuple(each for each in readings if each.severity or (each.unknown is not None and snapshot.unknown is None)),
        day=memory.day,
        high=memory.high,
        unknown_since=memory.unknown_since,
    )


def encode_readings(items: Sequence[Item]) -> bytes:
    """Items as JSON."""
    return orjson.dumps([str(item) if isinstance(item, Mark) else _parts(item) for item in items])


def decode_readings(data: bytes) -> list[Item]:
    """Reads what `encode_readings` wrote. Raises ValueError."""
    try:
        return [Mark(each) if isinstance(each, str) else _item(each) for each in orjson.loads(data)]
    except (TypeError, KeyError, IndexError, AttributeError) as error:
        raise ValueError(f"no readings: {error}") from None


def caught_up(items: Sequence[Item]) -> list[Item]:
    """What is left to do of items that were not taken when they came: of each pool the newest, and the marks of the last round only.

    Taken one by one, a reader that begins at an old place would hear of every rise and fall anew.
    """
    start = max((place for place, item in enumerate(items) if item is Mark.BEGIN), default=0)
    after = {(item.account, item.pool): item for item in items[start:] if isinstance(item, PoolReadings)}
    before = {(item.account, item.pool): item for item in items[:start] if isinstance(item, PoolReadings)}
    begins = [item for item in items[start:] if item is Mark.BEGIN]
    ends = [item for item in items[start:] if item is Mark.END]
    return [*(item for key, item in before.items() if key not in after), *begins, *after.values(), *ends]


def _parts(item: PoolReadings) -> list[object]:
    standing = [(each.rule, int(each.severity), each.text, each.unknown) for each in item.standing]
    return [*item[:6], standing, item.day, None if item.high is None else plain(item.high), item.unknown_since]


def _item(parts: Sequence[object]) -> PoolReadings:
    account, pool, group, venue, at_ms, unknown, standing, day, high, unknown_since = parts
    if not (isinstance(at_ms, int) and isinstance(day, int) and isinstance(standing, list)):
        raise ValueError("no readings")  # noqa: TRY004 - one kind of error for what cannot be read
    readings = tuple(RuleReading(str(rule), Level(severity), None, str(text), reason) for rule, severity, text, reason in standing)
    return PoolReadings(
        str(account),
        str(pool),
        str(group),
        str(venue),
        at_ms,
        None if unknown is None else str(unknown),
        readings,
        day,
        decimal_of(high),
        unknown_since if isinstance(unknown_since, int) else None,
    )
