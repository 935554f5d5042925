"""What a reader asks of the account list, read from the parameters of a request."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.exceptions import HTTPException

__all__ = ["MAX_PAGE", "AccountQuery", "whole"]

MAX_PAGE = 1_000


class AccountQuery:
    """What a reader asks of the account list."""

    __slots__ = ("group", "level", "limit", "offset", "order", "search", "venue")

    def __init__(self, parameters: Mapping[str, str]) -> None:
        self.limit = whole(parameters, "limit", 50, MAX_PAGE)
        self.offset = whole(parameters, "offset", 0, 10**9)
        self.order = parameters.get("order", "danger")
        if self.order not in ("danger", "id"):
            raise HTTPException(400, f"order: {self.order!r}: expected danger or id")
        self.group = parameters.get("group")
        self.venue = parameters.get("venue")
        self.level = parameters.get("level")
        self.search = parameters.get("search")


def whole(parameters: Mapping[str, str], name: str, default: int, highest: int) -> int:
    """A whole number among the parameters. Raises HTTPException 400."""
    text = parameters.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or int(text) > highest:
        raise HTTPException(400, f"{name}: {text!r}: expected a whole number from 0 to {highest}")
    return int(text)
