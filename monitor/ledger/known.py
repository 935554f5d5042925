"""What this machine last saw of the ledger, in a small file of its own, so that an emptied or restored ledger is noticed at the next start.

A ledger that went back would otherwise be taken for the truth: rows that people have seen would be missing, and account updates silently
old.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from monitor.errors import ConfigError, LedgerBroken
from monitor.ledger.head import Head

__all__ = ["KnownLedger"]


@dataclass(slots=True)
class KnownLedger:
    """The file. Call `check` after each `Partition.lead`, `note` now and then, `save` after it."""

    path: Path
    ledger: str | None = None
    batches: dict[int, int] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> KnownLedger:
        """What the file says; nothing is known where there is none. Raises ConfigError for one that cannot be read."""
        try:
            body = orjson.loads(path.read_bytes())
            return cls(path, body["ledger"], {int(number): batch for number, batch in body["batches"].items()})
        except FileNotFoundError:
            return cls(path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                source=str(path), key="ledger", value=str(error)[:80], expected="the file this program wrote; remove it to forget"
            ) from error

    def check(self, partition: int, before: Head) -> None:
        """Raises LedgerBroken when this is another ledger than the known one, or one that went back behind what was seen of it."""
        if self.ledger is None:
            return
        if before.ledger != self.ledger:
            raise LedgerBroken(
                f"partition {partition}: this is ledger {before.ledger}, {self.path} knows {self.ledger}: an emptied or another Redis? "
                "Start with --accept-ledger to go on with it"
            )
        known = self.batches.get(partition, 0)
        if before.batch < known:
            raise LedgerBroken(
                f"partition {partition}: the ledger stands at batch {before.batch}, {self.path} has seen {known}: its end was lost, or a "
                "backup was restored. Re-publish all accounts and start with --accept-ledger to go on with it"
            )

    def accept(self) -> None:
        """Forgets what was known."""
        self.ledger, self.batches = None, {}

    def note(self, partition: int, head: Head) -> None:
        """Remembers where a partition stands."""
        self.ledger = head.ledger
        self.batches[partition] = head.batch

    def save(self) -> None:
        """Writes the file whole or not at all. Raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_name(self.path.name + ".new")
        with new.open("wb") as file:
            batches = {str(number): batch for number, batch in self.batches.items()}
            file.write(orjson.dumps({"ledger": self.ledger, "batches": batches}))
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path)
