"""What people ask of the alert policy: a silence, its end, an acknowledgement."""

from __future__ import annotations

from typing import NamedTuple

import orjson

from monitor.alerting.policy import Notifier, Silence

__all__ = ["Request", "acknowledgement", "perform"]


class Request(NamedTuple):
    """One request.

    Attributes:
        place: Where it waits.
        kind: `silence`, `unsilence` or `acknowledge`.
        data: A silence's JSON; a silence's id; account, pool and rule as `acknowledgement` prints them.
    """

    place: str
    kind: str
    data: bytes


def acknowledgement(account: str, pool: str = "*", about: str = "*") -> bytes:
    """The data of an `acknowledge`. Patterns with `*`."""
    return orjson.dumps({"account": account, "pool": pool, "about": about})


def perform(notifier: Notifier, request: Request, now_ms: int) -> None:
    """Does what is asked; done twice it changes nothing more. Raises ValueError for what makes no sense."""
    match request.kind:
        case "silence":
            notifier.silence(Silence.of_json(request.data), now_ms)
        case "unsilence":
            notifier.unsilence(request.data.decode(), now_ms)
        case "acknowledge":
            wanted = orjson.loads(request.data)
            try:
                notifier.acknowledge(now_ms, account=wanted["account"], pool=wanted["pool"], about=wanted["about"])
            except (KeyError, TypeError) as error:
                raise ValueError(f"not an acknowledgement: {error}") from None
        case _:
            raise ValueError(f"not a request: {request.kind!r}")
