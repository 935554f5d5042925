"""Where the reference material beside the checkout is, and how a test says that it needs it."""

from __future__ import annotations

from pathlib import Path

import pytest

__all__ = ["SHARED", "needs_shared"]

_beside = Path(__file__).resolve().parents[3] / "shared"

SHARED: Path = _beside
"""The folder `shared` beside the checkout; may be absent in a stranger's clone."""

needs_shared = pytest.mark.skipif(not (_beside / "venues").is_dir(), reason="needs ../shared (reference captures, not part of the project)")
"""Leaves a test out, by name and with the reason, where the reference material is absent."""
