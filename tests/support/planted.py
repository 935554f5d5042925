"""Faults that are easily made in a protocol like the ledger's: each as a change of the code, with the test that finds it.

`is_caught` makes the change in a copy of the checkout and runs that test, which has to fail there. docs/reliability.md tells of them.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PLANTS", "Plant", "is_caught"]

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("pyproject.toml", "monitor", "tests/ledger", "tests/support", "tests/wire")


@dataclass(frozen=True, slots=True)
class Plant:
    """One fault: `old` stands once in `file` and becomes `new`; `test` finds it."""

    name: str
    file: str
    old: str
    new: str
    test: str


PLANTS = (
    Plant(
        "an unknown outcome is read back instead of settled by an acquire, under a watch that commits do not break",
        "monitor/ledger/partition.py",
        '            ("WATCH", self.keys.head),\n            ("HMGET", self.keys.head, "token", "n"),',
        '            ("WATCH", self.keys.sinks),\n            ("HMGET", self.keys.head, "token", "n"),',
        "tests/ledger/test_partition.py::test_a_deposed_holder_writes_nothing",
    ),
    Plant(
        "a commit whose answer was lost is written again",
        "monitor/ledger/partition.py",
        "        if plan is not None and before.batch == plan.head.batch and before.hash == plan.head.hash:\n",
        "        if plan is not None and before.batch == plan.head.batch:\n            return None\n        if plan is None:\n",
        "tests/ledger/test_faults.py::test_every_fifth_commit_is_struck[cut_reply]",
    ),
    Plant(
        "the token is counted up in the ledger, so that it is given out again after a lost tail",
        "monitor/ledger/partition.py",
        "token=max(before.token + 1, self._wall_ms())",
        "token=before.token + 1",
        "tests/ledger/test_partition.py::test_the_token_rises_with_each_term_and_follows_the_clock",
    ),
    Plant(
        "a record's name is not under its checksum",
        "monitor/wire/seal.py",
        'crc32(value, crc32(name + b"\\0"))',
        "crc32(value)",
        "tests/ledger/test_loading.py::test_all_of_300_damages_are_found",
    ),
    Plant(
        "what is observed again is written again",
        "monitor/ledger/plan.py",
        "            if change.level == old.level and change.unknown == old.unknown:\n",
        "            if change is old:\n",
        "tests/ledger/test_faults.py::test_killed_at_every_point[installed]",
    ),
    Plant(
        "rows are trimmed that a sink has not got",
        "monitor/ledger/housekeeping.py",
        "min([head.seq - self._retain_events, *behind])",
        "head.seq - self._retain_events",
        "tests/ledger/test_housekeeping.py::test_a_sink_without_a_cursor_holds_everything",
    ),
    Plant(
        "the backlog of a receiver that is away is given up after five attempts",
        "monitor/ledger/cursors.py",
        "                case Unavailable() as failure:\n",
        "                case Unavailable() if sum(self.statistics.unavailable.values()) >= 5:\n"
        "                    await self._bury(row, Refused(result.reason))\n"
        "                    self._advance(row)\n"
        "                    return\n"
        "                case Unavailable() as failure:\n",
        "tests/ledger/test_cursors.py::test_an_unavailable_receiver_is_tried_for_ever_and_delays_nobody",
    ),
    Plant(
        "an error inside the answer to an EXEC is not looked for",
        "monitor/ledger/partition.py",
        '            if isinstance(reply, ReplyError):\n                raise LedgerBroken(f"partition {self.number}: a part',
        '            if reply is self:\n                raise LedgerBroken(f"partition {self.number}: a part',
        "tests/ledger/test_partition.py::test_a_failure_inside_a_transaction_stops_everything",
    ),
    Plant(
        "the cursor of the ticks goes ahead of the rows of its message",
        "monitor/ledger/committer.py",
        "        for change in changes:\n            self._append(change)\n",
        "        for change in sorted(changes, key=lambda one: not isinstance(one, TicksRead)):\n            self._append(change)\n",
        "tests/ledger/test_committer.py::test_a_burst_is_split_and_its_cursor_moves_with_its_end",
    ),
    Plant(
        "a sink's cursor moves before its row is delivered",
        "monitor/ledger/cursors.py",
        "            began = loop.time()\n            try:\n",
        "            self._advance(row)\n            await asyncio.sleep(0.01)\n            began = loop.time()\n            try:\n",
        "tests/ledger/test_cursors.py::test_an_unavailable_receiver_is_tried_for_ever_and_delays_nobody",
    ),
)


async def is_caught(plant: Plant) -> tuple[bool, str]:
    """Whether its test fails where the fault is planted, and what that run said."""
    with tempfile.TemporaryDirectory(prefix="mm-") as name:
        copy = Path(name)
        for path in NEEDED:
            (copy / path).parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / path).is_dir():
                shutil.copytree(ROOT / path, copy / path, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / path, copy / path)
        file = copy / plant.file
        text = file.read_text()
        assert plant.old in text, f"{plant.name}: {plant.file} has changed"
        file.write_text(text.replace(plant.old, plant.new))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", plant.test),
            cwd=copy,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
    text = said.decode()
    return process.returncode == 1 and "1 failed" in text, text
