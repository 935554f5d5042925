"""The compose file: in the schema, hardened, complete; and what `prepare` makes is taken by a real Redis and a real mosquitto."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
import redis.asyncio as redis_client
import yaml
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError

from deploy.compose.prepare import main
from monitor.service.settings import load_settings
from tests.support.commands import needs, output_of, path_of, running
from tests.support.mosquitto import free_port

_ROOT = Path(__file__).resolve().parents[2]
_FOLDER = _ROOT / "deploy" / "compose"
_COMPOSE = _FOLDER / "compose.yaml"
_SERVICES: dict[str, Any] = yaml.safe_load(_COMPOSE.read_text(encoding="utf-8"))["services"]


def test_the_compose_file_keeps_to_the_schema() -> None:
    """The schema of the compose specification accepts it."""
    code, text = output_of([sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(_COMPOSE)])

    assert code == 0, text


def test_everything_that_the_monitor_needs_is_in_it() -> None:
    """Daemon, both roles of Redis, broker, Prometheus, Alertmanager and Grafana."""
    expected = {"prepare", "margin-monitor", "redis-ledger", "redis-cache", "mosquitto", "prometheus", "alertmanager", "grafana"}

    assert set(_SERVICES) == expected


@pytest.mark.parametrize("name", _SERVICES)
def test_every_service_is_hardened(name: str) -> None:
    """Read-only, no capabilities, no new privileges, bounded in processes, memory and logs, published on loopback only, pinned."""
    service = _SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["pids_limit"] and service["mem_limit"]
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "5"}
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert re.search(r":v?\d+\.\d+\.\d+(@sha256:[0-9a-f]{64})?$", service["image"])
    assert "privileged" not in service
    if name == "prepare":
        assert service["network_mode"] == "none"
        assert set(service["cap_add"]) == {"CHOWN", "DAC_OVERRIDE", "FOWNER"}
    else:
        assert "cap_add" not in service
        assert service["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", sorted(set(_SERVICES) - {"prepare", "margin-monitor"}))
def test_every_server_is_watched(name: str) -> None:
    """Each has a health check of its own; the daemon's is in its image."""
    assert _SERVICES[name]["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}


def test_files_that_are_mounted_exist() -> None:
    """A path that is renamed elsewhere is renamed there too."""
    for name, service in _SERVICES.items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (_FOLDER / source).exists(), f"{name}: {source}"


def test_redis_is_out_of_reach() -> None:
    """The ledger's network leads nowhere, and only the daemon and Redis are on it."""
    networks = yaml.safe_load(_COMPOSE.read_text(encoding="utf-8"))["networks"]

    assert networks["ledger"] == {"internal": True}
    assert {name for name, service in _SERVICES.items() if "ledger" in service.get("networks", [])} == {
        "margin-monitor",
        "redis-ledger",
        "redis-cache",
    }


def test_no_secret_stands_in_the_files() -> None:
    """Passwords come from what `prepare` made, never from the environment or a committed file."""
    for path in (_COMPOSE, _FOLDER / "margin-monitor.toml"):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert not re.search(r"passw\w*\s*[=:]\s*\S+", re.sub(r"(?i)password_*file\S*\s*[=:]", "", line), re.IGNORECASE), line


def test_the_daemons_settings_are_accepted() -> None:
    """The settings file is one that the daemon takes, and goes with the services' names."""
    settings = load_settings(_FOLDER / "margin-monitor.toml", environment={})

    assert settings.ledger.url == "redis://redis-ledger:6379/0"
    assert settings.cache.url == "redis://redis-cache:6379/0"
    assert settings.sinks.mqtt.host in _SERVICES
    assert f"127.0.0.1:{settings.http.port}:{settings.http.port}" in _SERVICES["margin-monitor"]["ports"]


@needs("redis-server", "redis-check-aof")
def test_a_torn_ledger_is_repaired_before_redis_reads_it(tmp_path: Path) -> None:
    """The ledger's own command line, on a file with a write that a power cut tore: it starts, without the torn transaction."""
    command = _SERVICES["redis-ledger"]["command"]
    assert "../redis/repair-append-file:/usr/local/bin/repair-append-file:ro" in _SERVICES["redis-ledger"]["volumes"]
    port = free_port()
    line = command[2].replace("/usr/local/bin", str(_ROOT / "deploy" / "redis")).replace("/data", str(tmp_path)).replace("6379", str(port))
    line = line.replace("/usr/local/etc/redis.conf", str(tmp_path / "redis.conf")).replace("'* -::*'", "127.0.0.1")
    configuration = (_ROOT / "deploy" / "redis" / "redis-ledger.conf").read_text(encoding="utf-8").replace("/var/lib/redis", str(tmp_path))
    (tmp_path / "redis.conf").write_text(configuration.replace("aclfile", "# aclfile"), encoding="utf-8")
    (tmp_path / "appendonly.aof").write_bytes(
        b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n*1\r\n$5\r\nMULTI\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n2\r\n*1\r\n$4\r\nEX"
    )
    with running(command[0], command[1], line):
        asked = [path_of("redis-cli") or "", "-p", str(port), "get", "a"]
        deadline = time.monotonic() + 10
        while (said := subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()) != "1":
            assert time.monotonic() < deadline, said
            time.sleep(0.05)


def test_prepare_keeps_what_it_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second run changes no password, and people are shown theirs; no file is readable by others."""
    assert main([str(tmp_path)]) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main([str(tmp_path)]) == 0

    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert all(path.stat().st_mode & 0o077 == 0 for path in before)
    assert main([str(tmp_path), "--show"]) == 0
    shown = capsys.readouterr().out
    assert (tmp_path / "grafana" / "admin-password").read_text() in shown
    assert (tmp_path / "margin-monitor" / "redis").read_text() not in shown


def test_prepare_gives_the_page_a_token_that_prometheus_has_too(tmp_path: Path) -> None:
    """Also where everything else was made before there was one; and it is kept."""
    folder = tmp_path / "secrets"
    assert main([str(folder)]) == 0
    for path in ("people/page-token", "margin-monitor/http", "prometheus/http"):
        (folder / path).unlink()
    assert main([str(folder)]) == 0
    token = (folder / "margin-monitor" / "http").read_text()
    assert len(token) > 40
    assert main([str(folder)]) == 0
    assert {(folder / path).read_text() for path in ("people/page-token", "margin-monitor/http", "prometheus/http")} == {token}


def test_prepare_without_a_folder_is_told_how(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong call ends with 2 and the usage."""
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err


@needs("redis-server")
async def test_redis_lets_in_whom_prepare_named(tmp_path: Path) -> None:
    """With the shipped ledger configuration: the daemon's password opens, no password and a wrong one do not, and rights are bounded."""
    secrets = tmp_path / "secrets"
    assert main([str(secrets)]) == 0
    port = free_port()
    configuration = (_ROOT / "deploy" / "redis" / "redis-ledger.conf").read_text(encoding="utf-8")
    configuration = configuration.replace("/etc/redis/users.acl", str(secrets / "redis" / "users.acl")).replace(
        "/var/lib/redis", str(tmp_path)
    )
    (tmp_path / "redis.conf").write_text(configuration, encoding="utf-8")
    arguments = ("--bind", "127.0.0.1", "--port", str(port))
    with running("redis-server", str(tmp_path / "redis.conf"), *arguments):
        daemon = _client(port, (secrets / "margin-monitor" / "redis").read_text())
        async with asyncio.timeout(10):
            while not await _answers(daemon):
                await asyncio.sleep(0.02)
            await daemon.execute_command("HSET", "{0}:head", "x", "1")  # type: ignore[no-untyped-call]
            with pytest.raises(redis_client.ResponseError, match="permissions"):
                await daemon.flushall()
            await daemon.aclose()
            for password in (None, "wrong"):
                stranger = _client(port, password)
                with pytest.raises(AuthenticationError):
                    await stranger.ping()
                await stranger.aclose()


def _client(port: int, password: str | None) -> redis_client.Redis:
    user = "margin-monitor" if password else None
    return redis_client.Redis(
        host="127.0.0.1", port=port, username=user, password=password, socket_timeout=None, retry=Retry(NoBackoff(), 0)
    )


async def _answers(client: redis_client.Redis) -> bool:
    try:
        return bool(await client.ping())
    except redis_client.ConnectionError:
        return False


@needs("mosquitto")
async def test_mosquitto_lets_in_whom_prepare_named(tmp_path: Path) -> None:
    """With the shipped broker configuration: TLS by our authority, the daemon writes what the operator reads, a stranger stays out."""
    secrets = tmp_path / "secrets"
    assert main([str(secrets)]) == 0
    port, plain = free_port(), free_port()
    configuration = (_ROOT / "deploy" / "mosquitto" / "mosquitto.conf").read_text(encoding="utf-8")
    configuration = configuration.replace("/etc/mosquitto/", f"{secrets}/mosquitto/").replace(
        "/var/lib/mosquitto/", f"{secrets}/mosquitto-data/"
    )
    configuration = configuration.replace("listener 8883", f"listener {port} 127.0.0.1").replace("listener 1883", f"listener {plain}")
    if os.geteuid() == 0:  # else it would become the user mosquitto, which may not be here
        configuration += "\nuser root\n"
    (tmp_path / "mosquitto.conf").write_text(configuration, encoding="utf-8")
    with running("mosquitto", "-c", str(tmp_path / "mosquitto.conf")):
        trusted = ssl.create_default_context(cafile=str(secrets / "margin-monitor" / "ca.pem"))

        def client(user: str, password: str) -> aiomqtt.Client:
            return aiomqtt.Client("127.0.0.1", port, username=user, password=password, tls_context=trusted, timeout=5)

        operator = client("operator", (secrets / "people" / "mqtt-operator").read_text())
        async with asyncio.timeout(20):
            await _until_open(port)
            async with operator, client("margin-monitor", (secrets / "margin-monitor" / "mqtt").read_text()) as daemon:
                await operator.subscribe("margin/#", qos=1)
                await daemon.publish("margin/-/alice/event", b"told", qos=1)
                message = await anext(aiter(operator.messages))
                assert message.payload == b"told"
            with pytest.raises(aiomqtt.MqttError):
                async with client("operator", "wrong"):
                    pass


async def _until_open(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return
