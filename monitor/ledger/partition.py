"""One partition of the ledger: who may write it, and every write to it.

One compare-and-swap carries everything. Each transaction WATCHes `{p}:head` and rewrites it, so

- *acquire* makes every request that anybody sent earlier void: it watches a head that has changed;
- *commit* applies its rows, levels, documents and cursors, or nothing;
- an unknown outcome is settled by an acquire of our own, after which the head's `batch` says whether the commit is in it. A plain read
  would decide too early: the bytes may still be on their way.

Start, take-over and an unknown outcome are the same path. There is no lock, no expiry and no server clock.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from monitor.errors import Fenced, LedgerBroken, LedgerError, LedgerUnavailable
from monitor.ledger.changes import Change, Hold
from monitor.ledger.connection import Command, ConnectionLost, Link, Refusal, ReplyError, Wire, fault_of, raise_faults
from monitor.ledger.crashpoints import armed, crash_at
from monitor.ledger.head import FIELDS, Head
from monitor.ledger.holder import is_dead
from monitor.ledger.keys import PartitionKeys
from monitor.ledger.loading import Loaded, OnDocument, OnPacked, OnProgress, check_events, load
from monitor.ledger.plan import Committed, Plan, plan_commit
from monitor.ledger.records import read_account
from monitor.ledger.statistics import LedgerStatistics

__all__ = ["Partition", "TailLost"]


class TailLost(LedgerError):
    """The ledger went back behind what it had acknowledged (a restored backup, a power cut without fsync, a lagging replica).

    What this process holds in memory is worth nothing now: drop it and start anew.
    """


class _Race(LedgerUnavailable):
    """Somebody else's write to the head came between our WATCH and our EXEC."""


