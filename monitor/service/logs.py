"""Logs to standard error: events with key-value pairs, one line each, as text for people or JSON for machines."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

__all__ = ["configure_logs", "log"]


def configure_logs(*, form: str, level: str) -> None:
    """Sets the form (`text` or `json`) and the least level written. Values are escaped: one event is one line."""
    chain: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    if form == "json":
        chain += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        chain += [structlog.processors.format_exc_info, _text_line]
    structlog.configure(
        processors=chain,
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=_to_standard_error,
        cache_logger_on_first_use=False,
    )


def _to_standard_error(*_arguments: object) -> structlog.PrintLogger:
    """Writes to what standard error is now, not to what it was when logs were configured: a test's or a caller's may be closed since."""
    return structlog.PrintLogger(sys.stderr)


def _text_line(_logger: object, _method: str, event: Any) -> str:
    """`2026-11-20T21:16:04Z warning feed_reconnecting venue=okx delay_s=2.1`; values with blanks are quoted, line ends escaped."""
    parts = [str(event.pop("timestamp", ""))[:23] + "Z", f"{event.pop('level', ''):7}", str(event.pop("event", ""))]
    exception = event.pop("exception", None)
    for key, value in event.items():
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
        parts.append(f"{key}={text!r}" if not text or any(c.isspace() or not c.isprintable() for c in text) else f"{key}={text}")
    return " ".join(parts) + (f"\n{exception}" if exception else "")


log: structlog.typing.FilteringBoundLogger = structlog.get_logger()
"""The logger of the service. Bind what every line of a component shares: `log.bind(stage="feeds")`."""
