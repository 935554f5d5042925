"""The packed form of an account that is nothing but linear positions beside one balance, as most of a large book are.

    plain     1 | epoch sequence check hash wallet positions | instrument quantity entry leverage, each position | venue asset group | crc32
    other     0 | crc32                                                                                           read the document

It is made from a document and stored beside it. The document stays the truth; `check` and `hash` are of its bytes. The form holds no more
and no less than the document says: an account with any other field, or a number that a float64 does not carry to the last digit, is left
to its document. Instruments stand there as a hash of their names; which names there are is known from the tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b, sha256
from itertools import chain
from operator import itemgetter
from struct import Struct, error
from typing import Any, Final
from zlib import crc32

import numpy as np
import numpy.typing as npt
import orjson

__all__ = [
    "PackedAccounts",
    "Place",
    "columns_of",
    "document_of",
    "hash_of",
    "instrument_hash",
    "is_plain",
    "is_sound",
    "left_to_document",
    "pack",
    "place_of",
    "version_of",
]

Array = npt.NDArray[Any]

PLAIN: Final = 1
OTHER: Final = b"\0"

_HEAD = Struct("<BqqI16sdH")  # form, epoch, sequence, crc32 and half the SHA-256 of the document, wallet, number of positions
_HEAD_TYPE = np.dtype({"names": ["wallet", "legs"], "formats": ["<f8", "<u2"], "offsets": [37, 45], "itemsize": 47})
_VERSION = Struct("<qqI")
_COUNT = Struct("<H")
_CRC = Struct("<I")
_LEG = "8sddB"
_LEG_TYPE = np.dtype([("instrument", "<u8"), ("quantity", "<f8"), ("entry", "<f8"), ("leverage", "u1")])
_RESIDUE = 0x2144DF1C
"""The crc32 of anything with its own crc32 behind it."""

_DOCUMENT = frozenset(("version", "sequence", "epoch", "account"))
_ACCOUNT = frozenset(("id", "venue", "group", "balances", "positions"))
_INSTRUMENT, _QUANTITY, _ENTRY_PRICE = itemgetter("instrument"), itemgetter("quantity"), itemgetter("entry_price")
_DIGITS = 15
"""Decimals of so many digits come back from a float64 unchanged."""


class _Hashes(dict[str, bytes]):
    """Hash by name of an instrument, worked out once."""

    def __missing__(self, name: str) -> bytes:
        found = self[name] = blake2b(name.encode(), digest_size=8).digest()
        return found


_hashes = _Hashes()


def instrument_hash(name: str) -> int:
    """How an instrument is named in the packed form."""
    return int.from_bytes(_hashes[name], "little")


def pack(account: str, epoch: int, sequence: int, document: bytes) -> bytes:
    """The sealed record of an account whose document was found valid."""
    body = _plain(epoch, sequence, document)
    return _sealed(account, OTHER if body is None else body)


def left_to_document(account: str) -> bytes:
    """The sealed record of an account of which only the document tells."""
    return _sealed(account, OTHER)


def _sealed(account: str, body: bytes) -> bytes:
    return body + _CRC.pack(crc32(body, crc32(account.encode())))


def _plain(epoch: int, sequence: int, document: bytes) -> bytes | None:
    body = orjson.loads(document)
    account = body.get("account") if isinstance(body, dict) else None
    if not isinstance(account, dict) or not body.keys() <= _DOCUMENT or not account.keys() <= _ACCOUNT:
        return None
    balances, positions = account.get("balances"), account.get("positions")
    if not positions or balances is None or len(balances) != 1 or balances[0].keys() != {"asset", "wallet"}:
        return None
    names = [*map(_INSTRUMENT, positions)]
    count = len(names)
    sizes = {*map(len, positions)}
    try:
        numbers = [balances[0]["wallet"], *map(_QUANTITY, positions), *map(_ENTRY_PRICE, positions)]
        leverages = (0,) * count if sizes == {3} else [_leverage(position) for position in positions]
    except LookupError:
        return None
    if len({*names}) != count or not _are_floats(numbers):
        return None
    values = [*map(float, numbers)]
    legs = zip(map(_hashes.__getitem__, names), values[1 : count + 1], values[count + 1 :], leverages, strict=True)
    place = "\0".join((account["venue"], balances[0]["asset"], account.get("group") or ""))
    hashed = sha256(document).digest()[:16]
    try:
        head = _HEAD.pack(PLAIN, epoch, sequence, crc32(document), hashed, values[0], count)
    except error:  # a sequence beyond 63 bits, more than 65,535 positions
        return None
    return b"".join((head, _legs_of(count).pack(*chain.from_iterable(legs)), place.encode()))


@lru_cache(256)
def _legs_of(count: int) -> Struct:
    return Struct("<" + _LEG * count)


def _leverage(position: Mapping[str, Any]) -> int:
    """Leverage of a position that has one beside the three, 0 of one that has those alone; raises LookupError for any other."""
    if len(position) == 3:
        return 0
    leverage = str(position["leverage"])
    if len(position) != 4 or not leverage.isdecimal() or not 0 < int(leverage) < 256:
        raise LookupError(leverage)
    return int(leverage)


def _are_floats(numbers: Sequence[Any]) -> bool:
    """Whether each number, as it stands in the document, is carried by a float64 to its last digit."""
    if {*map(type, numbers)} == {str}:
        text = "".join(numbers)
        if "e" in text or "E" in text:
            return False
        return max(map(len, numbers)) <= _DIGITS or all(sum(map(str.isdecimal, number)) <= _DIGITS for number in numbers)
    return all(
        _are_floats([number]) if type(number) is str else type(number) is float or (type(number) is int and abs(number) <= 2**53)
        for number in numbers
    )


def is_sound(account: bytes, record: bytes) -> bool:
    """Whether a record is whole, unaltered and of this account."""
    return crc32(record, crc32(account)) == _RESIDUE


def is_plain(record: bytes) -> bool:
    """Whether a sound record says all that the document says."""
    return record[0] == PLAIN


def version_of(record: bytes) -> tuple[int, int, int]:
    """(epoch, sequence, crc32 of the document) of a plain record."""
    return _VERSION.unpack_from(record, 1)


def hash_of(record: bytes) -> str:
    """First 128 bits of the SHA-256 of the document, of a plain record."""
    return record[21:37].hex()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a plain account belongs. `group` is "" for none."""

    venue: str
    asset: str
    group: str

    @classmethod
    def of(cls, key: bytes) -> Place:
        """The place that `place_of` gives."""
        return cls(*key.decode().split("\0"))


