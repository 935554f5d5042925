"""What a deployment must have written and sent, worked out anew from the log of ticks, compared row by row with the ledger and with MQTT.

Shares no code with the product: redis-py reads, json and hashlib recompute, an oracle of its own evaluates.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.ledger_checker import Checked, chained_rows, check_levels, unseal
from tests.support.tick_log import changes_of, client_of, marks_of, wanted_changes

__all__ = ["Found", "check_deployment", "head_of"]


@dataclass(slots=True)
class Found:
    """What the checker found. All from `lost` on must be 0 or empty.

    Attributes:
        events: Level rows of the ledger. blind: rows that say that ticks are missing. tokens: terms that wrote rows.
        copies: Rows that the subscriber got again, unchanged.
        wrong: Changes of level that the replay does not have at all. not_delivered, delivered_out_of_order: of rows, by the subscriber.
        unknown_outside: Messages that are no row of the ledger, or not as it stands there.
    """

    events: int = 0
    blind: int = 0
    tokens: int = 0
    copies: int = 0
    lost: int = 0
    duplicated: int = 0
    misordered: int = 0
    wrong: int = 0
    not_delivered: int = 0
    delivered_out_of_order: int = 0
    unknown_outside: int = 0
    faults: list[str] = field(default_factory=list)

    def complaints(self) -> list[str]:
        """What is wrong, in words; [] when nothing is."""
        names = ("lost", "duplicated", "misordered", "wrong", "not_delivered", "delivered_out_of_order", "unknown_outside")
        return [f"{name}={getattr(self, name)}" for name in names if getattr(self, name)] + self.faults


def head_of(url: str) -> dict[str, Any]:
    """The head of partition 0."""
    with client_of(url) as client:
        checked = Checked()
        head = unseal("{0}:head", client.hget("{0}:head", "h"), checked)
    assert not checked.faults, checked.faults
    return head


def check_deployment(
    ledger: str,
    ticks: Sequence[tuple[str, Mapping[str, Any]]],
    documents: Sequence[Mapping[str, Any]],
    tables: Mapping[str, Any],
    heard: Sequence[bytes],
) -> Found:
    """Compares.

    Args:
        ledger: Its address. ticks: the log of ticks, from the first to the last that was decided.
        heard: The events that a subscriber got, in order.
    """
    found, checked = Found(), Checked()
    with client_of(ledger) as client:
        head = unseal("{0}:head", client.hget("{0}:head", "h"), checked)
        rows = chained_rows(client, head, checked)
        bodies = {row_id: json.loads(data) for row_id, data in rows}
        levels = [body for body in bodies.values() if body["kind"] == "level"]
        check_levels(client, {f"{body['account']}/{body['pool']}": (body["level"], body["rev"]) for body in levels}, head, checked)
    found.events = len(levels)
    found.blind = sum(body["kind"] == "blind" for body in bodies.values())
    found.tokens = len({row_id.partition("-")[2] for row_id in bodies})
    wanted, had = wanted_changes(marks_of(ticks), documents, tables), changes_of(levels)
    for pool in wanted.keys() | had.keys():
        _compare(wanted.get(pool, []), had.get(pool, []), found)
    revs: Counter[str] = Counter()
    for body in levels:
        pool = f"{body['account']}/{body['pool']}"
        revs[pool] += 1
        if body["rev"] != revs[pool]:
            checked.fault(f"{body['id']}: rev {body['rev']} of {pool}, expected {revs[pool]}")
    _check_outside(dict(rows), list(bodies), heard, found)
    found.faults += checked.faults[:5]
    return found


def _compare(wanted: list[tuple[int, int]], had: list[tuple[int, int]], found: Found) -> None:
    """Counts what is missing, there twice, in another order, or another level, of one pool."""
    if wanted == had:
        return
    missing, extra = Counter(wanted) - Counter(had), Counter(had) - Counter(wanted)
    known = set(wanted)
    found.lost += missing.total()
    found.duplicated += sum(count for change, count in extra.items() if change in known)
    found.wrong += sum(count for change, count in extra.items() if change not in known)
    found.misordered += not missing and not extra


def _check_outside(rows: Mapping[str, bytes], due: Sequence[str], heard: Sequence[bytes], found: Found) -> None:
    """Every row at least once, under its own id, as it stands in the ledger; first copies in the order of each account."""
    seen: set[str] = set()
    last: dict[str, tuple[int, int]] = {}
    for data in heard:
        body = json.loads(data)
        if rows.get(body["id"]) != data:
            found.unknown_outside += 1
        if body["id"] in seen:
            found.copies += 1
            continue
        seen.add(body["id"])
        seq, token = map(int, body["id"].partition("/")[2].split("-"))
        account = body.get("account", "")
        found.delivered_out_of_order += (token, seq) < last.get(account, (0, 0))
        last[account] = (token, seq)
    found.not_delivered = sum(row_id not in seen for row_id in due)
