"""Cutting a torn end off Redis's append-only file before Redis sees it.

A power cut can leave half of the last write. With `aof-load-truncated yes` Redis starts all the same, but where the tear lies inside a
transaction it cuts behind the last whole command *of it* and leaves its MULTI standing: what is written next joins that transaction. At the
start after the next one, the half of a transaction that nobody committed is carried out together with a later one (seen with 6.2.14 and
7.0.15), or the later, acknowledged write is thrown away with it (7.0.15). Valkey's pull request 4342 tells the same. So the ledger's Redis
has that setting off and refuses a torn file; `redis-check-aof`, which every redis-server is when called so, cuts before the MULTI.

What is cut off was never acknowledged, with `appendfsync always`. It is kept beside. Damage elsewhere is left alone: Redis refuses the
file.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from monitor.errors import ServerError

__all__ = ["LONGEST_TEAR", "is_torn", "repair_append_file"]

LONGEST_TEAR = 8 << 20
"""A longer damaged end is no torn write, but damage in the middle: nobody but a person may cut there."""

_HEADER = re.compile(rb"\r\n\*\d+\r\n\$\d+\r\n")
_ANALYZED = re.compile(r"AOF analyzed: (?:filename=(?P<name>[^,]+), )?size=(?P<size>\d+), ok_up_to=(?P<good>\d+), .*diff=(?P<diff>\d+)")


async def repair_append_file(binary: Path, folder: Path) -> Path | None:
    """Cuts a torn end off the append-only file in this data folder. Only while no server runs on it.

    Returns the file that keeps the bytes cut off; None when nothing was torn, or when it is damaged in a way that Redis will refuse and
    say. Raises ServerError when the file cannot be mended.
    """
    target = folder / "appendonlydir" / "appendonly.aof.manifest"
    if not target.exists():
        target = folder / "appendonly.aof"
        if not target.exists():
            return None
    code, output = await _check(binary, str(target))
    found = [match for match in map(_ANALYZED.search, output.splitlines()) if match is not None]
    if code == 0 or not found or not 0 < int(found[-1]["diff"]) <= LONGEST_TEAR:
        return None
    torn = target.parent / Path(found[-1]["name"] or target).name
    kept = await asyncio.to_thread(_keep, torn, int(found[-1]["good"]), folder)
    if kept is None:
        return None
    code, output = await _check(binary, "--fix", str(target))
    if code != 0:
        raise ServerError(f"{torn}: its torn end could not be cut off: {' | '.join(output.splitlines()[-2:])}")
    return kept


async def _check(binary: Path, *arguments: str) -> tuple[int, str]:
    beside = binary.with_name("redis-check-aof")  # where the server is started by a script, the name it is called by is lost
    process = await asyncio.create_subprocess_exec(
        *("redis-check-aof", *arguments),
        executable=beside if beside.exists() else binary,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate(b"y\n")
    except BaseException:
        process.kill()
        await process.wait()
        raise
    return process.returncode or 0, output.decode(errors="replace")


def is_torn(rest: bytes) -> bool:
    """Is this, behind the last good place of a file, one unfinished transaction or command, and nothing else?

    What was never written may be missing, or zeros where the file system had made room. Commands behind a broken one mean damage instead.
    """
    start = 0
    in_transaction = False
    while (command := _command(rest, start)) is not None:
        words, end = command
        in_transaction = in_transaction or words == [b"MULTI"]
        if not in_transaction or words == [b"EXEC"]:
            return False  # whole, and yet not accepted
        start = end
    return _HEADER.search(rest, start + 1) is None


def _command(data: bytes, start: int) -> tuple[list[bytes], int] | None:
    """The words of the command that begins here and where it ends, or None when it is not whole."""
    count, place = _number(data, start, b"*")
    words: list[bytes] = []
    for _ in range(count):
        length, place = _number(data, place, b"$")
        end = place + length
        if length < 0 or data[end : end + 2] != b"\r\n":
            return None
        words.append(data[place:end])
        place = end + 2
    return (words, place) if words else None


def _number(data: bytes, start: int, mark: bytes) -> tuple[int, int]:
    """The number behind `*` or `$` and where its line ends; -1 where there is none."""
    end = data.find(b"\r\n", start, start + 24)
    text = data[start + 1 : end] if end > start else b""
    return (int(text), end + 2) if data[start : start + 1] == mark and text.isdigit() else (-1, start)


def _keep(torn: Path, good: int, folder: Path) -> Path | None:
    """Copies what stands behind the good part, if that is a torn write."""
    with torn.open("rb") as file:
        file.seek(good)
        rest = file.read()
    if not is_torn(rest):
        return None
    kept = folder / f"torn-{torn.name}-{good}"
    kept.write_bytes(rest)
    return kept
