"""Walking the chain of a partition: is every row there, unaltered, in order, and does each pool's story join on?

It reads only, beside a running daemon. The numbers in the rows are checked by whoever passes `on_row`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from monitor.errors import LedgerBroken
from monitor.ledger.connection import Link, Wire, raise_faults
from monitor.ledger.cursors import read_rows
from monitor.ledger.head import FIELDS, Head
from monitor.ledger.keys import PartitionKeys, level_name
from monitor.ledger.records import packed_record, read_account, read_level
from monitor.wire.events import NUMBERS, chain_hash
from monitor.wire.rows import Row

__all__ = ["OnRow", "Verification", "verify_partition"]

OnRow = Callable[[Row, dict[str, Any]], str | None]
"""Gets each row and its parsed body; answers None, or one line that says what is wrong with it."""


@dataclass(slots=True)
class Verification:
    """What was found in one partition.

    Attributes:
        first, last: Sequence numbers of the rows walked; last < first when there are none.
        rows, pools, accounts, blind_rows: How many.
        trimmed: Rows before the first that are gone, as the head says they may be.
        faults: One line each, at most `most_faults`; `more_faults` counts the rest.
    """

    partition: int
    ledger: str
    first: int
    last: int
    trimmed: int
    rows: int = 0
    pools: int = 0
    accounts: int = 0
    blind_rows: int = 0
    most_faults: int = 100
    faults: list[str] = field(default_factory=list)
    more_faults: int = 0

    @property
    def is_sound(self) -> bool:
        """True when nothing was found wrong."""
        return not self.faults

    def fault(self, text: str) -> None:
        """Adds one."""
        if len(self.faults) < self.most_faults:
            self.faults.append(text)
        else:
            self.more_faults += 1


async def verify_partition(link: Link, partition: int, *, on_row: OnRow | None = None, most_faults: int = 100) -> Verification:
    """Walks all rows from the trim anchor to the head.

    Raises LedgerUnavailable, and LedgerBroken when there is no sound head to start from.
    """
    return await link.run(lambda wire: _verify(wire, partition, on_row, most_faults, max(link.timeout_s, 10.0)))


async def _verify(wire: Wire, partition: int, on_row: OnRow | None, most_faults: int, timeout_s: float) -> Verification:
    head = await _head(wire, partition, timeout_s)
    report = Verification(partition, head.ledger, head.trim + 1, head.seq, head.trim, most_faults=most_faults)
    pools: dict[str, dict[str, Any]] = {}
    chain, seq, after = head.trim_hash, head.trim, f"{head.trim}-{2**64 - 1}"
    while seq < head.seq:
        rows = await read_rows(wire, partition, after, count=1000, timeout_s=timeout_s)
        if not rows:
            report.fault(f"rows {seq + 1} to {head.seq} are missing at the end")
            break
        if rows[0].seq != seq + 1 and seq == report.first - 1:
            now = await _head(wire, partition, timeout_s)
            if now.trim > head.trim:  # the front was trimmed while we looked: begin behind the new anchor
                report.first, report.trimmed = now.trim + 1, now.trim
                chain, seq, after = now.trim_hash, now.trim, f"{now.trim}-{2**64 - 1}"
                head = now
                report.last = head.seq
                continue
        for row in rows:
            if row.seq > head.seq:
                break
            if row.seq != seq + 1:
                report.fault(f"rows {seq + 1} to {row.seq - 1} are missing before {row.id}")
            elif row.hash != chain_hash(chain, row.id, row.body):
                report.fault(f"{row.id}: its hash does not follow from the row before and its body: one of them was altered")
            chain, seq, after = row.hash, row.seq, row.stream_id
            _check_row(row, report, pools, on_row)
        if rows[-1].seq >= head.seq:
            break
    if seq == head.seq and chain != head.hash:
        report.fault(f"the last row's hash is not the head's: row {seq} was altered")
    report.pools = len(pools)
    await _check_levels(wire, head, partition, pools, report, timeout_s)
    await _check_accounts(wire, partition, report, timeout_s)
    return report


async def _head(wire: Wire, partition: int, timeout_s: float) -> Head:
    head = Head.read(await wire.call("HMGET", PartitionKeys.of(partition).head, *FIELDS, timeout_s=timeout_s), partition)
    if head is None:
        raise LedgerBroken(f"partition {partition}: there is no head: an empty ledger, or another database")
    return head


def _check_row(row: Row, report: Verification, pools: dict[str, dict[str, Any]], on_row: OnRow | None) -> None:
    report.rows += 1
    try:
        body = orjson.loads(row.body)
        if body["id"] != row.id:
            report.fault(f"{row.id}: its body says {body['id']}")
        if body["kind"] == "blind":
            report.blind_rows += 1
        elif body["kind"] == NUMBERS:
            _check_numbers(row, body, report, pools)
        else:
            _check_continuity(row, body, report, pools)
    except (KeyError, TypeError, ValueError) as error:
        report.fault(f"{row.id}: its body cannot be read: {error}")
        return
    complaint = None if on_row is None else on_row(row, body)
    if complaint is not None:
        report.fault(f"{row.id}: {complaint}")


def _check_numbers(row: Row, body: dict[str, Any], report: Verification, pools: dict[str, dict[str, Any]]) -> None:
    """Numbers belong to the last row of their pool; that one may be trimmed."""
    name = level_name(body["account"], body["pool"])
    told = pools.get(name)
    if told is not None and (told["rev"], told["level"]) != (body["rev"], body["level"]):
        report.fault(
            f"{row.id}: {name}: numbers of rev {body['rev']}, {body['level']}, but the row before is {told['rev']}, {told['level']}"
        )


def _check_continuity(row: Row, body: dict[str, Any], report: Verification, pools: dict[str, dict[str, Any]]) -> None:
    name = level_name(body["account"], body["pool"])
    before = pools.get(name)
    if before is not None:
        if body["rev"] != before["rev"] + 1:
            report.fault(f"{row.id}: {name}: rev {body['rev']} follows {before['rev']}")
        if (body["previous"], body["previous_unknown"]) != (before["level"], before["unknown"]):
            report.fault(f"{row.id}: {name}: starts from {body['previous']}, but the row before ended at {before['level']}")
    elif body["rev"] == 1 and (body["previous"], body["previous_unknown"]) != ("healthy", None):
        report.fault(f"{row.id}: {name}: its first row starts from {body['previous']}, expected healthy")
    if (body["level"], body["unknown"]) == (body["previous"], body["previous_unknown"]):
        report.fault(f"{row.id}: {name}: changes nothing")
    pools[name] = {"rev": body["rev"], "level": body["level"], "unknown": body["unknown"], "seq": row.seq}


async def _check_levels(
    wire: Wire, head: Head, partition: int, pools: dict[str, dict[str, Any]], report: Verification, timeout_s: float
) -> None:
    """Does the stored level of each pool say what its last row says? A pool that has moved on since is left out."""
    names = list(pools)
    key = PartitionKeys.of(partition).levels
    for start in range(0, len(names), 1000):
        chunk = names[start : start + 1000]
        values = await wire.call("HMGET", key, *chunk, timeout_s=timeout_s)
        for name, sealed in zip(chunk, values, strict=True):
            record = None if sealed is None else read_level(name, sealed)
            last = pools[name]
            if record is None:
                report.fault(f"{name}: its level record is {'missing' if sealed is None else 'damaged'}")
            elif record.seq <= head.seq and (record.seq, record.rev, record.level.word) != (last["seq"], last["rev"], last["level"]):
                report.fault(
                    f"{name}: its level record says {record.level.word}, rev {record.rev}; its last row {last['level']}, {last['rev']}"
                )


async def _check_accounts(wire: Wire, partition: int, report: Verification, timeout_s: float) -> None:
    """Is every account's document whole, and does its packed record say the same? A start reads only the latter of most."""
    keys = PartitionKeys.of(partition)
    before = await _head(wire, partition, timeout_s)
    stored: set[str] = set()
    names: set[str] = set()
    for key in (keys.accounts, keys.packed):
        cursor: bytes | str = "0"
        while cursor != b"0":
            cursor, pairs = await wire.call("HSCAN", key, cursor, "COUNT", 2000, timeout_s=timeout_s)
            found = {name.decode(errors="backslashreplace") for name in pairs[::2]} - names
            names |= found
            faults = await _account_faults(wire, keys, sorted(found), timeout_s)
            if faults:  # once more: a commit may have come between the two halves of an answer
                faults = await _account_faults(wire, keys, [*faults], timeout_s)
            for name, fault in faults.items():
                report.fault(f"{name}: {fault}")
        if key == keys.accounts:
            stored = {*names}
    report.accounts = len(stored)
    after = await _head(wire, partition, timeout_s)
    if before.accounts == after.accounts != len(stored):
        report.fault(f"{len(stored)} accounts, the head says {after.accounts}")


async def _account_faults(wire: Wire, keys: PartitionKeys, names: list[str], timeout_s: float) -> dict[str, str]:
    if not names:
        return {}
    replies = await wire.exchange([("HMGET", keys.accounts, *names), ("HMGET", keys.packed, *names)], timeout_s=timeout_s)
    raise_faults(replies)
    faults = {}
    for name, sealed, packed in zip(names, *replies, strict=True):
        found = None if sealed is None else read_account(name, sealed)
        if found is None:
            faults[name] = f"its document is {'missing' if sealed is None else 'damaged'}"
        elif packed is not None and packed != packed_record(name, *found):
            faults[name] = "its packed record is damaged, or not the one of its document"
    return faults
