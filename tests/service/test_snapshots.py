"""Snapshots of every account's health: what is urgent does not wait for its turn, and a burst is written piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from monitor.service import snapshots
from monitor.service.snapshots import SLICE, Snapshots
from tests.support.waiting import until


class Book(dict[str, None]):
    """Accounts without pools."""

    def venue_and_group(self, _account: str) -> tuple[str, str]:
        """All of one."""
        return "okx", ""


class Writer:
    """Notes what is written, and how much at once."""

    def __init__(self) -> None:
        self.writes: list[list[str]] = []

    async def write(self, pairs: Iterable[tuple[str, bytes]]) -> int:
        """One write."""
        self.writes.append([account for account, _ in pairs])
        return len(self.writes[-1])


async def test_changed_accounts_do_not_wait_for_the_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an hour for a round, a hundred accounts whose level changed are written at once, never more than a slice together."""
    monkeypatch.setattr(snapshots, "snapshot", lambda _evaluator, account, _at_ns: account.encode())
    book = Book.fromkeys([f"a{number}" for number in range(1_000)])
    changed = {f"a{number}" for number in range(500, 600)}
    engine = SimpleNamespace(views=lambda _account: [])
    evaluator = SimpleNamespace(book=book, engine=engine, observer=SimpleNamespace(changed={*changed, "gone"}))
    writer = Writer()
    running = asyncio.create_task(Snapshots(cast(Any, evaluator), cast(Any, writer), interval_s=3600.0).run())
    try:
        await until(lambda: {account for write in writer.writes for account in write} >= changed, within_s=10)
    finally:
        running.cancel()

    assert max(map(len, writer.writes)) <= SLICE
    assert not evaluator.observer.changed
    assert "gone" not in {account for write in writer.writes for account in write}
