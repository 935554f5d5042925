"""The whole deployment under kill -9: `python tests/faults/campaign_daemon.py [--rounds 2] [--random 20]`.

The deciding process dies at each named crash point, round after round, and at moments that nobody chose; afterwards every row of the
ledger is compared with an independent replay of the log of ticks, and what an MQTT subscriber heard with the rows. Prints the deaths as
JSON and ends with `lost N duplicated N misordered N`; exit code 1 unless all are 0.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from monitor.ledger.crashpoints import POINTS
from tests.support.daemon_rig import Found, daemon_rig


async def campaign(rounds: int, at_random: int, seed: int) -> Found:
    """Runs it."""
    with tempfile.TemporaryDirectory(prefix="mm-") as name:
        async with daemon_rig(Path(name), seed=seed) as rig:
            for _ in range(rounds):
                for point in POINTS:
                    await rig.die(point)
            for _ in range(at_random):
                await rig.die(None)
            await rig.end()
            found = await rig.check()
            print(json.dumps({"deaths": dict(sorted(rig.deaths.by.items())), **asdict(found)}))
    return found


def main() -> int:
    """Reads the options and says how it went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--random", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    found = asyncio.run(campaign(options.rounds, options.random, options.seed))
    lost, misordered = found.lost + found.not_delivered, found.misordered + found.delivered_out_of_order
    print(f"lost {lost} duplicated {found.duplicated} misordered {misordered}")
    good = not (lost or found.duplicated or misordered or found.wrong)
    return 0 if good and found.events else 1


if __name__ == "__main__":
    sys.exit(main())
