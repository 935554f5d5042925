"""What must stand in the ledger, worked out from the tape by other means, compared row by row with what stands there.

Shares no code with the ledger: redis-py reads, hashlib and json recompute. Of the protocol it knows only what its page says.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

__all__ = ["Checked", "Tick", "chained_rows", "check_ledger", "check_levels", "expected_rows", "unseal"]

Tick = tuple[str, str, int]
"""Account, pool, and the level that the tick gives it."""

_WORDS = ["healthy", "watch", "margin_call", "liquidation", "bankrupt"]


@dataclass
class Checked:
    """What was compared and what was wrong."""

    rows: int = 0
    lost: int = 0
    twice: int = 0
    misordered: int = 0
    wrong: int = 0
    copies_outside: int = 0
    missing_outside: int = 0
    faults: list[str] = field(default_factory=list)

    def fault(self, text: str) -> None:
        self.faults.append(text)


def expected_rows(messages: Iterable[Sequence[Tick]]) -> list[tuple[str, str, str, str, int, int, int]]:
    """(account, pool, previous, level, rev, message number, tick) of each change of level, in the order of the tape."""
    level: dict[tuple[str, str], int] = {}
    rev: dict[tuple[str, str], int] = {}
    rows = []
    for number, ticks in enumerate(messages, 1):
        for index, (account, pool, now) in enumerate(ticks):
            before = level.get((account, pool), 0)
            if now != before:
                level[account, pool] = now
                rev[account, pool] = rev.get((account, pool), 0) + 1
                rows.append((account, pool, _WORDS[before], _WORDS[now], rev[account, pool], number, index))
    return rows


def check_ledger(
    socket: str,
    messages: Sequence[Sequence[Tick]],
    *,
    documents: dict[str, tuple[int, int]] | None = None,
    poisons: int = 0,
    sink: Path | None = None,
    refuse_every: int = 0,
) -> Checked:
    """Compares the ledger on this unix socket with the tape.

    Args:
        documents: By account, the (epoch, sequence) that must be stored. poisons: dead letters of updates that must stand there, each once.
        sink: The file that the rig's sink wrote; refuse_every: its rows that must be in the dead letters instead.
    """
    result = Checked()
    client: Any = redis.Redis(unix_socket_path=socket, retry=Retry(NoBackoff(), 0))
    with client:
        head = unseal("{0}:head", client.hget("{0}:head", "h"), result)
        found: list[tuple[str, str, str, str, int, int, int]] = []
        ids: list[str] = []
        for row_id, data in chained_rows(client, head, result):
            body = json.loads(data)
            ids.append(row_id)
            if body["kind"] == "blind":
                result.fault(f"{row_id}: a blind row")
                continue
            found.append((body["account"], body["pool"], body["previous"], body["level"], body["rev"], body["at"][1], body["at"][2]))
        _compare(found, expected_rows(messages), result)
        check_levels(client, {f"{row[0]}/{row[1]}": (row[3], row[4]) for row in found}, head, result)
        if documents is not None:
            _check_documents(client, documents, head, result)
        letters = [fields for _, fields in client.xrange("{0}:dead")]
        _check_letters(letters, ids, poisons, refuse_every, result)
    if sink is not None:
        _check_sink(sink, ids, refuse_every, result)
    return result


def chained_rows(client: Any, head: dict[str, Any], result: Checked) -> list[tuple[str, bytes]]:
    """Id and body of every row; the numbers must have no holes, no token may come after a later one, and the chain must end in the head."""
    chain = hashlib.sha256(f"margin-monitor ledger {head['ledger']} 0".encode()).hexdigest()[:32]
    rows: list[tuple[str, bytes]] = []
    newest = 0
    for position, (entry, fields) in enumerate(client.xrange("{0}:events"), 1):
        seq, token = entry.decode().split("-")
        row_id = f"0/{seq}-{token}"
        if int(seq) != position:
            result.fault(f"row {position} has the sequence number {seq}")
        if int(token) < newest:
            result.fault(f"{row_id}: written under a token older than {newest}")
        newest = int(token)
        chain = hashlib.sha256(chain.encode() + row_id.encode() + fields[b"e"]).hexdigest()[:32]
        if fields[b"h"].decode() != chain:
            result.fault(f"{row_id}: the chain is broken")
            chain = fields[b"h"].decode()
        rows.append((row_id, fields[b"e"]))
    if (head["seq"], head["hash"]) != (len(rows), chain):
        result.fault(f"the head says {head['seq']} {head['hash']}, the rows {len(rows)} {chain}")
    return rows


def _compare(found: list[Any], expected: list[Any], result: Checked) -> None:
    result.rows = len(expected)
    if found == expected:
        return
    wanted, had = set(expected), set(found)
    result.lost = len(wanted - had)
    result.wrong = len(had - wanted)
    result.twice = len(found) - len(had)
    result.misordered = int(not (result.lost or result.wrong or result.twice))
    result.fault(f"rows: lost {result.lost}, never expected {result.wrong}, twice {result.twice}, misordered {result.misordered}")


def check_levels(client: Any, last: dict[str, tuple[str, int]], head: dict[str, Any], result: Checked) -> None:
    """The level records must say what the last rows say (by account/pool: level and rev), and the head's digest must be theirs."""
    stored = {name.decode(): value for name, value in client.hgetall("{0}:levels").items()}
    if len(stored) != head["levels"]:
        result.fault(f"{len(stored)} level records, the head says {head['levels']}")
    records = {name: unseal(name, value, result) for name, value in stored.items()}
    if {name: (record["level"], record["rev"]) for name, record in records.items()} != last:
        result.wrong += 1
        result.fault("the level records do not say what the last rows say")
    digest = 0
    for name, record in records.items():
        digest ^= _digest(f"l\0{name}\0{record['rev']}")
    for name, value in client.hgetall("{0}:accounts").items():
        record = unseal(name.decode(), value, result)
        digest ^= _digest(f"a\0{name.decode()}\0{record['epoch']}\0{record['seq']}\0{record['hold'] or ''}")
    if f"{digest:032x}" != head["digest"]:
        result.fault("the digest is not that of the records")


