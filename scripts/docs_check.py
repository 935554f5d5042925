"""Follows the documents word by word: runs every command block, and looks up every link.

    python scripts/docs_check.py [PAGE...]        default: all pages

A block fenced as `sh` is run with bash, all blocks of a page one after the other in one session, in a copy of the repository, with the
commands of this checkout on the PATH and a home folder of its own. A comment on the line before the fence says what is special:

    <!-- docs-check: skip, needs Docker -->                        not run, and listed with its reason
    <!-- docs-check: fails with 2 -->                              must end with this code
    <!-- docs-check: background, until http://127.0.0.1:9464/readyz -->    left running until the end of the page; goes on when it answers

Blocks of another language (`json`, `toml`, `text`) are not commands.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Block", "blocks_of", "broken_links", "main"]

ROOT = Path(__file__).resolve().parent.parent
_PAGE_TIMEOUT_S = 300
_UNTIL_TIMEOUT_S = 90
_MARK = re.compile(r"<!-- docs-check: (?P<what>.+?) -->")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)|!\[[^\]]*\]\((?P<image>[^)\s]+)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One command block: the line of its fence, its text, and what its mark says."""

    line: int
    text: str
    skipped: str | None = None
    code: int = 0
    until: str | None = None
    background: bool = False


def main(arguments: Sequence[str]) -> int:
    """Checks the pages; 0 when every block and link is good, 1 otherwise, 2 for a page that is not there."""
    pages = [Path(argument).resolve() for argument in arguments] or sorted(_pages())
    missing = [page for page in pages if not page.is_file()]
    if missing:
        print(f"docs_check: {missing[0]}: no such page", file=sys.stderr)
        return 2
    faults: list[str] = []
    skipped: list[str] = []
    run = 0
    for page in pages:
        name = page.relative_to(ROOT) if page.is_relative_to(ROOT) else page
        faults += [f"{name}:{line}: {message}" for line, message in broken_links(page)]
        try:
            blocks = list(blocks_of(page.read_text(encoding="utf-8")))
        except ValueError as error:
            faults.append(f"{name}:{error}")
            continue
        skipped += [f"{name}:{block.line}: {block.skipped}" for block in blocks if block.skipped is not None]
        to_run = [block for block in blocks if block.skipped is None]
        if to_run:
            print(f"== {name}: {len(to_run)} blocks", flush=True)
            faults += [f"{name}:{line}: {message}" for line, message in _run_page(to_run)]
            run += len(to_run)
    for line in skipped:
        print(f"left out: {line}")
    for line in faults:
        print(f"FAULT {line}", file=sys.stderr)
    print(f"docs_check: {len(pages)} pages, {run} blocks run, {len(skipped)} left out, {len(faults)} faults")
    return 1 if faults else 0


def blocks_of(text: str) -> Iterator[Block]:
    """The command blocks of a page. Raises ValueError, `<line>: ...`, for a mark that says nothing known or a fence that is not closed."""
    mark, mark_line, fence, collected = "", 0, "", list[str]()
    start = 0
    for number, line in enumerate(text.splitlines(), start=1):
        if fence:
            if line.strip() != fence:
                collected.append(line)
                continue
            if start:
                yield _block(start, textwrap.dedent("\n".join(collected)) + "\n", mark)  # as a reader gets it who copies from the page
            elif mark:
                raise ValueError(f"{mark_line}: a mark before what is no command block")
            fence, mark, collected, start = "", "", [], 0
            continue
        opened = re.match(r"\s*(?P<fence>`{3,}|~{3,})\s*(?P<language>\w*)", line)
        if opened:
            fence, start = opened["fence"], number if opened["language"] in {"sh", "bash", "shell"} else 0
        elif (found := _MARK.search(line)) is not None:
            mark, mark_line = found["what"], number
        elif line.strip() and mark:
            raise ValueError(f"{mark_line}: a mark that is not followed by a block")
    if fence:
        raise ValueError(f"{start}: a block that is not closed")


def _block(line: int, text: str, mark: str) -> Block:
    if not mark:
        return Block(line=line, text=text)
    if (found := re.fullmatch(r"skip, (.+)", mark)) is not None:
        return Block(line=line, text=text, skipped=found[1])
    if (found := re.fullmatch(r"fails with (\d+)", mark)) is not None:
        return Block(line=line, text=text, code=int(found[1]))
    if (found := re.fullmatch(r"background(?:, until (\S+))?", mark)) is not None:
        return Block(line=line, text=text, background=True, until=found[1])
    raise ValueError(f"{line - 1}: docs-check: {mark}: expected `skip, WHY`, `fails with CODE` or `background[, until URL]`")


