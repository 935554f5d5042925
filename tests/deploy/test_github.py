"""The files of the forge: in their schemas, actions pinned by commit, least rights."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.commands import output_of

_FOLDER = Path(__file__).resolve().parents[2] / ".github"
_WORKFLOWS = sorted((_FOLDER / "workflows").glob("*.yml"))


@pytest.mark.parametrize(
    ("schema", "pattern"),
    [
        ("github-workflows", "workflows/*.yml"),
        ("github-issue-forms", "ISSUE_TEMPLATE/[!c]*.yml"),
        ("github-issue-config", "ISSUE_TEMPLATE/config.yml"),
        ("dependabot", "dependabot.yml"),
    ],
)
def test_files_keep_to_their_schemas(schema: str, pattern: str) -> None:
    """The forge will understand each of them."""
    files = sorted(map(str, _FOLDER.glob(pattern)))
    assert files

    code, text = output_of([sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *files])

    assert code == 0, text


@pytest.mark.parametrize("path", _WORKFLOWS, ids=lambda path: path.name)
def test_workflows_pin_actions_and_have_least_rights(path: Path) -> None:
    """Every action by commit with its version beside it, read-only by default, every job with a time limit, no credentials left behind."""
    text = path.read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.safe_load(text)

    for used in re.findall(r"uses: (.+)", text):
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", used), used
    assert content["permissions"] == {"contents": "read"}
    for job in content["jobs"].values():
        assert job["timeout-minutes"] <= 240
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout"):
                assert step["with"]["persist-credentials"] is False


def test_make_targets_that_workflows_call_exist() -> None:
    """A target that is renamed is renamed there too."""
    makefile = (_FOLDER.parent / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    called = {target for path in _WORKFLOWS for target in re.findall(r"make ([a-z-]+)", path.read_text(encoding="utf-8"))}

    assert called <= targets
