"""What the evaluator hands to the ledger: a sequence of small facts, written in the order given.

A commit may end between any two of them, so a long burst is split without a rule of its own: the cursor stands behind the facts of its
message and moves when they are all written.
"""

from __future__ import annotations

from dataclasses import dataclass

from monitor.ledger.head import Suspect
from monitor.margin.levels import Level
from monitor.wire.events import TickPosition

__all__ = [
    "Anchor",
    "Blind",
    "Change",
    "DeadLetter",
    "DocumentChange",
    "Hold",
    "Numbers",
    "Observation",
    "Suspicion",
    "TicksRead",
    "UpdatesRead",
    "size_of",
]


@dataclass(frozen=True, slots=True)
class Observation:
    """The verdict of a pool as evaluated. It becomes an event only if it differs from the committed verdict.

    While `unknown` is set, `level` is the last one known. `facts` is a JSON object with the numbers of the evaluation, b"{}" for none.
    """

    account: str
    pool: str
    level: Level
    unknown: str | None
    at: TickPosition
    facts: bytes


@dataclass(frozen=True, slots=True)
class Numbers:
    """The facts of an observation that was handed over without them, because too many came at once.

    They become a row of their own, unless the pool's verdict has changed again since `at`: then they are of no use.
    """

    account: str
    pool: str
    at: TickPosition
    facts: bytes


@dataclass(frozen=True, slots=True)
class DocumentChange:
    """An account's whole document, valid, or None where the account is removed. It lifts a hold."""

    account: str
    epoch: int
    sequence: int
    document: bytes | None


@dataclass(frozen=True, slots=True)
class Hold:
    """The account is unknown, for this reason, until a valid document comes; also over restarts."""

    account: str
    reason: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Something that could not be used, kept for a person. `source`: updates, or sink:<name>; `id`: where it stood."""

    source: str
    cause: str
    raw: bytes
    id: str


@dataclass(frozen=True, slots=True)
class Blind:
    """Between these places of the tick log nothing was decided: becomes an event. None: not known."""

    start: TickPosition | None
    end: TickPosition | None
    reason: str


@dataclass(frozen=True, slots=True)
class TicksRead:
    """Every fact of the tick messages up to this one has been handed over."""

    id: str
    epoch: int
    n: int


@dataclass(frozen=True, slots=True)
class UpdatesRead:
    """Every fact of the account updates up to this one has been handed over."""

    id: str


@dataclass(frozen=True, slots=True)
class Suspicion:
    """The update about to be applied, or None when it is over."""

    suspect: Suspect | None


@dataclass(frozen=True, slots=True)
class Anchor:
    """Events up to this one may be trimmed; the chain is checked from here on."""

    seq: int
    hash: str


Change = Observation | Numbers | DocumentChange | Hold | DeadLetter | Blind | TicksRead | UpdatesRead | Suspicion | Anchor

_OVERHEAD = 400


def size_of(change: Change) -> int:
    """Roughly what a change takes in memory and in a commit, bytes."""
    match change:
        case Observation() | Numbers():
            return _OVERHEAD + len(change.facts)
        case DocumentChange():
            return _OVERHEAD + len(change.document or b"")
        case DeadLetter():
            return _OVERHEAD + len(change.raw)
        case _:
            return _OVERHEAD
