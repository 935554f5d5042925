"""The documents of the accounts this process evaluates, kept as bytes and parsed when a person or an event needs one.

A million parsed accounts would not fit in memory; their bytes do. The last few thousand parsed ones are remembered.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from monitor.margin.pools import MarginPool, cut
from monitor.margin.tables import Tables
from monitor.wire.documents import Document, parse_document, read_document

__all__ = ["AccountBook", "Held"]

REMEMBERED = 4_096

AT_PAR = frozenset({"USD", "USDT", "USDC", "FDUSD", "BUSD", "DAI"})
"""Currencies that count as USD in sums for people. Margin is never computed with this."""


@dataclass(frozen=True, slots=True)
class Held:
    """One account, parsed: its document, its tables (the document's own over the venue's), its margin pools by name."""

    document: Document
    pools: dict[str, MarginPool]


class AccountBook:
    """Documents by account id. `known` gives the configured tables of a venue."""

    def __init__(self, known: Callable[[str], Tables]) -> None:
        self.known = known
        self._bytes: dict[str, bytes] = {}
        self._parsed: OrderedDict[str, Held] = OrderedDict()
        self._venue_and_group: dict[str, tuple[str, str]] = {}
        self._shared: dict[tuple[str, str], tuple[str, str]] = {}
        self._currencies: dict[tuple[str, str], str] = {}  # of pools that are not in a currency at par with USD

    def __len__(self) -> int:
        """How many accounts."""
        return len(self._bytes)

    def __iter__(self) -> Iterator[str]:
        """Account ids."""
        return iter(self._bytes)

    def __contains__(self, account_id: str) -> bool:
        """Whether the account is held."""
        return account_id in self._bytes

    def parse(self, data: bytes, now: datetime, *, stored: bool = False) -> Held:
        """Reads a document, without keeping it. Raises RefusedError when it is not one, or names a rule set that is not there.

        `stored`: it comes from the ledger, where it was valid once: an instrument may have expired since.
        """
        document = read_document(parse_document(data), purpose="stream", known=self.known, now=None if stored else now)
        if document.account is None:
            return Held(document, {})
        tables = document.tables.over(self.known(document.account.venue))
        return Held(document, {pool.name: pool for pool in cut(document.account, tables, now)})

    def keep(self, data: bytes, held: Held) -> None:
        """Takes a parsed document in place of the account's earlier one."""
        account = held.document.account
        assert account is not None
        self._bytes[account.id] = data
        where = (account.venue, account.group or "")
        self._venue_and_group[account.id] = self._shared.setdefault(where, where)
        self._forget_currencies(account.id)
        for name, pool in held.pools.items():
            if pool.currency not in AT_PAR:
                self._currencies[account.id, name] = sys.intern(pool.currency)
        self._remember(account.id, held)

    def keep_plain(self, account_id: str, data: bytes, venue: str, group: str, pool: str, currency: str) -> None:
        """Takes the document of a new account with one pool, without parsing it."""
        self._bytes[account_id] = data
        self._venue_and_group[account_id] = self._shared.setdefault((venue, group), (venue, group))
        if currency not in AT_PAR:
            self._currencies[account_id, pool] = sys.intern(currency)

    def currency(self, account_id: str, pool: str) -> str | None:
        """Currency of a pool, without parsing its account; None for one at par with USD."""
        return self._currencies.get((account_id, pool))

    def venue_and_group(self, account_id: str) -> tuple[str, str]:
        """Venue and group ("" for none) of an account, without parsing it. Raises KeyError."""
        return self._venue_and_group[account_id]

    def remove(self, account_id: str) -> None:
        """Forgets an account."""
        self._bytes.pop(account_id, None)
        self._parsed.pop(account_id, None)
        self._venue_and_group.pop(account_id, None)
        self._forget_currencies(account_id)

    def data(self, account_id: str) -> bytes:
        """The document's bytes. Raises KeyError."""
        return self._bytes[account_id]

    def held(self, account_id: str, now: datetime) -> Held:
        """The parsed account. Raises KeyError when it is not held."""
        held = self._parsed.get(account_id)
        if held is None:
            held = self.parse(self._bytes[account_id], now, stored=True)
            self._remember(account_id, held)
        else:
            self._parsed.move_to_end(account_id)
        return held

    def _forget_currencies(self, account_id: str) -> None:
        for key in [key for key in self._currencies if key[0] == account_id] if self._currencies else ():
            del self._currencies[key]

    def _remember(self, account_id: str, held: Held) -> None:
        self._parsed[account_id] = held
        self._parsed.move_to_end(account_id)
        while len(self._parsed) > REMEMBERED:
            self._parsed.popitem(last=False)
