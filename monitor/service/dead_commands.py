"""The commands `dead list|show|retry|drop`: what could not be used, and what becomes of it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from monitor.errors import RefusedError
from monitor.ledger.connection import Wire
from monitor.ledger.dead_letters import DeadLetter, drop, letters, try_again
from monitor.ledger.keys import partitions
from monitor.service.accounts_commands import with_wire
from monitor.service.settings import Settings

__all__ = ["drop_command", "list_command", "retry_command", "show_command"]

NAME = re.compile(r"([0-9]{1,3})/([0-9]+-[0-9]+)")
SHOWN = 60


def list_command(settings: Settings, *, source: str | None, wait_s: float, as_json: bool) -> int:
    """Prints the dead letters, oldest first."""

    async def work(wire: Wire) -> list[DeadLetter]:
        return [letter for number in partitions(settings.ledger.partitions) for letter in await letters(wire, number)]

    found = [letter for letter in with_wire(settings, wait_s, work) if source in {None, letter.source, letter.sink}]
    found.sort(key=lambda letter: letter.milliseconds)
    if as_json:
        print(orjson.dumps([_plain(letter) for letter in found], option=orjson.OPT_INDENT_2).decode())
        return 0
    for letter in found:
        start = letter.raw[:SHOWN].decode(errors="backslashreplace")
        print(f"{letter.name:<20} {_time(letter)}  {letter.source:<18} {letter.cause}")
        if start:
            print(f"{'':<20} {start}{'...' if len(letter.raw) > SHOWN else ''}")
    print(f"{len(found):,} dead letters", file=sys.stderr)
    return 0


def show_command(settings: Settings, name: str, *, wait_s: float) -> int:
    """Prints one letter whole, as JSON. Raises RefusedError for one that is not there."""

    async def work(wire: Wire) -> DeadLetter:
        (found,) = await _named(wire, settings, [name])
        return found

    print(orjson.dumps(_plain(with_wire(settings, wait_s, work)), option=orjson.OPT_INDENT_2).decode())
    return 0


def retry_command(settings: Settings, names: Sequence[str], *, wait_s: float) -> int:
    """Puts letters back where they are used: updates on the update stream, events to their sink with the same id. Raises RefusedError."""

    async def work(wire: Wire) -> None:
        for letter in await _named(wire, settings, names):
            await try_again(wire, letter)
            where = "the update stream" if letter.sink is None else f"sink {letter.sink}, within a second or two of its being reachable"
            print(f"{letter.name}: back to {where}")

    with_wire(settings, wait_s, work)
    print("what is refused again comes back as a new letter", file=sys.stderr)
    return 0


def drop_command(settings: Settings, names: Sequence[str], *, wait_s: float, is_sure: Callable[[int], bool]) -> int:
    """Forgets letters. Raises RefusedError for one that is not there: then none goes. `is_sure` is asked before, with their number."""

    async def find(wire: Wire) -> list[DeadLetter]:
        return await _named(wire, settings, names)

    async def work(wire: Wire) -> int:
        return sum([await drop(wire, letter) for letter in found])

    found = with_wire(settings, wait_s, find)
    if not is_sure(len(found)):
        print("margin-monitor: nothing was dropped", file=sys.stderr)
        return 1
    print(f"{with_wire(settings, wait_s, work):,} dead letters dropped")
    return 0


async def _named(wire: Wire, settings: Settings, names: Sequence[str]) -> list[DeadLetter]:
    """Letters by name, each once. Raises RefusedError for a name that is none, or of no letter."""
    found = []
    known = partitions(settings.ledger.partitions)
    for name in dict.fromkeys(names):
        match = NAME.fullmatch(name)
        if match is None or int(match[1]) not in known:
            raise RefusedError("ID", name, "the name of a dead letter, such as 0/1732170000000-0 (margin-monitor dead list)")
        letter = await letters(wire, int(match[1]), first=match[2], last=match[2])
        if not letter:
            raise RefusedError("ID", name, "a dead letter that is there (margin-monitor dead list)")
        found += letter
    return found


def _time(letter: DeadLetter) -> str:
    return datetime.fromtimestamp(letter.milliseconds / 1e3, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _plain(letter: DeadLetter) -> dict[str, Any]:
    return {
        "name": letter.name,
        "at": _time(letter),
        "source": letter.source,
        "cause": letter.cause,
        "id": letter.id,
        "raw": letter.raw.decode(errors="backslashreplace"),
    }
