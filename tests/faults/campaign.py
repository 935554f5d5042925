"""Every scenario in its long form: `python tests/faults/campaign.py [--only NAME ...] [--short] [--lanes 3]`.

Prints a line per scenario, `name: ok|FAILED  facts`, and at the end `lost N duplicated N misordered N`; exit code 1 unless all is well. A
scenario that lacks something here (root, gcc) says so and is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.faults import damage, deployments, ledgers  # noqa: F401  the scenarios put themselves on the list
from tests.faults.scenario import SCENARIOS, Outcome, Scenario
from tests.support.daemon_checker import Found
from tests.support.daemon_rig import Stage
from tests.support.nursery import nursery


def leaves(error: BaseException) -> list[BaseException]:
    """What went wrong, out of all groups."""
    return [leaf for inner in error.exceptions for leaf in leaves(inner)] if isinstance(error, BaseExceptionGroup) else [error]


async def one(scenario: Scenario, stage: Stage, times: int) -> tuple[str, list[Found], bool]:
    """Runs a scenario. Its line, what was found, and whether all was well."""
    began = time.monotonic()
    try:
        outcome = await scenario.run(stage, times)
        complaints = [text for found in outcome.found for text in found.complaints()]
    except Exception as error:  # noqa: BLE001  the others are run all the same
        outcome, complaints = Outcome([]), [f"{type(leaf).__name__}: {str(leaf)[-1_000:]}" for leaf in leaves(error)]
    compared = {
        "rows": sum(found.events for found in outcome.found),
        "terms": sum(found.tokens for found in outcome.found),
        "copies_outside": sum(found.copies for found in outcome.found),
    }
    seen = {
        **{name: count for name, count in compared.items() if outcome.found},
        **outcome.facts,
        "seconds": round(time.monotonic() - began),
    }
    facts = " ".join(f"{name}={value}" for name, value in seen.items())
    line = f"{scenario.name}: {'FAILED' if complaints else 'ok'}  {facts} {'; '.join(complaints)}"
    return line.rstrip(), outcome.found, not complaints


async def campaign(options: argparse.Namespace, socket: Path) -> bool:
    """Runs what was asked for: what measures alone, the others some at a time, the long ones first."""
    chosen = [SCENARIOS[name] for name in options.only or SCENARIOS]
    waiting = sorted((each for each in chosen if each.short or not options.short), key=lambda scenario: -scenario.long)
    found: list[Found] = []
    good = True

    async def work_off(waiting: list[Scenario]) -> None:
        nonlocal good
        while waiting:
            scenario = waiting.pop(0)
            if scenario.lacks:
                print(f"{scenario.name}: left out, needs {scenario.lacks}", flush=True)
                continue
            line, seen, well = await one(scenario, Stage(socket, options.seed), scenario.short if options.short else scenario.long)
            print(line, flush=True)
            found.extend(seen)
            good = good and well

    await work_off([scenario for scenario in waiting if scenario.is_alone])
    beside = [scenario for scenario in waiting if not scenario.is_alone]
    async with asyncio.TaskGroup() as group:
        for _ in range(options.lanes):
            group.create_task(work_off(beside))
    lost, misordered = sum(f.lost + f.not_delivered for f in found), sum(f.misordered + f.delivered_out_of_order for f in found)
    print(f"lost {lost} duplicated {sum(f.duplicated for f in found)} misordered {misordered}")
    return good


def main() -> int:
    """Reads the options and says how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(SCENARIOS), metavar="NAME")
    parser.add_argument("--short", action="store_true", help="as in the tests")
    parser.add_argument("--lanes", type=int, default=3, help="so many scenarios at a time")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mm-") as folder, nursery(Path(folder)) as socket:
        return 0 if asyncio.run(campaign(options, socket)) else 1


if __name__ == "__main__":
    sys.exit(main())
