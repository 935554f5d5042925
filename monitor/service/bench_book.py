"""Large books for benchmarks: accounts of ten linear positions each, written into a ledger as the daemon writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from monitor.ledger.changes import DocumentChange
from monitor.ledger.connection import Endpoint, Link
from monitor.ledger.identity import identify
from monitor.ledger.partition import Partition

__all__ = ["bench_documents", "fill_ledger"]

POSITIONS = 10


def bench_documents(count: int, prices: Mapping[str, float], *, seed: int = 7) -> Iterator[tuple[str, bytes]]:
    """(account, document) of ten positions each, or as many as there are prices.

    Instruments by Zipf popularity, sizes log-normal, one account in a hundred within 5 % of the margin call, the others far from it.
    """
    names, marks = list(prices), np.array(list(prices.values()))
    rng = np.random.default_rng(seed)
    most = min(POSITIONS, len(names))
    log_popularity = -np.log(np.arange(1, len(names) + 1))
    for first in range(0, count, 5000):
        size = min(5000, count - first)
        chosen = np.argpartition(-(log_popularity + rng.gumbel(size=(size, len(names)))), most - 1, axis=1)[:, :most]
        notional = np.exp(rng.normal(np.log(5_000), 1.5, (size, most)))
        entry = marks[chosen] * np.exp(rng.normal(0, 0.05, (size, most)))
        quantity = rng.choice([-1.0, 1.0], (size, most)) * notional / marks[chosen]
        gain = (quantity * (marks[chosen] - entry)).sum(axis=1)
        ratio = np.exp(rng.uniform(np.log(0.01), np.log(0.6), size))
        near = rng.random(size) < 0.01
        ratio[near] = 0.8 * rng.uniform(0.95, 1.05, near.sum())
        wallet = notional.sum(axis=1) * 0.01 / ratio - gain
        for row, (instruments, units, paid, cash) in enumerate(
            zip(chosen.tolist(), quantity.tolist(), entry.tolist(), wallet.tolist(), strict=True), start=first
        ):
            positions = ",".join(
                f'{{"instrument":"{names[s]}","quantity":"{q:.6f}","entry_price":"{e:.8f}"}}'
                for s, q, e in zip(instruments, units, paid, strict=True)
            )
            account = f"acct-{row:07d}"
            yield (
                account,
                f'{{"version":1,"sequence":1,"account":{{"id":"{account}","venue":"binance_usdm","group":"desk-{row % 4}",'
                f'"balances":[{{"asset":"USDT","wallet":"{cash:.4f}"}}],"positions":[{positions}]}}}}'.encode(),
            )


async def fill_ledger(url: str, documents: Iterable[tuple[str, bytes]], *, progress: Callable[[int], None] = lambda _done: None) -> None:
    """Makes an empty database a ledger of one partition that holds these accounts."""
    ledger = await identify(Link(Endpoint.parse(url)), 1)
    partition = Partition(Link(Endpoint.parse(url)), 0, holder="bench", ledger=ledger, partitions=1)
    await partition.lead(60.0)
    await partition.load(lambda _account, _document, _hold: None)
    batch: list[DocumentChange] = []
    done = 0
    for account, document in documents:
        batch.append(DocumentChange(account, 0, 1, document))
        if len(batch) == 2000:
            await partition.commit(batch)
            done, batch = done + len(batch), []
            progress(done)
    if batch:
        await partition.commit(batch)
    await partition.release()
