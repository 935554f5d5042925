"""The commands `silence add|list|remove` and `ack`: what people tell the alert policy while it runs."""

from __future__ import annotations

import getpass
import secrets
import sys
import time
from datetime import UTC, datetime

import orjson

from monitor.alerting.policy import Silence
from monitor.alerting.requests import acknowledgement
from monitor.errors import ConfigError, RefusedError
from monitor.ledger.connection import Wire
from monitor.ledger.requests import ask, stored_silences
from monitor.margin.levels import Level
from monitor.service.accounts_commands import with_wire
from monitor.service.settings import Settings
from monitor.service.spans import end_ms

__all__ = ["acknowledge_command", "add_silence_command", "list_silences_command", "remove_silence_command"]


def add_silence_command(
    settings: Settings,
    *,
    matching: dict[str, str],
    up_to: str,
    lasts: str | None,
    until: str | None,
    reason: str,
    by: str | None,
    wait_s: float,
) -> int:
    """Asks for a silence and prints its id. Raises ConfigError for an end or a level that is none."""
    now_ms = time.time_ns() // 1_000_000
    try:
        level = Level.of(up_to)
    except (KeyError, ValueError):
        words = ", ".join(each.word for each in Level)
        raise ConfigError(source="--up-to", key="up-to", value=up_to, expected=words) from None
    until_ms = end_ms(now_ms, lasts, until)
    try:
        silence = Silence(
            id=secrets.token_hex(4),
            reason=reason,
            author=by or getpass.getuser(),
            from_ms=now_ms,
            until_ms=until_ms,
            up_to=level,
            **matching,
        )
    except ValueError as error:
        raise ConfigError(source="silence add", key="--for", value=lasts or until or "", expected=str(error)) from None

    async def work(wire: Wire) -> None:
        await ask(wire, settings.ledger.partitions, "silence", silence.to_json())

    with_wire(settings, wait_s, work)
    print(silence.id)
    print(
        f"silent up to {level.word} until {_time(until_ms)}; what is worse is said all the same; events are never held back",
        file=sys.stderr,
    )
    return 0


def list_silences_command(settings: Settings, *, wait_s: float, as_json: bool) -> int:
    """Prints the silences in force as the running policy has stored them."""
    now_ms = time.time_ns() // 1_000_000
    found = {
        each.id: each
        for each in with_wire(settings, wait_s, lambda wire: stored_silences(wire, settings.ledger.partitions))
        if each.until_ms > now_ms
    }
    rows = sorted(found.values(), key=lambda each: each.until_ms)
    if as_json:
        print(orjson.dumps([orjson.loads(each.to_json()) for each in rows], option=orjson.OPT_INDENT_2).decode())
        return 0
    for each in rows:
        wanted = {name: getattr(each, name) for name in ("account", "pool", "group", "venue", "about")}
        what = " ".join(f"{name}={value}" for name, value in wanted.items() if value != "*") or "everything"
        print(f"{each.id}  until {_time(each.until_ms)}  up to {each.up_to.word:<12} {what}  {each.author}: {each.reason}")
    print(f"{len(rows):,} silences in force", file=sys.stderr)
    return 0


def remove_silence_command(settings: Settings, silence_id: str, *, wait_s: float) -> int:
    """Asks for the end of a silence. Raises RefusedError when there is none of this id."""

    async def work(wire: Wire) -> None:
        if silence_id not in {each.id for each in await stored_silences(wire, settings.ledger.partitions)}:
            raise RefusedError("ID", silence_id, "a silence in force (margin-monitor silence list)")
        await ask(wire, settings.ledger.partitions, "unsilence", silence_id.encode())

    with_wire(settings, wait_s, work)
    print("what it held back and still stands is said now")
    return 0


def acknowledge_command(settings: Settings, account: str, *, pool: str, about: str, wait_s: float) -> int:
    """Says that somebody has seen what stands of an account: no repeats and no escalation until it gets worse."""

    async def work(wire: Wire) -> None:
        await ask(wire, settings.ledger.partitions, "acknowledge", acknowledgement(account, pool, about))

    with_wire(settings, wait_s, work)
    print(f"{account}: acknowledged; no repeats until it gets worse, is over, or the policy's acknowledged_for runs out")
    return 0


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1e3, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