def _check_documents(client: Any, documents: dict[str, tuple[int, int]], head: dict[str, Any], result: Checked) -> None:
    stored = {}
    for name, value in client.hgetall("{0}:accounts").items():
        record = unseal(name.decode(), value, result)
        if record["hold"] is None:
            stored[name.decode()] = (record["epoch"], record["seq"])
            if (record["doc"]["epoch"], record["doc"]["sequence"]) != (record["epoch"], record["seq"]):
                result.fault(f"{name.decode()}: the document is not that of its version")
    if head["accounts"] != client.hlen("{0}:accounts"):
        result.fault(f"{client.hlen('{0}:accounts')} accounts, the head says {head['accounts']}")
    if stored != documents:
        wrong = [name for name in documents if stored.get(name) != documents[name]]
        result.fault(f"{len(wrong)} accounts are not at their last document, for instance {wrong[:3]}")


def _check_letters(letters: list[dict[bytes, bytes]], ids: list[str], poisons: int, refuse_every: int, result: Checked) -> None:
    updates = [fields[b"id"] for fields in letters if fields[b"source"] == b"updates"]
    if len(updates) != poisons or len(set(updates)) != len(updates):
        result.fault(f"{len(updates)} dead letters of {len(set(updates))} updates, expected {poisons}")
    refused = [fields[b"id"].decode() for fields in letters if fields[b"source"] == b"sink:file"]
    wanted = [row for row in ids if refuse_every and int(row.split("/")[1].split("-")[0]) % refuse_every == 0]
    if sorted(set(refused)) != sorted(wanted):
        result.fault(f"{len(set(refused))} rows in the dead letters, expected {len(wanted)}")


def _check_sink(sink: Path, ids: list[str], refuse_every: int, result: Checked) -> None:
    """Every row at least once, first seen in order, nothing that is not in the ledger."""
    seen = [line.split()[0] for line in sink.read_text().splitlines()]
    wanted = [row for row in ids if not refuse_every or int(row.split("/")[1].split("-")[0]) % refuse_every]
    first = list(dict.fromkeys(seen))
    result.copies_outside = len(seen) - len(first)
    result.missing_outside = len(set(wanted) - set(first))
    if first != wanted:
        result.fault(f"outside: {result.missing_outside} missing, {len(set(first) - set(wanted))} unknown to the ledger, or out of order")


def unseal(name: str, value: bytes | None, result: Checked) -> dict[str, Any]:
    """The record under this name; {} and a fault when its seal is broken."""
    if value is None or value[:8] != b"%08x" % zlib.crc32(name.encode() + b"\0" + value[8:]):
        result.fault(f"{name}: the seal is broken")
        return {}
    record: dict[str, Any] = json.loads(value[8:])
    return record


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")
