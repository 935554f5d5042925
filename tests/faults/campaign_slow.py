"""Ten minutes of a slow Redis, a stopped Redis and a stopped evaluator at ten times the rate: `python tests/faults/campaign_slow.py`.

Real processes, 400 symbols ten times a second, the three troubles beside each other. Prints a line each; exit code 1 when the feeds or the
evaluator process grew by more than 64 MB, or the prices in Redis were not fresh within a second.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from monitor.service.logs import configure_logs
from tests.support.slow_rig import TROUBLES, Slow, slowness

MOST_MB, FRESH_S = 64.0, 1.0


async def campaign(seconds: float, rate: float) -> dict[str, Slow]:
    """All at once."""
    with tempfile.TemporaryDirectory(prefix="mm-") as name:
        folders = {kind: Path(name) / str(number) for number, kind in enumerate(TROUBLES)}
        for folder in folders.values():
            folder.mkdir()
        async with asyncio.TaskGroup() as group:
            tasks = {}
            for kind, folder in folders.items():
                tasks[kind] = group.create_task(slowness(kind, folder, seconds, rate=rate))
                await asyncio.sleep(10.0)  # so that they do not end at the same moment
        return {kind: task.result() for kind, task in tasks.items()}


def main() -> int:
    """Reads the options and prints what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--rate", type=float, default=10.0, help="frames of 400 marks a second")
    options = parser.parse_args()
    configure_logs(form="text", level="critical")
    found = asyncio.run(campaign(options.seconds, options.rate))
    for kind, seen in found.items():
        print(f"{kind:<18} {asdict(seen)}")
    good = all(seen.grown_mb[name] <= MOST_MB for seen in found.values() for name in ("feeds", "evaluator"))
    return 0 if good and all(seen.fresh_s <= FRESH_S for seen in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
