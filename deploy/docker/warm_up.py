"""Compiles every kernel of the engine into NUMBA_CACHE_DIR while the image is built, so that a container starts at once."""

from __future__ import annotations

from decimal import Decimal

from monitor.engine.evaluator import Evaluator

__all__: list[str] = []

if __name__ == "__main__":
    Evaluator(exact=lambda _account, _pool, _source, _prices: (Decimal(1), Decimal(0))).warm_up()
