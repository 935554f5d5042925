"""The follower of documents finds what is wrong with a page; and no page of this repository has a broken link."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import docs_check
import pytest
import typer

from monitor.service.cli import app

Write = Callable[[str], Path]

_PAGES = sorted(path for pattern in ("*.md", "docs/**/*.md", "deploy/**/*.md") for path in docs_check.ROOT.glob(pattern))


@pytest.fixture
def page(tmp_path: Path) -> Write:
    """Writes a page and returns its path."""

    def write(text: str) -> Path:
        path = tmp_path / "page.md"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("path", _PAGES, ids=lambda path: str(path.relative_to(docs_check.ROOT)))
def test_links_and_marks_of_every_page_are_good(path: Path) -> None:
    """No link of the repository's own pages leads nowhere, and every mark is understood. `make docs-check` also runs the blocks."""
    assert list(docs_check.broken_links(path)) == []
    list(docs_check.blocks_of(path.read_text(encoding="utf-8")))


def _commands(application: typer.Typer, before: str = "") -> set[str]:
    own = {before + str(command.name or getattr(command.callback, "__name__", "")) for command in application.registered_commands}
    for group in application.registered_groups:
        if group.typer_instance is not None:
            own |= _commands(group.typer_instance, f"{before}{group.name} ")
    return own


@pytest.mark.parametrize("path", _PAGES, ids=lambda path: str(path.relative_to(docs_check.ROOT)))
def test_every_command_that_a_page_names_exists(path: Path) -> None:
    """Whoever follows a page at night finds the command."""
    known = _commands(app)
    groups = {command.split()[0] for command in known if " " in command} | {"dead"}
    text = path.read_text(encoding="utf-8")
    in_code = "\n".join(
        (
            *re.findall(r"`[^`]+`", text),
            *re.findall(r"^ {4,}.*$", text, re.MULTILINE),
            *(block.text for block in docs_check.blocks_of(text)),
        )
    )
    for named, second in re.findall(r"(?<!-n )margin-monitor ([a-z][a-z-]+)(?: ([a-z]+))?", in_code):
        assert (f"{named} {second}" if named in groups else named) in known


def test_blocks_are_run_in_one_session(page: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """What one block sets, the next one finds; a block may have to fail; one may be left out, with its reason."""
    path = page(
        "# Page\n```sh\nexport WORD=told\ncd docs\n```\n\n```sh\ntest $WORD = told && test -f design.md\n```\n"
        "<!-- docs-check: fails with 3 -->\n```sh\nexit 3\n```\n"
        "<!-- docs-check: skip, needs Docker -->\n```sh\nfalse\n```\n```json\n{}\n```\n"
    )

    assert docs_check.main([str(path)]) == 0
    out = capsys.readouterr().out
    assert "left out" in out
    assert "needs Docker" in out
    assert "3 blocks run, 1 left out, 0 faults" in out


def test_a_background_block_runs_until_the_end_of_the_page(page: Write, tmp_path: Path) -> None:
    """It goes on beside the others, and is ended with the page."""
    mark = tmp_path / "ended"
    path = page(
        f"<!-- docs-check: background -->\n```sh\ntrap 'touch {mark}; exit 0' TERM\n"
        f"touch {tmp_path}/runs\nwhile :; do sleep 0.05; done\n```\n"
        f"```sh\nuntil test -e {tmp_path}/runs; do sleep 0.05; done\n```\n"
    )

    assert docs_check.main([str(path)]) == 0
    assert mark.exists()


def test_a_failing_block_is_told_with_its_line(page: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """File, line, code, and what the command said."""
    path = page("# Page\n\n```sh\ntrue\n```\n\n```sh\necho why it failed\nfalse\n```\n")

    assert docs_check.main([str(path)]) == 1
    error = capsys.readouterr().err
    assert f"{path}:7: ended with 1" in error
    assert "why it failed" in error


def test_a_block_that_should_fail_and_does_not_is_a_fault(page: Write) -> None:
    """A promised error that does not come is as wrong as an error."""
    assert docs_check.main([str(page("<!-- docs-check: fails with 2 -->\n```sh\ntrue\n```\n"))]) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[x](absent.md)", "link to absent.md: no such file"),
        ("# A heading\n[x](#another-heading)", "link to #another-heading: no such heading"),
        ("[x](page.md#what-is-it)\n## What is *not*", "link to page.md#what-is-it: no such heading"),
    ],
)
def test_a_broken_link_is_found(page: Write, text: str, expected: str) -> None:
    """A file or a heading that is not there."""
    assert [message for _, message in docs_check.broken_links(page(text))] == [expected]


def test_good_links_and_code_pass(page: Write) -> None:
    """Headings as a forge makes anchors of them, addresses outside, and brackets inside code."""
    headings = "# `run`, and how\n## Twice\n## Twice\n"
    text = headings + "[a](#run-and-how) [b](#twice-1) [c](https://example.org) `[d](absent)`\n```text\n[e](absent)\n```\n"

    assert list(docs_check.broken_links(page(text))) == []


@pytest.mark.parametrize(
    "text",
    [
        "<!-- docs-check: perhaps -->\n```sh\ntrue\n```\n",
        "<!-- docs-check: skip, x -->\ntext\n```sh\ntrue\n```\n",
        "<!-- docs-check: skip, x -->\n```json\n{}\n```\n",
        "```sh\ntrue\n",
    ],
)
def test_a_mark_that_means_nothing_is_a_fault(page: Write, text: str) -> None:
    """A misspelt mark, one before text or before what is no command, and a block without an end."""
    assert docs_check.main([str(page(text))]) == 1


def test_a_page_that_is_not_there_is_a_wrong_call() -> None:
    """Exit code 2."""
    assert docs_check.main(["absent.md"]) == 2
