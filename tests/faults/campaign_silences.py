"""Silent venues and a calm one, in real time: `python tests/faults/campaign_silences.py [--runs 20] [--calm 1800]`.

Each of eight kinds of silence is tried so many times on a daemon of its own, all kinds at once; beside them a daemon reads nine venues to
which nothing happens. Prints a table; exit code 1 when anything was told too late, shown as healthy too long, or told without a reason.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from monitor.service.logs import configure_logs
from tests.support.silences import KINDS, LIMIT_S, Calm, Silences, calm, silences


async def campaign(runs: int, calm_s: float, seed: int) -> tuple[dict[str, Silences], Calm]:
    """All at once: they mostly wait."""
    with tempfile.TemporaryDirectory(prefix="mm-") as name:
        folders = {kind.__name__: Path(name) / str(number) for number, kind in enumerate(KINDS)} | {"": Path(name) / "calm"}
        for folder in folders.values():
            folder.mkdir()
        async with asyncio.TaskGroup() as group:
            quiet = group.create_task(calm(folders[""], calm_s))
            tasks = {
                kind.__name__: group.create_task(silences(kind, folders[kind.__name__], runs, random.Random(f"{seed}:{number}")))
                for number, kind in enumerate(KINDS)
            }
    return {name: task.result() for name, task in tasks.items()}, quiet.result()


def main() -> int:
    """Reads the options and prints what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="of each kind of silence")
    parser.add_argument("--calm", type=float, default=1800.0, help="seconds of nine venues to which nothing happens")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    configure_logs(form="text", level="critical")
    found, quiet = asyncio.run(campaign(options.runs, options.calm, options.seed))
    for name, seen in found.items():
        print(
            f"{name:<10} {len(seen.told_s):>3} runs  median {statistics.median(seen.told_s):.2f} s  slowest {max(seen.told_s):.2f} s  "
            f"of {LIMIT_S} s  {seen.samples} samples, {seen.false_healthy} falsely healthy"
        )
    print("calm       " + ", ".join(f"{name} {number:g}" for name, number in asdict(quiet).items()))
    late = any(told_s >= LIMIT_S for seen in found.values() for told_s in seen.told_s)
    false = any(seen.false_healthy for seen in found.values()) or quiet.unknown or quiet.stale or quiet.events or quiet.reconnects
    return 1 if late or false else 0


if __name__ == "__main__":
    sys.exit(main())
