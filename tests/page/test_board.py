"""The board: accounts by danger, filtered, with what changed; held to a plain reckoning of the same order."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.page.board import LEVELS, UNKNOWN, Board, Columns, Ranking

PLACES = {"bankrupt": 5, "liquidation": 4, "unknown": 3, "margin_call": 2, "watch": 1, "healthy": 0}

Pool = tuple[str, int, float, float]
"""(account, level, equity, requirement)."""


def columns(pools: list[Pool]) -> Columns:
    """The pools as the engine would give them."""
    return Columns(
        np.arange(len(pools), dtype=np.int32),
        np.array([level for _, level, _, _ in pools], np.int8),
        np.array([math.nan if level == UNKNOWN else equity for _, level, equity, _ in pools]),
        np.array([math.nan if level == UNKNOWN else requirement for _, level, _, requirement in pools]),
        [account for account, _, _, _ in pools],
    )


def places(account: str) -> tuple[str, str]:
    """Venue and group by the account's name: `v1-g2-...`."""
    venue, group, _ = account.split("-", 2)
    return venue, group


def ranked(pools: list[Pool], held: dict[str, str] | None = None, board: Board | None = None, now: float = 0.0) -> tuple[Board, Ranking]:
    """A board and its ranking."""
    board = Board(places) if board is None else board
    accounts = sorted({account for account, _, _, _ in pools})
    return board, board.rank(columns(pools), accounts, len(accounts), held or {}, now)


def words(ranking: Ranking) -> list[tuple[str, str]]:
    """(account, level) in the order of the ranking."""
    level = (*LEVELS, "unknown")
    return [(ranking.ids[row], level[ranking.level[row]]) for row in ranking.order.tolist()]


@st.composite
def books(draw: st.DrawFn) -> list[Pool]:
    """Some accounts with one to three pools each; levels agree with the numbers as the default thresholds have them."""
    pools: list[Pool] = []
    for number in range(draw(st.integers(1, 12))):
        account = f"v{number % 2}-g{number % 3}-{number}"
        for _ in range(draw(st.integers(1, 3))):
            ratio = draw(st.sampled_from([0.1, 0.3, 0.66, 0.7, 0.85, 0.95, 1.0, 1.5, -1.0, math.nan]))
            if math.isnan(ratio):
                pools.append((account, UNKNOWN, math.nan, math.nan))
            elif ratio < 0:
                pools.append((account, 4, -100.0, 10.0))
            else:
                pools.append((account, 0 if ratio < 0.65 else 1 if ratio < 0.8 else 2 if ratio < 1 else 3, 100.0, 100.0 * ratio))
    return pools


@settings(max_examples=200, deadline=None)
@given(books(), st.sets(st.integers(0, 11), max_size=2))
def test_an_account_stands_where_its_worst_pool_stands(pools: list[Pool], held: set[int]) -> None:
    """Order and level are those of a plain reckoning; an unknown pool or a hold makes the account unknown."""
    accounts = {account for account, _, _, _ in pools}
    holds = {account: "held" for account in accounts if int(account.rsplit("-", 1)[1]) in held}
    _, ranking = ranked(pools, holds)
    found = words(ranking)

    assert {account for account, _ in found} == accounts
    for account, level in found:
        levels = [number for name, number, _, _ in pools if name == account]
        unknown = account in holds or UNKNOWN in levels
        assert level == ("unknown" if unknown else LEVELS[max(levels)])
    least = [
        max(3 if account in holds else 0, *(PLACES[(*LEVELS, "unknown")[number]] for name, number, _, _ in pools if name == account))
        for account, _ in found
    ]
    assert least == sorted(least, reverse=True)


def test_inside_a_level_by_ratio_and_the_bankrupt_by_equity() -> None:
    """Worst first, also inside a level; who has no position comes last."""
    pools = [
        ("v-g-a", 1, 100.0, 66.0),
        ("v-g-b", 1, 100.0, 79.0),
        ("v-g-c", 4, -5.0, 1.0),
        ("v-g-d", 4, -5_000.0, 1.0),
        ("v-g-e", 0, 100.0, 0.0),
    ]
    _, ranking = ranked(pools)
    assert [account for account, _ in words(ranking)] == ["v-g-d", "v-g-c", "v-g-b", "v-g-a", "v-g-e"]


def test_filters_keep_the_order() -> None:
    """Venue, group, level and search each keep what they say, in the order of the ranking."""
    pools = [(f"v{n % 2}-g{n % 3}-{n}", n % 4, 100.0, [10.0, 70.0, 85.0, 120.0][n % 4]) for n in range(24)]
    board, ranking = ranked(pools)
    everybody = words(ranking)

    def chosen(**filters: str) -> list[tuple[str, str]]:
        wanted = {"group": None, "venue": None, "level": None, "search": None, **filters}
        level = (*LEVELS, "unknown")
        return [(ranking.ids[row], level[ranking.level[row]]) for row in board.chosen(ranking, **wanted).tolist()]

    assert chosen() == everybody
    assert chosen(venue="v1") == [row for row in everybody if row[0].startswith("v1")]
    assert chosen(group="g2") == [row for row in everybody if "-g2-" in row[0]]
    assert chosen(level="watch") == [row for row in everybody if row[1] == "watch"]
    assert chosen(search="G0-1") == [row for row in everybody if "g0-1" in row[0]]
    assert chosen(venue="elsewhere") == chosen(group="elsewhere") == chosen(level="elsewhere") == []


def test_what_changed_is_told_against_some_minutes_ago() -> None:
    """A ratio that went from 0.5 to 0.7 has changed by 0.2; five minutes later nothing has."""
    board, _ = ranked([("v-g-a", 0, 100.0, 50.0)], now=0.0)
    _, ranking = ranked([("v-g-a", 1, 100.0, 70.0)], board=board, now=60.0)
    assert (round(float(ranking.change[0]), 6), ranking.change_s) == (0.2, 60.0)
    for minute in range(2, 15):
        _, ranking = ranked([("v-g-a", 1, 100.0, 70.0)], board=board, now=60.0 * minute)
    assert float(ranking.change[0]) == 0.0


def test_accounts_come_and_go() -> None:
    """Who is gone is not ranked, and a pool number that changed hands belongs to its new account."""
    board, _ = ranked([("v-g-a", 0, 100.0, 10.0), ("v-g-b", 1, 100.0, 70.0)])
    _, ranking = ranked([("v-g-a", 0, 100.0, 10.0), ("v-g-c", 3, 100.0, 130.0)], board=board, now=1.0)
    assert words(ranking) == [("v-g-c", "liquidation"), ("v-g-a", "healthy")]
