"""The systemd units: sandboxed to a score, watched, and one like the other."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.support.commands import needs, output_of

_FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "systemd"
_UNITS = ("margin-monitor.service", "margin-monitor@.service")
_EXPOSURE = 2.0


@needs("systemd-analyze")
@pytest.mark.parametrize("unit", _UNITS)
def test_the_unit_is_sandboxed(unit: str) -> None:
    """`systemd-analyze security` rates it at 2.0 or better (0 is best)."""
    code, text = output_of(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", f"--threshold={int(_EXPOSURE * 10)}", str(_FOLDER / unit)]
    )

    exposure = re.search(r"Overall exposure level for \S+: (\d+\.\d+)", text)
    assert exposure is not None, text
    assert code == 0
    assert float(exposure[1]) <= _EXPOSURE


@needs("systemd-analyze")
@pytest.mark.parametrize("unit", _UNITS)
def test_systemd_understands_the_unit(unit: str, tmp_path: Path) -> None:
    """No unknown key, no value that is ignored; the program is there."""
    program = tmp_path / "margin-monitor"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    text = (_FOLDER / unit).read_text(encoding="utf-8")
    (tmp_path / unit).write_text(text.replace("/opt/margin-monitor/.venv/bin/margin-monitor", str(program)), encoding="utf-8")
    name = unit.replace("@", "@0-4")

    code, said = output_of(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / unit).replace(unit, name) if "@" not in unit else str(tmp_path / unit)]
    )

    about_it = [line for line in said.splitlines() if "margin-monitor" in line]
    assert (code, about_it) == (0, [])


def test_the_daemon_is_watched_and_reloaded() -> None:
    """Ready when it says so, killed when its evaluator stands still, started again whatever happens, reloaded by SIGHUP."""
    text = (_FOLDER / _UNITS[0]).read_text(encoding="utf-8")

    for line in ("Type=notify", "WatchdogSec=20s", "Restart=always", "ExecReload=/bin/kill -HUP $MAINPID", "DynamicUser=yes"):
        assert line in text.splitlines()


@pytest.mark.parametrize("unit", _UNITS)
def test_the_daemon_understands_its_command_line(unit: str, tmp_path: Path) -> None:
    """Of the whole command line it refuses only the settings file, which is not there."""
    absent = tmp_path / "absent.toml"
    (line,) = re.findall(r"^ExecStart=\S+ (.+)$", (_FOLDER / unit).read_text(encoding="utf-8"), re.MULTILINE)
    arguments = line.replace("/etc/margin-monitor/margin-monitor.toml", str(absent)).replace("%I", "0/4").split()

    code, text = output_of([sys.executable, "-m", "monitor", *arguments], cwd=_FOLDER.parents[1])

    assert code == 2
    assert text.startswith(f"margin-monitor: {absent}: (file)"), text


def test_the_units_differ_in_what_a_shard_needs_only() -> None:
    """A line added to one is added to the other."""
    one, many = ((_FOLDER / unit).read_text(encoding="utf-8").splitlines()[2:] for unit in _UNITS)
    same_again = [
        line.replace(", shard %I", "")
        .replace(" --stage evaluator,alerts --shard %I", "")
        .replace("margin-monitor-%i", "margin-monitor")
        .replace("@.service", ".service")
        for line in many
    ]

    assert [line for line in one if line not in same_again] == []
    assert len(one) == len(many)
