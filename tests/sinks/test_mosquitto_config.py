"""The broker configuration that we ship: it starts, keeps tenants apart, and keeps over a crash what it has acknowledged."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from pathlib import Path

import aiomqtt
import pytest

from monitor.sinks.mqtt import MqttOptions, MqttSink
from monitor.wire.rows import Delivered
from tests.support.certificates import Authority, needs_openssl
from tests.support.events import row
from tests.support.mosquitto import Mosquitto, free_port, needs_mosquitto

pytestmark = [needs_mosquitto, needs_openssl]

SHIPPED = Path(__file__).parents[2] / "deploy" / "mosquitto"


@pytest.fixture
def shipped(tmp_path: Path) -> Mosquitto:
    """The shipped configuration with its paths and ports moved into a temporary folder."""
    certificate, key = Authority(tmp_path / "ca").issue("broker", "IP:127.0.0.1")
    passwords, acl = tmp_path / "passwords", tmp_path / "acl"
    acl.write_text((SHIPPED / "acl").read_text())
    passwords.touch()
    command = shutil.which("mosquitto_passwd")
    assert command is not None
    for user in ("margin-monitor", "operator", "desk-a", "desk-b"):
        subprocess.run([command, "-b", str(passwords), user, "secret"], check=True, capture_output=True)
    for path in (passwords, acl):
        path.chmod(0o600)
    text = (SHIPPED / "mosquitto.conf").read_text()
    for old, new in (
        ("/etc/mosquitto/certs/broker.pem", str(certificate)),
        ("/etc/mosquitto/certs/broker.key", str(key)),
        ("/etc/mosquitto/passwords", str(passwords)),
        ("/etc/mosquitto/acl", str(acl)),
        ("listener 8883", f"listener {free_port()}"),
    ):
        assert old in text
        text = text.replace(old, new)
    moved = re.sub(r"^(listener 1883.*|persistence_location.*|allow_anonymous.*|log_dest.*)$", "", text, flags=re.MULTILINE)
    return Mosquitto(tmp_path / "broker", *moved.splitlines(), anonymous=False)


def client(port: int, user: str) -> aiomqtt.Client:
    """A receiver with a session that outlives its connection."""
    return aiomqtt.Client("127.0.0.1", port, identifier=f"receiver-{user}", clean_session=False, username=user, password="secret")


async def test_an_acknowledged_event_survives_a_crash_of_the_broker(shipped: Mosquitto) -> None:
    """What the broker has acknowledged and queued for an absent receiver is there after kill -9; tenants hear their own group only."""
    shipped.start()
    try:
        for user in ("desk-a", "desk-b", "operator"):
            async with client(shipped.port, user) as receiver:
                await receiver.subscribe("margin/+/+/event", qos=1)
        sink = MqttSink(MqttOptions(host="127.0.0.1", port=shipped.port, username="margin-monitor", password="secret"))
        await sink.open()
        answers = [await sink.deliver(row(seq, group=group)) for seq, group in enumerate(("desk-a", "desk-b", "desk-a"), start=1)]
        await sink.close()
        shipped.kill()
        shipped.start()
        heard: dict[str, list[str]] = {}
        for user, count in (("desk-a", 2), ("desk-b", 1), ("operator", 3)):
            async with asyncio.timeout(5), client(shipped.port, user) as receiver:
                async for message in receiver.messages:
                    heard.setdefault(user, []).append(str(message.topic))
                    if len(heard[user]) == count:
                        break
    finally:
        shipped.kill()

    assert answers == [Delivered()] * 3
    assert heard["desk-a"] == ["margin/desk-a/acme-1/event"] * 2
    assert heard["desk-b"] == ["margin/desk-b/acme-1/event"]
    assert len(heard["operator"]) == 3


async def test_without_a_name_nobody_gets_in(shipped: Mosquitto) -> None:
    """Anonymous clients are refused."""
    shipped.start()
    try:
        with pytest.raises(aiomqtt.MqttError):
            async with aiomqtt.Client("127.0.0.1", shipped.port):
                pass
    finally:
        shipped.kill()
