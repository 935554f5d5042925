"""The reference pages say what the code says."""

from __future__ import annotations

import pytest
import reference


@pytest.mark.parametrize("name", reference.PAGES)
def test_the_page_is_up_to_date(name: str) -> None:
    """What `make generated` would write is what is there."""
    assert (reference.FOLDER / name).read_text(encoding="utf-8") == reference.PAGES[name](), "run `make generated`"


def test_every_field_of_an_event_has_a_meaning() -> None:
    """No more and no fewer than an event has that is built as the daemon builds it."""
    assert set(reference.field_paths(reference.sample_event())) == set(reference.EVENT_FIELDS)
    assert set(reference.field_paths(reference.sample_blind())) == set(reference.BLIND_FIELDS)


def test_nothing_is_without_a_meaning() -> None:
    """A row with an empty cell is a key, a metric or an option that nobody has described."""
    lines = [line for write in reference.PAGES.values() for line in write().splitlines()]

    assert [line for line in lines if line.startswith("| `") and "|  |" in line] == []
