"""The documents of the accounts this process evaluates, kept as bytes and parsed when a person or an event needs one.

A million parsed accounts would not fit in memory; their bytes do, in the packed form where an account has one. The last few thousand
parsed ones are remembered.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from monitor.margin.pools import MarginPool, cut
from monitor.margin.tables import Tables
from monitor.wire.documents import Document, parse_document, read_document
from monitor.wire.packed import Place, document_of, hash_of, instrument_hash, is_plain, pack, place_of

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
        self._stored: dict[str, bytes] = {}  # a packed record, or a document
        self._parsed: OrderedDict[str, Held] = OrderedDict()
        self._places: dict[bytes, Place] = {}
        self._names: dict[int, str] = {}
        self._others: dict[str, tuple[str, str]] = {}  # venue and group of accounts that are not packed
        self._currencies: dict[tuple[str, str], str] = {}  # of their pools that are not in a currency at par with USD

    def __len__(self) -> int:
        """How many accounts."""
        return len(self._stored)

    def __iter__(self) -> Iterator[str]:
        """Account ids."""
        return iter(self._stored)

    def __contains__(self, account_id: str) -> bool:
        """Whether the account is held."""
        return account_id in self._stored

    def is_new(self, account_ids: Sequence[str]) -> bool:
        """Whether none of these accounts is held."""
        return self._stored.keys().isdisjoint(account_ids)

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
        document = held.document
        account = document.account
        assert account is not None
        self._forget(account.id)
        record = pack(account.id, document.epoch, document.sequence or 0, data)
        if is_plain(record):
            self.know(position.instrument for position in account.positions)
            self._stored[account.id] = record
        else:
            self._stored[account.id] = data
            self._others[account.id] = (sys.intern(account.venue), sys.intern(account.group or ""))
            for name, pool in held.pools.items():
                if pool.currency not in AT_PAR:
                    self._currencies[account.id, name] = sys.intern(pool.currency)
        self._remember(account.id, held)

    def keep_packed(self, accounts: Sequence[str], records: Sequence[bytes]) -> None:
        """Takes new accounts in their packed form, without parsing them. Their instruments have to be known (`know`)."""
        self._stored.update(zip(accounts, records, strict=True))

    def know(self, instruments: Iterable[str]) -> None:
        """Remembers names that packed records may hold."""
        for name in instruments:
            self._names[instrument_hash(name)] = name

    def currency(self, account_id: str, pool: str) -> str | None:
        """Currency of a pool, without parsing its account; None for one at par with USD."""
        stored = self._stored[account_id]
        if is_plain(stored):
            asset = self._place(stored).asset
            return None if asset in AT_PAR else asset
        return self._currencies.get((account_id, pool))

    def venue_and_group(self, account_id: str) -> tuple[str, str]:
        """Venue and group ("" for none) of an account, without parsing it. Raises KeyError."""
        stored = self._stored[account_id]
        if is_plain(stored):
            place = self._place(stored)
            return place.venue, place.group
        return self._others[account_id]

    def remove(self, account_id: str) -> None:
        """Forgets an account."""
        self._forget(account_id)
        self._stored.pop(account_id, None)
        self._parsed.pop(account_id, None)

    def stored(self, account_id: str) -> bytes:
        """The account as it is held, for `held_of`: a reference that costs nothing to keep. Raises KeyError."""
        return self._stored[account_id]

    def held_of(self, account_id: str, stored: bytes, now: datetime) -> Held:
        """The account parsed as it was held once."""
        if self._stored.get(account_id) is stored:
            return self.held(account_id, now)
        return self.parse(self._document(account_id, stored), now, stored=True)

    def data(self, account_id: str) -> bytes:
        """The account's document, or one that says the same. Raises KeyError."""
        return self._document(account_id, self._stored[account_id])

    def document_hash(self, account_id: str) -> str:
        """First 128 bits of the SHA-256 of the document as it came. Raises KeyError."""
        return self.hash_of(self._stored[account_id])

    def hash_of(self, stored: bytes) -> str:
        """`document_hash` of what `stored` gave."""
        return hash_of(stored) if is_plain(stored) else sha256(stored).hexdigest()[:32]

    def _document(self, account_id: str, stored: bytes) -> bytes:
        return document_of(account_id, stored, self._names) if is_plain(stored) else stored

    def held(self, account_id: str, now: datetime) -> Held:
        """The parsed account. Raises KeyError when it is not held."""
        held = self._parsed.get(account_id)
        if held is None:
            held = self.parse(self.data(account_id), now, stored=True)
            self._remember(account_id, held)
        else:
            self._parsed.move_to_end(account_id)
        return held

    def _place(self, record: bytes) -> Place:
        key = place_of(record)
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = Place.of(key)
        return place

    def _forget(self, account_id: str) -> None:
        if self._others.pop(account_id, None) is not None and self._currencies:
            for key in [key for key in self._currencies if key[0] == account_id]:
                del self._currencies[key]

    def _remember(self, account_id: str, held: Held) -> None:
        self._parsed[account_id] = held
        self._parsed.move_to_end(account_id)
        while len(self._parsed) > REMEMBERED:
            self._parsed.popitem(last=False)
