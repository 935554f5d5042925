"""500 broken settings files: each is refused with exit code 2 and one line that names file, line and key."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from monitor.service import cli
from tests.support.broken_configs import broken_configs

ROOT = Path(__file__).resolve().parents[2]


def check(file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """Exit code of `check-config`, and what it said."""
    monkeypatch.setattr(sys, "argv", ["margin-monitor", "check-config", str(file)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code, capsys.readouterr().err


def test_each_is_refused_with_file_line_and_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong types and ranges, misspelt and unknown keys, no TOML, missing and unusable files, conflicts, inline secrets."""
    documented = (ROOT / "config" / "margin-monitor.toml").read_text()
    (tmp_path / "x").mkdir()
    file = tmp_path / "settings.toml"
    other_files = {tmp_path / "x" / name for name in ("policy.toml", "no_table.json")}  # there the fault is in the named file
    for text in broken_configs(documented, tmp_path / "x", 500):
        file.write_text(text)
        code, said = check(file, monkeypatch, capsys)
        assert code == 2, text
        assert said.count("\n") == 1, said
        assert "canary" not in said
        if any(str(other) in said.split(": ")[1] for other in other_files):
            continue
        found = re.match(rf"margin-monitor: {re.escape(str(file))}:(\d+): (\S+): .*: expected \S", said)
        assert found is not None, said + text
        line = [*text.split("\n"), ""][int(found[1]) - 1]
        named = found[2].startswith("(") or any(part in line for part in found[2].split("."))  # what is missing: the line of its section
        assert named, f"{said}names line {line!r}"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[http]\nprt = 1\n", "port"),
        ("[evaluator]\nworst_acounts = 1\n", "worst_accounts"),
        ('[sinks.mqtt]\ntopic_prefx = "a"\n', "topic_prefix"),
        ('[sinks.webhook.desk]\nulr = "https://a.example/"\n', "url"),
        ("[feeds.okx]\nsymbol = []\n", "symbols"),
        ("[leves]\n", "levels"),
    ],
)
def test_the_nearest_known_key_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str, key: str
) -> None:
    """At every depth, also below a name that the user chose."""
    file = tmp_path / "settings.toml"
    file.write_text(text)

    code, said = check(file, monkeypatch, capsys)

    assert (code, f"expected a known key, perhaps '{key}'" in said) == (2, True), said
