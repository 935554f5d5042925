"""The engine against the exact core on random pools of every venue."""

from __future__ import annotations

from dataclasses import fields
from random import Random

import numpy as np
import pytest

from monitor.engine.evaluator import Evaluator
from monitor.engine.terms import Verdict, terms_of
from monitor.margin.health import margins
from monitor.margin.levels import Level
from monitor.margin.pools import MarginPool
from monitor.margin.prices import PriceKind, Prices
from tests.support.pool_zoo import AS_OF, BREEDS, random_pool


def exact(_account: str, _pool: str, source: object, prices: Prices) -> Verdict:
    """Settles what floats cannot tell."""
    assert isinstance(source, MarginPool)
    worked = margins(source, prices, AS_OF)
    if worked.unknown is not None or worked.equity is None or worked.requirement is None:
        return worked.unknown or "unknown"
    return worked.equity, worked.requirement


@pytest.mark.parametrize("breed", sorted(BREEDS))
def test_columns_and_the_exact_core_agree(breed: str) -> None:
    """Equity and requirement of 60 random pools of a venue, to 1e-12 of what they are sums of; the level is the exact one."""
    r = Random(breed)
    in_columns = 0
    for number in range(60):
        specimen = random_pool(r, breed)
        pool, prices = specimen.pool, specimen.prices
        terms = terms_of(pool)
        engine = Evaluator(exact=exact)
        for field in fields(Prices):
            table = getattr(prices, field.name)
            if table:
                columns = [engine.column(pool.account.venue, PriceKind(field.name), name) for name in table]
                engine.apply(np.array(columns, np.int32), np.array([float(price) for price in table.values()]))
        engine.put(f"account-{number}", [pool])
        wanted = margins(pool, prices, AS_OF)
        (view,) = engine.views(f"account-{number}")
        if wanted.unknown is not None:
            assert view.level is None
            continue
        assert wanted.equity is not None and wanted.requirement is not None
        if terms.idle:
            assert view.level is Level.HEALTHY
            continue
        in_columns += terms.exact_only is None
        scale = abs(float(wanted.equity)) + float(wanted.requirement)
        for leg in pool.legs:
            mark = prices.mark.get(leg.name)
            if mark is not None:
                scale += abs(float(leg.value(mark))) * float(prices.index.get(leg.settle, 1)) + abs(float(leg.cost or 0))
        for holding in pool.holdings:
            scale += abs(float(holding.amount or 0)) * float(prices.index.get(holding.name, 1))
        assert view.equity is not None and view.requirement is not None
        slack = 1e-12 * scale + terms.slack
        assert abs(view.equity - float(wanted.equity)) <= slack, (terms.exact_only, number)
        assert abs(view.requirement - float(wanted.requirement)) <= slack, (terms.exact_only, number)
    print(f"{breed}: {in_columns} of 60 in columns")
