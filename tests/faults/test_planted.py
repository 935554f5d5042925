"""The planted faults are what their table says; that each is caught is a scenario (`damage.py`)."""

from __future__ import annotations

import re

import pytest

from tests.support.planted import PLANTS, ROOT, Plant

PAGE = (ROOT / "docs" / "reliability.md").read_text()


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_each_fault_can_be_planted_and_names_its_test(plant: Plant) -> None:
    """What it changes stands in the code, its test is there, and the page tells of both."""
    file, _, function = plant.test.partition("::")

    assert plant.old in (ROOT / plant.file).read_text()
    assert f"def {function.partition('[')[0]}(" in (ROOT / file).read_text()
    assert f"| {plant.name} | `{plant.test}` |" in PAGE


def test_the_page_tells_of_no_other() -> None:
    """Nor of a fault that is not planted."""
    assert len(re.findall(r"^\| .+ \| `tests/.+::.+` \|$", PAGE, re.MULTILINE)) == len(PLANTS)
