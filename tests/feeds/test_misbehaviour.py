"""Every misbehaviour of every venue: recovered, everything subscribed, no mark lost, the venue's limits kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from monitor.feeds.venues import PROFILES
from tests.support.misbehaviour import CASES, Case, misbehave, table

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "venues.md"


@pytest.mark.parametrize("venue", sorted(PROFILES))
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_venue_that_misbehaves(venue: str, case: Case) -> None:
    """Afterwards all is as it was: ready, whole, nothing lost, no limit of the venue broken."""
    outcome = await misbehave(venue, case)

    assert outcome.faults == [], outcome


def test_the_page_lists_what_is_tried() -> None:
    """docs/reference/venues.md has the table of the misbehaviours as they are tried here."""
    assert table() in PAGE.read_text(), f"write this into {PAGE.name}:\n{table()}"
