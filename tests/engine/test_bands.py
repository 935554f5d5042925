"""The safety of bands: the worst-corner attack on every additive rule set, and that it finds faults that are planted."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from monitor.engine.bands import cube_root
from monitor.engine.evaluator import Evaluator
from tests.support.band_attack import KINDS, attack

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("kind", KINDS)
def test_no_corner_of_a_band_changes_a_level(kind: str) -> None:
    """Whatever corner of their bands the prices of a pool stand in, its level is what it was when the band was laid."""
    assert attack(random.Random(f"attack {kind}"), 90, kinds=(kind,)) == []


def leave_threshold_forgotten(engine: Evaluator) -> None:
    """Only what makes it worse is watched."""
    engine._lines[2:, 1:4] = 0


def long_always_safe_upwards(engine: Evaluator) -> None:
    """No rate is ever above a threshold."""
    engine._book.schedules.data["highest"] = 0


def whole_position_tiers_not_clipped(engine: Evaluator) -> None:
    """A schedule that jumps is taken for one that does not."""
    for name in ("jump", "jumps"):
        engine._book.schedules.data[name] = 0


def debt_at_the_weight_of_a_holding(engine: Evaluator) -> None:
    """The slope of an amount is the weight of a holding, also where it is a debt."""
    data = engine._book.schedules.data
    data["highest"] = np.minimum(data["highest"], 0.5)


@pytest.mark.parametrize(
    ("fault", "kinds", "pools"),
    [
        (leave_threshold_forgotten, KINDS, 60),
        (long_always_safe_upwards, ("linear",), 250),
        (whole_position_tiers_not_clipped, ("linear", "isolated"), 400),
        (debt_at_the_weight_of_a_holding, ("multi",), 400),
    ],
)
def test_planted_faults_are_found(fault: Callable[[Evaluator], None], kinds: tuple[str, ...], pools: int) -> None:
    """The attack finds each fault, so it would find it in the code as well."""
    assert attack(random.Random(fault.__name__), pools, fault, kinds, enough=1)


def test_cube_root() -> None:
    """The cheap cube root is within 6% over the range of squared slopes times variances."""
    for exponent in range(-40, 60):
        x = 1.37 * 10.0**exponent
        assert abs(cube_root(x) / x ** (1 / 3) - 1) < 0.06


MUTANTS = {
    "collateral slope without the weight of debts": ("w_equity = max(w_equity, debt)", "w_equity = w_equity", 3000),
    "no slope of requirements in the index price": ("gu = price * (cu * size + bu * asset.ask * margin)", "gu = price * cu * size", 3000),
    "slopes at the centre": ("s.rate if top <= s.upto else s.beyond", "s.rate if top >= 0.0 else s.beyond", 3000),
    "slopes of amounts at the centre": ("if amount - D * R < 0.0:", "if amount < 0.0:", 3000),
    "long always safe upwards": ("rise_open = (au * S >= bu * whole)", "rise_open = (S > 0.0)", 1500),
    "leave threshold forgotten": ("if lines[2, level] != 0.0:", "if level < 0:", 500),
    "no clip at whole-position tiers": (
        "if s.jumps > allowed:\n                whole",
        "if s.jumps > 1e300:\n                whole",
        3000,
    ),
    "a band 1 % too wide": ("SHARE: Final = 0.999", "SHARE: Final = 1.012", 1500),
    "half of the collateral slope": ("(1.0 + R) * (cu * abs(S)", "(1.0 + R) * (0.5 * cu * abs(S)", 2000),
}


def test_mutants_are_of_this_source() -> None:
    """Every line that a mutant changes is there, so that none of them passes for found because it changes nothing."""
    text = (ROOT / "monitor" / "engine" / "bands.py").read_text()

    assert {name: text.count(old) for name, (old, _, _) in MUTANTS.items()} == dict.fromkeys(MUTANTS, 1)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_found(name: str, tmp_path: Path) -> None:
    """Each fault, written into a copy of the source, is found by the attack."""
    old, new, pools = MUTANTS[name]
    for package in ("monitor", "tests"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    source = tmp_path / "monitor" / "engine" / "bands.py"
    text = source.read_text()
    assert text.count(old) >= 1
    source.write_text(text.replace(old, new))
    command = [sys.executable, "-m", "tests.support.band_attack", str(pools), "7"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )

    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["broken"] > 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_long_attack() -> None:
    """28,800 pools, a third of a million corners and more: none broken."""
    assert attack(random.Random("long"), 28_800) == []
