"""An evaluator of Binance USD-M single-asset pools that shares no code with the product.

Written from the venue's published rules (see docs/design.md for the words):

    equity = wallet + sum(q * (mark - entry));  maintenance = sum over legs of max over tiers of (|q| * mark * rate - deduction)

Each leg has its own notional and tier. The maximum over tiers picks the right one because the schedule is continuous and convex. Arrays of
float64 find what is clear; whatever lies within 1e-9 of a threshold is decided again with `fractions.Fraction`, which is exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

__all__ = ["LADDER", "Oracle"]

LADDER = ((Fraction(65, 100), Fraction(60, 100)), (Fraction(80, 100), Fraction(75, 100)), (Fraction(1), Fraction(95, 100)))
"""(enter, leave) of watch, margin_call and liquidation: the shipped defaults, written down a second time on purpose."""

Tier = tuple[Fraction, Fraction, Fraction]


class Oracle:
    """All pools of a book of documents, and their levels as prices come in one by one."""

    def __init__(self, documents: Iterable[Mapping[str, Any]], tiers: Mapping[str, Sequence[Mapping[str, str]]]) -> None:
        self.tiers = {name: _tiers(rows) for name, rows in tiers.items()}
        self.marks: dict[str, Fraction] = {}
        self.names: list[tuple[str, str]] = []
        self.wallets: list[Fraction] = []
        self.legs: list[list[tuple[str, Fraction, Fraction]]] = []
        for document in documents:
            self._add(document["account"])
        pools = len(self.names)
        self.level = np.full(pools, -1, np.int8)
        self.wallet = np.array([float(w) for w in self.wallets])
        self.holds: dict[str, np.ndarray] = {}
        self.net: dict[str, np.ndarray] = {}
        self.cost: dict[str, np.ndarray] = {}
        self.slots: dict[str, np.ndarray] = {}
        for name in self.tiers:
            net, cost, slots = np.zeros(pools), np.zeros(pools), np.zeros((2, pools))
            for pool, legs in enumerate(self.legs):
                mine = [(q, entry) for symbol, q, entry in legs if symbol == name]
                assert len(mine) <= 2
                net[pool] = float(sum(q for q, _ in mine))
                cost[pool] = float(sum(q * entry for q, entry in mine))
                for slot, (q, _) in enumerate(mine):
                    slots[slot, pool] = abs(float(q))
            self.net[name], self.cost[name], self.slots[name] = net, cost, slots
            self.holds[name] = slots[0] > 0
        self.pnl = {name: np.full(pools, np.nan) for name in self.tiers}
        self.maintenance = {name: np.full(pools, np.nan) for name in self.tiers}
        for name in self.tiers:
            absent = ~self.holds[name]
            self.pnl[name][absent] = 0.0
            self.maintenance[name][absent] = 0.0

    def tick(self, name: str, mark: Fraction) -> list[tuple[str, str, int, int]]:
        """Sets one mark. Returns (account, pool, level before, level after) of each pool that changed; -1 before the first verdict."""
        self.marks[name] = mark
        m = float(mark)
        self.pnl[name] = self.net[name] * m - self.cost[name]
        rows = [(float(rate), float(deduction)) for _, rate, deduction in self.tiers[name]]
        total = np.zeros(len(self.names))
        for slot in self.slots[name]:
            notional = slot * m
            total += np.max([notional * rate - deduction for rate, deduction in rows], axis=0).clip(min=0)
        self.maintenance[name] = total
        held = self.holds[name]
        equity = self.wallet + sum(self.pnl.values())
        required = np.asarray(sum(self.maintenance.values()))
        gross = sum(self.slots[s].sum(axis=0) * float(self.marks.get(s, 0)) + np.abs(self.cost[s]) for s in self.tiers)
        scale = 1e-9 * (np.abs(self.wallet) + gross)
        after = np.zeros(len(self.names), np.int8)
        unsure = np.abs(equity) <= scale
        for number, (enter, leave) in enumerate(LADDER, start=1):
            ratio = np.where(self.level >= number, float(leave), float(enter))
            headroom = ratio * equity - required
            after[headroom <= 0] = number
            unsure |= np.abs(headroom) <= scale
        after[equity <= 0] = 4
        known = ~np.isnan(equity)
        for pool in np.flatnonzero(unsure & held & known):
            after[pool] = self._exact(int(pool))
        changed = np.flatnonzero((after != self.level) & held & known)
        events = [(*self.names[pool], int(self.level[pool]), int(after[pool])) for pool in changed]
        self.level[changed] = after[changed]
        return events

    def _exact(self, pool: int) -> int:
        equity, required = self.wallets[pool], Fraction(0)
        for name, quantity, entry in self.legs[pool]:
            mark = self.marks[name]
            equity += quantity * (mark - entry)
            notional = abs(quantity) * mark
            required += max(Fraction(0), *(notional * rate - deduction for _, rate, deduction in self.tiers[name]))
        if equity <= 0:
            return 4
        for number in (3, 2, 1):
            enter, leave = LADDER[number - 1]
            if (leave if self.level[pool] >= number else enter) * equity <= required:
                return number
        return 0

    def _add(self, account: Mapping[str, Any]) -> None:
        cross: list[tuple[str, Fraction, Fraction]] = []
        isolated = []
        for position in account["positions"]:
            leg = (position["instrument"], Fraction(position["quantity"]), Fraction(position["entry_price"]))
            if position.get("margin_mode") == "isolated":
                isolated.append((f"isolated:{leg[0]}", Fraction(position["isolated_wallet"]), [leg]))
            else:
                cross.append(leg)
        if cross:
            wallet = sum((Fraction(b["wallet"]) for b in account["balances"] if b["asset"] == "USDT"), Fraction(0))
            isolated.insert(0, ("cross:USDT", wallet, cross))
        for name, wallet, legs in isolated:
            self.names.append((account["id"], name))
            self.wallets.append(wallet)
            self.legs.append(legs)


def _tiers(rows: Sequence[Mapping[str, str]]) -> list[Tier]:
    """(floor, rate, deduction) with deductions that make the schedule continuous."""
    result: list[Tier] = []
    for row in rows:
        floor, rate = Fraction(row["floor"]), Fraction(row["maintenance_rate"])
        deduction = result[-1][2] + floor * (rate - result[-1][1]) if result else Fraction(0)
        result.append((floor, rate, deduction))
    return result
