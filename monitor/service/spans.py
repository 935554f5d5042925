"""When something that a person asks for ends: by how long it is to last, or until when."""

from __future__ import annotations

import re
from datetime import datetime

from monitor.errors import ConfigError

__all__ = ["end_ms"]

SPAN = re.compile(r"([1-9][0-9]{0,5})(s|m|h|d)")
UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def end_ms(now_ms: int, lasts: str | None, until: str | None) -> int:
    """When a silence ends, that is asked for by how long, or until when. Raises ConfigError."""
    if (lasts is None) == (until is None):
        raise ConfigError(source="silence add", key="--for", value="(none or both)", expected="--for 2h, or --until 2026-01-31T18:00:00Z")
    if lasts is not None:
        match = SPAN.fullmatch(lasts)
        if match is None:
            raise ConfigError(source="--for", key="for", value=lasts, expected="a time such as 90s, 30m, 2h or 3d")
        return now_ms + int(match[1]) * UNITS_MS[match[2]]
    assert until is not None
    moment: datetime | None
    try:
        moment = datetime.fromisoformat(until)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ConfigError(source="--until", key="until", value=until, expected="a time with its zone, such as 2026-01-31T18:00:00Z")
    return int(moment.timestamp() * 1000)
