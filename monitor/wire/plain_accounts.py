"""Documents that are nothing but linear positions in one cross pool, read straight into columns: what most accounts of a large book are.

Only for documents that were checked when they were stored. Whatever says more than wallet, instruments, quantities and entry prices is
left to `documents.read_document`.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from operator import itemgetter
from typing import Any

import orjson

__all__ = ["PlainPools", "plain_account"]

_DOCUMENT = frozenset(("version", "sequence", "epoch", "account"))
_ACCOUNT = frozenset(("id", "venue", "group", "balances", "positions"))
_INSTRUMENT, _QUANTITY, _ENTRY_PRICE = itemgetter("instrument"), itemgetter("quantity"), itemgetter("entry_price")


def plain_account(data: bytes) -> dict[str, Any] | None:
    """The account of a stored document that has no more than balances and positions; None for any other."""
    body = orjson.loads(data)
    account = body.get("account")
    if account is None or not body.keys() <= _DOCUMENT or not account.keys() <= _ACCOUNT:
        return None
    balances = account.get("balances")
    if balances is None or len(balances) != 1 or len(balances[0]) != 2 or "wallet" not in balances[0] or not account["positions"]:
        return None
    return account  # type: ignore[no-any-return]


class PlainPools:
    """Pools of one venue and asset as they are gathered.

    Attributes:
        accounts: Ids. wallets, counts: By pool. quantities, entries, instruments: By leg.
    """

    def __init__(self, number_of: Callable[[str], int]) -> None:
        """Starts empty. `number_of` numbers an instrument of the asset; -1 where it has to be read in full."""
        self.accounts: list[str] = []
        self.wallets, self.counts = array("d"), array("i")
        self.quantities, self.entries, self.instruments = array("d"), array("d"), array("i")
        self._number_of = number_of
        self._numbers: dict[str, int] = {}

    def take(self, account: dict[str, Any]) -> bool:
        """Adds an account; False, and nothing is added, when it has to be read in full."""
        positions = account["positions"]
        numbers = self._numbers
        names = [*map(_INSTRUMENT, positions)]
        try:
            instruments = [*map(numbers.__getitem__, names)]
        except KeyError:
            for name in set(names) - numbers.keys():
                numbers[name] = self._number_of(name)
            instruments = [*map(numbers.__getitem__, names)]
        if min(instruments) < 0:
            return False
        if {*map(len, positions)} != {3} and not all(len(row) == 3 or (len(row) == 4 and "leverage" in row) for row in positions):
            return False
        try:
            quantities = [*map(float, map(_QUANTITY, positions))]
            entries = [*map(float, map(_ENTRY_PRICE, positions))]
        except KeyError:
            return False
        self.accounts.append(account["id"])
        self.wallets.append(float(account["balances"][0]["wallet"]))
        self.counts.append(len(positions))
        self.quantities.extend(quantities)
        self.entries.extend(entries)
        self.instruments.extend(instruments)
        return True
