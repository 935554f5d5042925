"""What if: the answer is `evaluate` on the changed document, and each change does what it says."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.errors import RefusedError
from monitor.feeds.market import sample_symbols
from monitor.margin.levels import DEFAULT_THRESHOLDS
from monitor.margin.prices import Prices
from monitor.page.what_if import changes_of, what_if
from monitor.service.evaluate import evaluate_files
from monitor.service.sample_book import sample_documents, sample_tables
from monitor.service.tables import VenueTables

NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)
MARKS = sample_symbols(6)
PRICES = Prices(mark={name: Decimal(str(price)) for name, price in MARKS.items()})
BOOK = [orjson.dumps(document) for document in sample_documents(40, MARKS, seed=3)]
NAMES = sorted(MARKS)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> VenueTables:
    """The tables of the sample book."""
    path = tmp_path_factory.mktemp("tables") / "tables.json"
    path.write_bytes(orjson.dumps(sample_tables(MARKS)))
    return VenueTables([path])


def asked(data: bytes, known: VenueTables, *pairs: tuple[str, str]) -> dict[str, Any]:
    """The answer to some changes."""
    return what_if(data, changes_of(pairs), known=known, prices=PRICES, now=NOW, thresholds=DEFAULT_THRESHOLDS)


def evaluated(path: Path, answer: dict[str, Any], known: VenueTables) -> dict[str, Any]:
    """What `evaluate` says of the document of an answer."""
    path.write_bytes(orjson.dumps(answer["document"]))
    data, code = evaluate_files([path], tables=known, now=datetime(2030, 1, 1, tzinfo=UTC))
    assert code == 0, data
    account: dict[str, Any] = orjson.loads(data)["accounts"][0]
    return account


# fmt: off
CHANGE = st.one_of(
    st.tuples(st.just("move"), st.integers(-500, 500).map(lambda n: str(n / 10))),
    st.tuples(st.just("move"), st.tuples(st.sampled_from(["BTC", "ETH"]), st.integers(-50, 50)).map(lambda pair: f"{pair[0]}:{pair[1]}")),
    st.tuples(st.just("trade"), st.tuples(st.sampled_from(NAMES), st.decimals(-3, 3, places=3)).map(lambda pair: f"{pair[0]}:{pair[1]}")),
    st.tuples(st.just("deposit"), st.integers(-500, 5_000).map(lambda amount: f"USDT:{amount}")),
)
# fmt: on


@settings(max_examples=60, deadline=None)
@given(data=st.sampled_from(BOOK), changes=st.lists(CHANGE, max_size=4))
def test_the_answer_is_what_evaluate_says_of_the_changed_document(
    data: bytes, changes: list[tuple[str, str]], known: VenueTables, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Digit for digit, whatever is changed."""
    answer = asked(data, known, *changes)
    assert evaluated(tmp_path_factory.getbasetemp() / "changed.json", answer, known) == answer["account"]


def test_no_change_is_the_account_as_it_is(known: VenueTables) -> None:
    """Without changes the document is the one held, at the present prices."""
    for data in BOOK[:10]:
        answer = asked(data, known)
        account = orjson.loads(data)["account"]
        assert answer["document"]["account"] == account
        assert all(Decimal(price) == PRICES.mark[name] for name, price in answer["document"]["prices"]["mark"].items())


def test_a_deposit_raises_equity_by_itself(known: VenueTables) -> None:
    """1000 USDT more in the wallet are 1000 more of equity in the cross pool and nothing else."""
    before, after = asked(BOOK[0], known), asked(BOOK[0], known, ("deposit", "USDT:1000"))
    cross = [account["account"]["pools"][0] for account in (before, after)]
    assert Decimal(cross[1]["equity"]) - Decimal(cross[0]["equity"]) == 1000
    assert cross[1]["maintenance_margin"] == cross[0]["maintenance_margin"]


def test_opening_and_closing_at_the_mark_leaves_the_equity(known: VenueTables) -> None:
    """A trade at the mark price, without fees, changes nobody's equity; closing all of it leaves no position of it."""
    name = orjson.loads(BOOK[0])["account"]["positions"][0]["instrument"]

    def equity(answer: dict[str, Any]) -> Decimal:
        return sum((Decimal(pool["equity"]) for pool in answer["account"]["pools"]), Decimal(0))

    before = equity(asked(BOOK[0], known))
    assert abs(equity(asked(BOOK[0], known, ("trade", f"{name}:1.5"))) - before) < Decimal("1e-9")
    closed = asked(BOOK[0], known, ("close", name))
    assert abs(equity(closed) - before) < Decimal("1e-9")
    assert all(row["instrument"] != name for row in closed["document"]["account"]["positions"])


def test_a_move_of_one_asset_moves_its_instruments_only(known: VenueTables) -> None:
    """`move=BTC:-10` takes a tenth off the marks of BTC and leaves the others."""
    data = next(
        data
        for data in BOOK
        if len({row["instrument"] for row in orjson.loads(data)["account"]["positions"]} & {"BTCUSDT", "ETHUSDT"}) == 2
    )
    before = asked(data, known)["document"]["prices"]["mark"]
    after = asked(data, known, ("move", "BTC:-10"))["document"]["prices"]["mark"]
    assert Decimal(after["BTCUSDT"]) == Decimal(before["BTCUSDT"]) * Decimal("0.9")
    assert after["ETHUSDT"] == before["ETHUSDT"]


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        (("move", "51"), "-50 to 50 percent"),
        (("move", "nan"), "a number"),
        (("move", "NOTHING:5"), "an asset"),
        (("trade", "NOTHING:5"), "an instrument"),
        (("close", "NOTHING"), "a position"),
        (("deposit", "USDT"), "deposit=ASSET:AMOUNT"),
        (("deposit", "USDT:1e400"), "a number"),
        (("sell", "all"), "move=[ASSET:]PERCENT"),
    ],
)
def test_what_cannot_be_done_is_refused(pair: tuple[str, str], said: str, known: VenueTables) -> None:
    """The refusal says what was expected."""
    with pytest.raises(RefusedError) as caught:
        asked(BOOK[0], known, pair)
    assert said in str(caught.value)