class Partition:
    """A partition as its holder, or one who wants to be, sees it.

    One task at a time calls `lead`, `commit`, `settle` and `release`; the committer does. `load` may run beside the committer's heartbeats.

    Attributes:
        state: What is known to be committed; None until `lead` has succeeded.
        in_doubt: A commit that was sent, or was going to be, and of which no outcome is known.
        proven_at: Monotonic time at which the last proven commit or acquire was *sent*: at some moment after it, this process held the
            partition.
        fault: The last failure while the ledger cannot be written; None while it can.
    """

    def __init__(
        self,
        link: Link,
        number: int,
        *,
        holder: str,
        ledger: str,
        partitions: int,
        clock: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        doze: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.number = number
        self.holder = holder
        self.keys = PartitionKeys.of(number)
        self.statistics = LedgerStatistics()
        self.state: Committed | None = None
        self.in_doubt: Plan | None = None
        self.proven_at = float("-inf")
        self.fault: LedgerError | None = None
        self._link = link
        self._ledger, self._partitions = ledger, partitions
        self._clock, self._wall_ms, self._doze = clock, wall_ms, doze
        self._committing = asyncio.Lock()
        self._term: Head  # the head as our last acquire wrote it
        self._wire: Wire | None = None  # carries the standing WATCH of our own head, or is None

    @property
    def head(self) -> Head:
        """The committed head. Only after `lead`."""
        assert self.state is not None, "the partition is not held"
        return self.state.head

    # Becoming and ceasing to be the holder

    async def lead(self, lease_s: float) -> Head:
        """Waits until the partition is free, takes it, and returns the head as it was before.

        Free is: nobody's; held by a process of this machine that is gone; or its (token, n) stood still for a whole lease on our own
        monotonic clock. A process that was paused meanwhile reads again before it takes, so it deposes nobody by mistake.

        Waits for ever while Redis is away (`fault` says why); put an `asyncio.timeout` around it to give up. Cancelling is safe.
        Raises LedgerBroken.
        """
        crash_at("takeover.start")
        seen: tuple[int, int] | None = None
        since = float("inf")
        wire: Wire | None = None
        try:
            while True:
                try:
                    if wire is None or wire.closed:
                        wire = await self._link.open()
                    head = await self._look(wire)
                    now = self._clock()
                    if _place(head) != seen:
                        seen, since = _place(head), now
                    if head is None or head.holder in {"", self.holder} or is_dead(head.holder) or now - since >= lease_s:
                        before = await self._acquire(lambda found, seen=seen: _place(found) == seen, self.holder)  # type: ignore[misc]
                        if before is not None:
                            crash_at("takeover.acquired")
                            self.fault = None
                            return before
                    self.fault = None
                except LedgerUnavailable as error:
                    self._note(error)
                    seen = None
                await self._doze(lease_s / 20)
        finally:
            if wire is not None:
                wire.close()

    async def load(
        self,
        on_document: OnDocument,
        on_packed: OnPacked = lambda accounts, _records: accounts,
        on_progress: OnProgress = lambda _done: None,
    ) -> Loaded:
        """Reads all accounts and levels into `state` and checks them against the head. After `lead`, before the first commit with changes.

        `on_packed(accounts, records)` gets the plain accounts and answers which of them it wants as documents;
        `on_document(account, document, hold)` gets those and all others. After a broken connection it is begun again, so the same account
        may come twice. Heartbeats may run beside it. Raises Fenced, LedgerBroken; retries while Redis is away.
        """
        state = self.state
        assert state is not None, "the partition is not held"
        while True:
            wire: Wire | None = None
            try:
                wire = await self._link.open()
                timeout_s = max(self._link.timeout_s, 10.0)
                contents, loaded = await load(
                    wire, state.head, self.number, on_document, on_packed, timeout_s=timeout_s, on_progress=on_progress
                )
                async with self._committing:  # a heartbeat under way would put back what the head said before
                    state.accounts, state.levels = contents.accounts, contents.levels
                    state.head = replace(state.head, accounts=len(contents.accounts), levels=len(contents.levels), digest=contents.digest)
                crash_at("takeover.loaded")
                return loaded
            except LedgerUnavailable as error:
                self._note(error)
                await self._doze(0.1)
            finally:
                if wire is not None:
                    wire.close()

    async def release(self) -> None:
        """Gives the partition up, so that a standby takes it at once.

        Settles what is in doubt first. One attempt; raises LedgerUnavailable, Fenced.
        """
        if self.state is None:
            return
        if self.in_doubt is not None:
            await self.settle()
        if await self._acquire(lambda head: head is not None and head.holder == self.holder, "") is None:
            raise Fenced(f"partition {self.number}: already held by another process")
        self.close()
        self.state = None

    def close(self) -> None:
        """Drops the connection. What was in doubt stays so."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    # Writing

    async def commit(self, changes: Sequence[Change] = ()) -> Plan:
        """Writes the changes in one transaction and returns when that is proven; without changes it is the heartbeat.

        Goes on through every failure of Redis and returns only when the outcome is known. When cancelled, the commit is `in_doubt` and the
        next call must be `settle`.

        Raises:
            Fenced: Another process holds the partition. Nothing of this call was written, or all of it before the other took over.
            LedgerBroken: The ledger is not what the protocol allows; a person has to look.
            TailLost: It went back behind what it had acknowledged.
        """
        async with self._committing:
            return await self._commit(changes)

    async def _commit(self, changes: Sequence[Change]) -> Plan:
        assert self.in_doubt is None, "settle what is in doubt first"
        crash_at("commit.start")
        while True:
            assert self.state is not None, "the partition is not held"
            plan: Plan | None = None
            try:
                plan = plan_commit(self.state, changes, await self._stored(changes))
            except LedgerUnavailable as error:
                self._note(error)
                self.close()
                plan = plan_commit(self.state, (), {})  # nothing was sent; an acquire finds out whether we may go on
            else:
                if await self._attempt(plan):
                    return plan
            self.in_doubt = plan
            if await self.settle():
                return plan

    async def settle(self) -> Plan | None:
        """Finds out what became of the commit in doubt: the plan if it was applied, else None. Waits through all failures of Redis.

        Raises Fenced, LedgerBroken, TailLost.
        """
        plan, state = self.in_doubt, self.state
        assert state is not None, "the partition is not held"
        crash_at("settle.start")
        began = self._clock()
        pause = 0.02
        while True:
            try:
                before = await self._acquire(lambda head: head is None or head.holder == self.holder, self.holder)
                if before is not None and self._wire is not None:
                    await check_events(self._wire, before, self.number, timeout_s=self._link.timeout_s)
                break
            except LedgerUnavailable as error:
                self._note(error)
                if isinstance(error, Refusal) and error.code == "OOM":
                    await self._relieve()
                await self._doze(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, 1.0)
        crash_at("settle.acquired")
        self.statistics.settle_seconds.observe(self._clock() - began)
        if before is None:
            self.statistics.fenced += 1
            raise Fenced(f"partition {self.number}: taken over by another process")
        self.in_doubt = None
        term = self._term
        if plan is None and before.batch == state.head.batch:
            state.head = term
            return None
        crash_at("settle.known")
        if plan is not None and before.batch == plan.head.batch and before.hash == plan.head.hash:
            state.take(plan)
            state.head = term
            self._count(plan)
            self.statistics.settled_applied += 1
            return plan
        if plan is not None and before.batch == plan.head.batch - 1 and before.hash == state.head.hash:
            state.head = term
            self.statistics.settled_again += 1
            return None
        self.close()
        raise TailLost(
            f"partition {self.number}: batch {state.head.batch} was committed, but the ledger stands at {before.batch}: "
            "it lost its tail or was restored"
        )

    async def trim(self, wire: Wire, *, keep_updates_from: str | None = None) -> int:
        """Removes events up to the committed anchor, and updates before the cursor (or an earlier id). Returns how many entries went.

        Needs no fence, since anybody may repeat it, and works also when memory is full. Raises LedgerUnavailable.
        """
        head = self.head
        replies = await wire.exchange(
            [
                ("XTRIM", self.keys.events, "MINID", "=", f"{head.trim + 1}-0"),
                ("XTRIM", self.keys.updates, "MINID", "=", keep_updates_from or head.updates),
            ],
            timeout_s=self._link.timeout_s,
        )
        raise_faults(replies)
        return int(replies[0]) + int(replies[1])

    # Inside

    async def _look(self, wire: Wire) -> Head | None:
        """The head, by a plain read: enough to wait by, never to decide a write."""
        try:
            values = await wire.call("HMGET", self.keys.head, *FIELDS, timeout_s=self._link.timeout_s)
        except LedgerUnavailable as error:
            self._link.follow(error)
            wire.close()
            raise
        return Head.read(values, self.number)

    async def _acquire(self, may: Callable[[Head | None], bool], holder: str) -> Head | None:
        """Takes a new term on a new connection, if `may` agrees to the head that is watched; leaves the standing watch on it.

        Returns the head as it was before (a first one where there was none), or None when `may` did not agree.
        Raises _Race, LedgerUnavailable (then the outcome is not known, which does no harm: acquire again), LedgerBroken.
        """
        self.close()
        crash_at("acquire.start")
        timeout_s = self._link.timeout_s
        wire = await self._link.open()
        try:
            replies = await wire.exchange([("WATCH", self.keys.head), ("HMGET", self.keys.head, *FIELDS)], timeout_s=timeout_s)
            raise_faults(replies)
            found = Head.read(replies[1], self.number)
            if not may(found):
                wire.close()
                return None
            crash_at("acquire.watched")
            before = found or Head.first(self._ledger, self._partitions, self.number)
            if (before.ledger, before.partitions) != (self._ledger, self._partitions):
                raise LedgerBroken(
                    f"partition {self.number}: belongs to ledger {before.ledger} of {before.partitions} partitions, "
                    f"expected {self._ledger} of {self._partitions}"
                )
            if found is None and self.state is not None:
                raise TailLost(f"partition {self.number}: the ledger is empty, but was at batch {self.state.head.batch}")
            term = replace(before, token=max(before.token + 1, self._wall_ms()), holder=holder, n=before.n + 1)
            sent_at = self._clock()
            await self._transact(wire, [], term, "acquire")
        except BaseException as error:
            self._link.follow(error)
            wire.close()
            raise
        self._wire, self._term, self.proven_at = wire, term, sent_at
        if self.state is None:
            self.state = Committed(self.number, term)
        return before

    async def _attempt(self, plan: Plan) -> bool:
        """Sends a commit on the standing watch. True: it is proven. False: nothing is known."""
        wire, state = self._wire, self.state
        assert state is not None
        if wire is None or wire.closed:
            return False
        self.in_doubt = plan
        sent_at = self._clock()
        try:
            standing = await self._transact(wire, plan.writes, plan.head, "commit")
        except LedgerUnavailable as error:
            self._note(error)
            self._link.follow(error)
            self.close()
            return False
        except BaseException:
            self.close()
            raise
        self.in_doubt = None
        state.take(plan)
        self._count(plan)
        self.proven_at = sent_at
        self.fault = None
        self.statistics.commit_seconds.observe(self._clock() - sent_at)
        if not standing:
            self.close()
        return True

    async def _transact(self, wire: Wire, writes: list[Command], head: Head, name: str) -> bool:
        """One write: MULTI, the writes, the head, EXEC, and the WATCH for the next one.

        Returns True when the head under the new WATCH is still ours. Raises _Race when the EXEC found another head, Refusal when Redis
        refused the whole, ConnectionLost when nothing is known, LedgerBroken when a single command failed inside: Redis does not roll back,
        what the others wrote stays.
        """
        commands: list[Command] = [
            ("MULTI",),
            *writes,
            ("HSET", self.keys.head, *head.fields(self.number)),
            ("EXEC",),
            ("WATCH", self.keys.head),
            ("HMGET", self.keys.head, "token", "n"),
        ]
        end = len(writes) + 2
        for point, sent in ((f"{name}.half_sent", commands[:end]), (f"{name}.sent", commands)):
            if armed(point):
                wire.send(sent)
                await asyncio.sleep(0.0)
            crash_at(point)
        replies = await wire.exchange(commands, timeout_s=self._link.timeout_s)
        crash_at(f"{name}.answered")
        executed = replies[end]
        if executed is None:
            raise _Race(f"partition {self.number}: the head changed")
        if isinstance(executed, ReplyError):
            raise_faults(replies[:end])
            raise fault_of(executed)
        for reply in executed:
            if isinstance(reply, ReplyError):
                raise LedgerBroken(f"partition {self.number}: a part of a transaction failed and the rest was written: {reply}")
        standing: list[Any] = replies[end + 2]
        return bool(standing == [b"%d" % head.token, b"%d" % head.n])

    async def _stored(self, changes: Sequence[Change]) -> dict[str, bytes | None]:
        """The documents of accounts that are put on hold, whose records are rewritten whole. Reads on the standing watch's connection."""
        wanted = sorted({change.account for change in changes if isinstance(change, Hold)})
        if not wanted:
            return {}
        if self._wire is None or self._wire.closed:
            raise ConnectionLost(f"partition {self.number}: no connection")
        values = await self._wire.call("HMGET", self.keys.accounts, *wanted, timeout_s=self._link.timeout_s)
        found = {account: None if value is None else read_account(account, value) for account, value in zip(wanted, values, strict=True)}
        return {account: None if record is None else record[1] for account, record in found.items()}

    async def _relieve(self) -> None:
        """Memory is full: what may go, goes now, since nothing else is accepted."""
        try:
            wire = await self._link.open()
        except LedgerUnavailable:
            return
        try:
            await self.trim(wire)
        except LedgerError as error:
            self._note(error)
        finally:
            wire.close()

    def _count(self, plan: Plan) -> None:
        statistics = self.statistics
        statistics.commits += 1
        statistics.rows += plan.rows
        statistics.blind_rows += plan.blind_rows
        statistics.documents += plan.documents
        statistics.dead_letters += plan.dead_letters
        statistics.unchanged += plan.unchanged
        statistics.stale += plan.stale

    def _note(self, error: LedgerError) -> None:
        self.fault = error
        if isinstance(error, _Race):
            self.statistics.races += 1
        else:
            self.statistics.failed(error.code if isinstance(error, Refusal) else "connection")


def _place(head: Head | None) -> tuple[int, int] | None:
    return None if head is None else (head.token, head.n)
