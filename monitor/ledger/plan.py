"""One commit, worked out from the committed state before anything is sent.

Everything here is arithmetic on values: the same state and the same changes give the same plan, so a commit that was not applied is simply
planned again.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace

from monitor.ledger.changes import (
    Anchor,
    Blind,
    Change,
    DeadLetter,
    DocumentChange,
    Hold,
    Numbers,
    Observation,
    Suspicion,
    TicksRead,
    UpdatesRead,
)
from monitor.ledger.connection import Command
from monitor.ledger.head import Head, account_digest, level_digest
from monitor.ledger.keys import PartitionKeys, level_name
from monitor.ledger.records import NEVER, NO_DOCUMENT, AccountVersion, LevelRecord, Versions, account_record, level_record, packed_record
from monitor.margin.levels import Level
from monitor.wire.events import blind_body, chain_hash, level_body, numbers_body

__all__ = ["Committed", "Plan", "plan_commit"]


@dataclass(slots=True)
class Committed:
    """What is known to stand in the ledger, of one partition."""

    partition: int
    head: Head
    levels: dict[str, LevelRecord] = field(default_factory=dict)
    accounts: MutableMapping[str, AccountVersion] = field(default_factory=Versions)

    def take(self, plan: Plan) -> None:
        """Makes the plan part of it, once it is known to be applied."""
        self.head = plan.head
        self.levels.update(plan.levels)
        self.accounts.update(plan.accounts)


@dataclass(slots=True)
class Plan:
    """A commit to be. `writes` stand between MULTI and EXEC, without the one to the head; `changes` is how many changes went into it."""

    head: Head
    changes: int
    writes: list[Command] = field(default_factory=list)
    levels: dict[str, LevelRecord] = field(default_factory=dict)
    accounts: dict[str, AccountVersion] = field(default_factory=dict)
    rows: int = 0
    blind_rows: int = 0
    documents: int = 0
    dead_letters: int = 0
    unchanged: int = 0
    stale: int = 0


def plan_commit(state: Committed, changes: Sequence[Change], stored: Mapping[str, bytes | None]) -> Plan:
    """The commit that these changes make of this state.

    An observation gives an event iff its (level, unknown) differs from the committed one, so nothing is ever written twice, whoever
    observes it again. An observation from before the place where its pool was last decided is left out and counted, and so are
    numbers of a verdict that has changed since.

    Args:
        stored: The stored documents of the accounts that are put on hold (their records are rewritten whole).
    """
    head, partition, keys = state.head, state.partition, PartitionKeys.of(state.partition)
    plan = Plan(head, len(changes))
    token, seq, chain, digest = head.token, head.seq, head.hash, head.digest
    levels, accounts = head.levels, head.accounts
    moved: dict[str, object] = {}
    records: dict[str, bytes] = {}
    documents: dict[str, bytes | None] = {}
    packed: dict[str, bytes] = {}
    letters: list[Command] = []

    for change in changes:
        if isinstance(change, Observation):
            name = level_name(change.account, change.pool)
            old = plan.levels.get(name) or state.levels.get(name) or NEVER
            at = change.at
            if change.level == old.level and change.unknown == old.unknown:
                plan.unchanged += 1
                continue
            if at.epoch == old.at.epoch and at < old.at:
                plan.stale += 1
                continue
            seq += 1
            rev, episode = old.rev + 1, old.episode + (old.level is Level.HEALTHY and change.level is not Level.HEALTHY)
            stream_id = f"{seq}-{token}"
            event_id = f"{partition}/{stream_id}"
            body = level_body(
                event_id=event_id,
                account=change.account,
                pool=change.pool,
                level=change.level,
                previous=old.level,
                unknown=change.unknown,
                previous_unknown=old.unknown,
                rev=rev,
                episode=episode,
                at=at,
                previous_hash=chain,
                facts=change.facts,
            )
            chain = _append(plan, keys, stream_id, chain_hash(chain, event_id, body), body)
            if old.rev:
                digest ^= level_digest(name, old.rev)
            else:
                levels += 1
            digest ^= level_digest(name, rev)
            plan.levels[name] = LevelRecord(change.level, change.unknown, rev, episode, at, seq)
        elif isinstance(change, Numbers):
            name = level_name(change.account, change.pool)
            told = plan.levels.get(name) or state.levels.get(name) or NEVER
            if told.at != change.at or told.unknown is not None:
                plan.stale += 1
                continue
            seq += 1
            stream_id = f"{seq}-{token}"
            event_id = f"{partition}/{stream_id}"
            body = numbers_body(
                event_id=event_id,
                account=change.account,
                pool=change.pool,
                level=told.level,
                rev=told.rev,
                at=told.at,
                previous_hash=chain,
                facts=change.facts,
            )
            chain = _append(plan, keys, stream_id, chain_hash(chain, event_id, body), body)
        elif isinstance(change, Blind):
            seq += 1
            plan.blind_rows += 1
            stream_id = f"{seq}-{token}"
            event_id = f"{partition}/{stream_id}"
            body = blind_body(event_id=event_id, start=change.start, end=change.end, reason=change.reason, previous_hash=chain)
            chain = _append(plan, keys, stream_id, chain_hash(chain, event_id, body), body)
        elif isinstance(change, DocumentChange | Hold):
            account = change.account
            known = plan.accounts.get(account) or state.accounts.get(account)
            if isinstance(change, Hold):
                version = (known or NO_DOCUMENT)._replace(hold=change.reason)
                document = documents.get(account, stored.get(account))
            else:
                if known is not None and (change.epoch, change.sequence) <= (known.epoch, known.sequence):
                    continue
                version = AccountVersion.of(change.epoch, change.sequence, change.document, None)
                document = change.document
                plan.documents += 1
            if known is None:
                accounts += 1
            else:
                digest ^= account_digest(account, known.epoch, known.sequence, known.hold)
            digest ^= account_digest(account, version.epoch, version.sequence, version.hold)
            plan.accounts[account] = version
            documents[account] = document
            records[account] = account_record(account, version, document)
            packed[account] = packed_record(account, version, document)
        elif isinstance(change, DeadLetter):
            plan.dead_letters += 1
            letters.append(("XADD", keys.dead, "*", "source", change.source, "cause", change.cause, "raw", change.raw, "id", change.id))
        elif isinstance(change, TicksRead):
            moved.update(ticks=change.id, tick_e=change.epoch, tick_n=change.n)
        elif isinstance(change, UpdatesRead):
            moved["updates"] = change.id
        elif isinstance(change, Suspicion):
            moved["suspect"] = change.suspect
        elif isinstance(change, Anchor):
            moved.update(trim=change.seq, trim_hash=change.hash)

    if records:
        plan.writes += [("HSET", keys.accounts, *_flat(records)), ("HSET", keys.packed, *_flat(packed))]
    if plan.levels:
        plan.writes.append(("HSET", keys.levels, *_flat({name: level_record(name, record) for name, record in plan.levels.items()})))
    plan.writes += letters
    plan.head = replace(
        head,
        n=head.n + 1,
        batch=head.batch + 1,
        seq=seq,
        hash=chain,
        digest=digest,
        levels=levels,
        accounts=accounts,
        **moved,  # type: ignore[arg-type]
    )
    return plan


def _append(plan: Plan, keys: PartitionKeys, stream_id: str, chain: str, body: bytes) -> str:
    plan.writes.append(("XADD", keys.events, stream_id, "e", body, "h", chain))
    plan.rows += 1
    return chain


def _flat(records: Mapping[str, bytes]) -> list[str | bytes]:
    return [part for item in records.items() for part in item]