def broken_links(page: Path) -> Iterator[tuple[int, str]]:
    """(line, message) for each link into the repository whose file or heading is not there."""
    fenced = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if re.match(r"\s*(```|~~~)", line):
            fenced = not fenced
        if fenced:
            continue
        for found in _LINK.finditer(re.sub(r"`[^`]*`", "", line)):
            target = found["target"] or found["image"]
            if re.match(r"[a-z][a-z0-9+.-]*:", target):
                continue
            path, _, heading = target.partition("#")
            file = (page.parent / path) if path else page
            if not file.exists():
                yield number, f"link to {target}: no such file"
            elif heading and file.suffix == ".md" and heading not in _headings(file):
                yield number, f"link to {target}: no such heading"


def _headings(page: Path) -> set[str]:
    """The anchors that a forge makes of a page's headings."""
    anchors: set[str] = set()
    fenced = False
    for line in page.read_text(encoding="utf-8").splitlines():
        if re.match(r"\s*(```|~~~)", line):
            fenced = not fenced
        elif not fenced and (found := re.match(r"#{1,6} (.+)", line)) is not None:
            plain = re.sub(r"[^\w\- ]", "", found[1].replace("`", "").strip().lower())
            anchor = plain.replace(" ", "-")
            count = 0
            while anchor in anchors:
                count += 1
                anchor = f"{plain.replace(' ', '-')}-{count}"
            anchors.add(anchor)
    return anchors


def _pages() -> Iterator[Path]:
    for pattern in ("*.md", "docs/**/*.md", "deploy/**/*.md"):
        yield from ROOT.glob(pattern)


def _run_page(blocks: Sequence[Block]) -> Iterator[tuple[int, str]]:
    """Runs the blocks of a page in one session; (line, message) of the first that does not do what it should."""
    with tempfile.TemporaryDirectory(prefix="mm.") as temporary:
        folder = Path(temporary)
        copy = folder / "margin-monitor"
        _copy_repository(copy)
        (folder / "home").mkdir()
        progress = folder / "progress"
        environment = {
            **os.environ,
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder),
            "PATH": f"{ROOT}/.venv/bin:{ROOT}/.servers/bin:{os.environ['PATH']}:/usr/local/sbin:/usr/sbin:/sbin",
        }
        script = _script(blocks, progress)
        started = time.monotonic()
        with subprocess.Popen(
            ["bash", "-c", script],
            cwd=copy,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as session:
            try:
                output, _ = session.communicate(timeout=_PAGE_TIMEOUT_S)
                code: int | None = session.returncode
            except subprocess.TimeoutExpired:
                code = None
            finally:
                _end(session)
            if code is None:
                output, _ = session.communicate()
        last = int(progress.read_text().split()[-1]) if progress.exists() else blocks[0].line
        if code is None:
            yield last, f"not over after {time.monotonic() - started:.0f} s; its last words:\n{_tail(output)}"
        elif code:
            yield last, f"ended with {code}; its last words:\n{_tail(output)}"


def _script(blocks: Sequence[Block], progress: Path) -> str:
    """One bash script for a page. Each block notes its line first, so that a failure can be told where it is."""
    lines = ["set -euo pipefail"]
    for block in blocks:
        lines.append(f"echo {block.line} >> {shlex.quote(str(progress))}")
        if block.background:
            lines.append(f"( {block.text} ) >> {shlex.quote(str(progress.with_name('background')))} 2>&1 &")
            if block.until is not None:
                asked = "import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=2)"
                ask = f"python3 -c {shlex.quote(asked)} {shlex.quote(block.until)} 2>/dev/null"
                lines.append(f"for _ in $(seq {_UNTIL_TIMEOUT_S * 4}); do {ask} && break; sleep 0.25; done; {ask}")
        elif block.code:
            lines.append(
                f"set +e; ( set -e; {block.text} ); code=$?; set -e; test $code = {block.code} || {{ echo ended with $code; exit 1; }}"
            )
        else:
            lines.append(block.text)
    return "\n".join(lines) + "\nexit 0\n"


def _end(session: subprocess.Popen[str]) -> None:
    """Ends what a page left running: everything in its session, and nothing else."""
    for number, patience_s in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(session.pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            session.poll()
            try:
                os.killpg(session.pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.05)


def _copy_repository(target: Path) -> None:
    """Copies the checkout as it is now, without what is made in it."""
    made = shutil.ignore_patterns(".git", ".venv", ".servers", "__pycache__", ".*_cache", ".hypothesis", "dist", "build", "var")
    shutil.copytree(ROOT, target, ignore=made)


def _tail(output: str | None) -> str:
    return "\n".join(f"    {line}" for line in (output or "").splitlines()[-15:])


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what a page has started is ended all the same
    sys.exit(main(sys.argv[1:]))
