"""Every scenario in short; `tests/faults/campaign.py` is the long form."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults import damage, deployments  # noqa: F401  the scenarios put themselves on the list
from tests.faults.scenario import SCENARIOS, Scenario
from tests.support.daemon_rig import Stage
from tests.support.mosquitto import needs_mosquitto
from tests.support.nursery import nursery

pytestmark = [needs_mosquitto, pytest.mark.xdist_group("daemon faults")]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One nursery for all."""
    with nursery(tmp_path_factory.mktemp("n")) as socket:
        yield Stage(socket)


@pytest.mark.parametrize("scenario", [each for each in SCENARIOS.values() if each.short], ids=lambda scenario: scenario.name)
async def test_nothing_is_lost_told_twice_or_wrong(stage: Stage, scenario: Scenario) -> None:
    """Every row is the replay's, and the subscriber has each of them, in order."""
    if scenario.lacks:
        pytest.skip(f"needs {scenario.lacks}")

    outcome = await scenario.run(stage, scenario.short)

    assert [complaint for found in outcome.found for complaint in found.complaints()] == []
    assert all(found.events for found in outcome.found)