def place_of(record: bytes) -> bytes:
    """Venue, asset and group of a plain record, as one key: equal for accounts of one place."""
    (count,) = _COUNT.unpack_from(record, _HEAD.size - 2)
    return record[_HEAD.size + _LEG_TYPE.itemsize * count : -4]


def document_of(account: str, record: bytes, names: Mapping[int, str]) -> bytes:
    """A document that says what a plain record says: the stored one but for how its numbers and keys are written.

    `names` by `instrument_hash`. Raises KeyError for one that is not there.
    """
    _, epoch, sequence, _, _, wallet, count = _HEAD.unpack_from(record)
    place = Place.of(place_of(record))
    positions = []
    for name, quantity, entry, leverage in np.frombuffer(record, _LEG_TYPE, count, _HEAD.size).tolist():
        position = {"instrument": names[name], "quantity": repr(quantity), "entry_price": repr(entry)}
        positions.append(position | {"leverage": str(leverage)} if leverage else position)
    body: dict[str, Any] = {"id": account, "venue": place.venue} | ({"group": place.group} if place.group else {})
    body |= {"balances": [{"asset": place.asset, "wallet": repr(wallet)}], "positions": positions}
    return orjson.dumps({"version": 1, "epoch": epoch, "sequence": sequence, "account": body})


@dataclass(frozen=True, slots=True)
class PackedAccounts:
    """Plain accounts as columns.

    Attributes:
        places: By account, as `place_of` gives it. wallets, counts: By account.
        instruments, quantities, entries: By position; an instrument as `instrument_hash` names it.
    """

    places: Sequence[bytes]
    wallets: Array
    counts: Array
    instruments: Array
    quantities: Array
    entries: Array


def columns_of(records: Sequence[bytes]) -> PackedAccounts:
    """The columns of plain records."""
    size, leg = _HEAD.size, _LEG_TYPE.itemsize
    heads = np.frombuffer(b"".join([record[:size] for record in records]), _HEAD_TYPE)
    ends = (heads["legs"].astype(np.int64) * leg + size).tolist()
    legs = np.frombuffer(b"".join([record[size:end] for record, end in zip(records, ends, strict=True)]), _LEG_TYPE)
    places = [record[end:-4] for record, end in zip(records, ends, strict=True)]
    return PackedAccounts(places, heads["wallet"], heads["legs"].astype(np.int32), legs["instrument"], legs["quantity"], legs["entry"])
