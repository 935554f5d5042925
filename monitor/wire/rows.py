"""A row of the ledger as the sinks get it, and what a sink may answer."""

from __future__ import annotations

from dataclasses import dataclass

from monitor.wire.events import EventId

__all__ = ["Delivered", "Delivery", "Refused", "Row", "Unavailable"]


@dataclass(frozen=True, slots=True)
class Row:
    """One event as it stands in the ledger. `body` is the JSON of `wire/events.py`, sent on unchanged; `hash` is its place in the chain."""

    partition: int
    seq: int
    token: int
    body: bytes
    hash: str

    @property
    def id(self) -> str:
        """The stable id: the same in every copy that is ever sent."""
        return str(EventId(self.partition, self.seq, self.token))

    @property
    def stream_id(self) -> str:
        """The id on the partition's stream."""
        return f"{self.seq}-{self.token}"


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver has it."""


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The receiver cannot be reached or is overloaded: the same row is tried again, for ever, with growing pauses.

    `reason` comes from a closed set (metric label), `detail` is for people; `retry_after_s`: the least pause the receiver asked for.
    """

    reason: str
    retry_after_s: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """The receiver will never take this row: it goes to the dead letters, with reason and detail, and the next one is sent."""

    reason: str
    detail: str = ""


Delivery = Delivered | Unavailable | Refused
