"""What one partition counts, in plain integers; read at scrape time."""

from __future__ import annotations

from dataclasses import dataclass, field

from monitor.measures import Durations

__all__ = ["LedgerStatistics"]


@dataclass(slots=True)
class LedgerStatistics:
    """Counters of one partition since the process started.

    Attributes:
        commits: Commits proven, heartbeats among them. rows: events written. documents: account documents written. blind_rows: among
            `rows`.
        dead_letters: Things written to the dead letters.
        unchanged: Observations that equalled the committed verdict. stale: observations older than it (a replay that should have skipped
            them).
        settled_applied, settled_again: Commits of unknown outcome that were found done, not done.
        fenced: Times that another process was found to hold the partition. races: acquires that somebody else's write overtook.
        failures: Exchanges that failed, by code of the answer or "connection".
        queue_drops: Times that the queue grew past its limit and was dropped, to be made again from the tick log.
        dropped_changes: Changes dropped by it.
        commit_seconds: From sending a commit to its answer, proven ones only. settle_seconds: how long an outcome stayed unknown.
    """

    commits: int = 0
    rows: int = 0
    blind_rows: int = 0
    documents: int = 0
    dead_letters: int = 0
    unchanged: int = 0
    stale: int = 0
    settled_applied: int = 0
    settled_again: int = 0
    fenced: int = 0
    races: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    queue_drops: int = 0
    dropped_changes: int = 0
    commit_seconds: Durations = field(default_factory=Durations)
    settle_seconds: Durations = field(default_factory=Durations)

    def failed(self, code: str) -> None:
        """Counts one failed exchange."""
        self.failures[code] = self.failures.get(code, 0) + 1
