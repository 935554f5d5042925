"""What the ledger's tests share: a real redis-server each, and a held partition."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from monitor.ledger.identity import identify
from monitor.ledger.partition import Partition
from tests.support.redis import Redis, redis_server

Lead = Callable[..., Awaitable[Partition]]


@pytest.fixture
async def redis() -> AsyncIterator[Redis]:
    """A redis-server with the ledger's settings, for this test alone."""
    async with redis_server() as server:
        yield server


@pytest.fixture
async def lead(redis: Redis) -> AsyncIterator[Lead]:
    """Makes partitions of one ledger that are held and loaded; each call is another holder."""
    made: list[Partition] = []

    async def make(*, lease_s: float = 60.0, link: Any = None, held: bool = True, **options: Any) -> Partition:
        ledger = await identify(redis.link(), 1)
        partition = Partition(link or redis.link(), 0, holder=f"test:{secrets.token_hex(4)}", ledger=ledger, partitions=1, **options)
        made.append(partition)
        if held:
            await partition.lead(lease_s)
            await partition.load(lambda _account, _document, _hold: None)
        return partition

    yield make
    for partition in made:
        partition.close()
