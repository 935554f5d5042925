"""Sinks from the settings: what is wrong is named; and the whole daemon tells a crash to MQTT, a webhook and, by its policy, to people."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiomqtt
import orjson
import pytest

from monitor.errors import ConfigError
from monitor.feeds.simulator import Simulator
from monitor.feeds.tape import Moment
from monitor.ledger.connection import Endpoint, Link
from monitor.margin.levels import Level
from monitor.margin.prices import PriceKind
from monitor.service.local_rig import local_rig
from monitor.service.receivers import adopt_standing, make_receivers, policy_of, standing_pools
from monitor.service.sample_book import sample_documents, sample_tables
from monitor.service.settings import load_settings
from monitor.sinks.alertmanager import AlertmanagerOptions, AlertmanagerSink
from monitor.sinks.mqtt import MqttOptions, MqttSink
from monitor.sinks.webhook import SIGNATURE_HEADER, is_signed_by
from monitor.wire.dialects.binance import binance_usdm
from monitor.wire.quotes import Quotes
from tests.support.http_server import answering, receiver
from tests.support.mosquitto import Mosquitto, needs_mosquitto
from tests.support.waiting import until

PRICES = {"BTCUSDT": 30_000.0, "ETHUSDT": 1_800.0}
SECRET = "0123456789abcdef"
HOOK = {"MARGIN_MONITOR_SINKS__WEBHOOK__HOOK__PASSWORD": SECRET}


def receivers(tmp_path: Path, text: str, environment: dict[str, str] | None = None) -> list[str]:
    """Names of the sinks that these settings make."""
    path = tmp_path / "margin-monitor.toml"
    path.write_text(text)
    settings = load_settings(path, environment=environment or {})
    made = make_receivers(settings, [0], lambda: Link(Endpoint(path="/nonexistent")), may_send=lambda _number: True)
    return [sink.name for sink in made.events]


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ('[sinks.webhook.hook]\nurl = "https://a.example/"', "sinks.webhook.hook.password", "at least 16 characters"),
        ('[sinks.webhook.other]\nurl = "https://a.example/"\npassword_file = "/nonexistent"', "password_file", "readable"),
        ('[sinks.alertmanager.main]\nurl = "127.0.0.1:9093"', "sinks.alertmanager.main.url", "https://"),
        ('[sinks.alertmanager.main]\nurl = "http://127.0.0.1:9093"\nallow = ["10.0.0.1/8"]', "sinks.alertmanager.main.allow", "networks"),
        ('[sinks.alertmanager.main]\nurl = "http://127.0.0.1:9093"\nca_file = "/nonexistent"', "sinks.alertmanager.main.ca_file", "PEM"),
        ('[sinks.alertmanager.console]\nurl = "http://127.0.0.1:9093"', "sinks...console", "no other sink"),
        ('[sinks.alertmanager.policy]\nurl = "http://127.0.0.1:9093"', "sinks...policy", "no other sink"),
        ("[sinks.chat.desk]", "sinks.chat.desk.password_file", "apprise address"),
        ('[alerts]\npolicy = "/nonexistent"', "(file)", "readable"),
    ],
)
def test_what_cannot_work_is_named(tmp_path: Path, text: str, key: str, expected: str) -> None:
    """Before anything is started, with the key and what was expected, and without a secret in it."""
    with pytest.raises(ConfigError) as caught:
        receivers(tmp_path, text)

    assert (caught.value.key, expected in caught.value.expected) == (key, True), str(caught.value)


def test_an_error_in_the_policy_names_its_line(tmp_path: Path) -> None:
    """The second route's sink is not set up: file, line, key, and the nearest name."""
    policy = tmp_path / "alerts.toml"
    policy.write_text('[[routes]]\nname = "a"\nsinks = ["console"]\n\n[[routes]]\nname = "b"\n\nsinks = ["consol"]\n')
    with pytest.raises(ConfigError) as caught:
        receivers(tmp_path, f'[alerts]\npolicy = "{policy}"')

    assert str(caught.value) == f"{policy}:8: routes.1.sinks: 'consol': expected a sink that is set up, perhaps 'console'"


def test_who_gets_events_and_who_gets_notices(tmp_path: Path) -> None:
    """With a policy it is a sink itself; a webhook without events is only its route's."""
    (tmp_path / "alerts.toml").write_text('[[routes]]\nname = "a"\nsinks = ["hook", "main"]\n')
    text = '[sinks.webhook.hook]\nurl = "https://a.example/"\nevents = false\n[sinks.alertmanager.main]\nurl = "https://b.example/"\n'
    with_policy = text + f'[alerts]\npolicy = "{tmp_path}/alerts.toml"'

    assert receivers(tmp_path, text, HOOK) == ["console", "main", "hook"]
    assert receivers(tmp_path, with_policy, HOOK) == ["console", "main", "policy"]
    path = tmp_path / "margin-monitor.toml"
    policy = policy_of(load_settings(path, environment=HOOK))
    assert policy is not None
    assert policy.sinks() == {"hook", "main"}


def test_the_settings_of_the_guide_can_be_used(tmp_path: Path) -> None:
    """Every settings block of docs/how-to/alerts.md is valid, but for the files of secrets that it names."""
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "alerts.md").read_text()
    blocks = [block.split("```")[0] for block in page.split("```toml\n")[1:]]
    path = tmp_path / "margin-monitor.toml"
    for block in blocks:
        if "[[routes]]" not in block:
            path.write_text(block)
            assert load_settings(path, environment={}).sinks


def falling() -> list[Moment]:
    """Both prices fall by a fifth in a second and stay there."""
    moments: list[Moment] = []
    for index in range(20):
        share = 1 - 0.01 * index
        marks = {name: f"{price * share:.2f}" for name, price in PRICES.items()}
        moments.append((index * 0.05, Quotes(time_ms=1_700_000_000_000 + index * 1000, numbers={PriceKind.MARK: marks})))
    return moments


@needs_mosquitto
async def test_a_crash_is_told_to_everybody_in_his_way(tmp_path: Path) -> None:
    """Prices fall: MQTT keeps the present level of every account, the webhook gets every event signed, people one digest by the policy."""
    tables = tmp_path / "tables.json"
    tables.write_bytes(orjson.dumps(sample_tables(PRICES)))
    (tmp_path / "alerts.toml").write_text(
        '[[routes]]\nname = "desk"\nsinks = ["notices"]\nabout = ["level"]\nmin_level = "margin_call"\nurgent_wait = "1s"\n'
    )
    broker = Mosquitto(tmp_path / "broker")
    broker.start()
    documents = list(sample_documents(200, PRICES))
    ok = answering("HTTP/1.1 200 OK\nContent-Length: 0\n\n")
    try:
        async with asyncio.timeout(60), receiver(ok) as events, receiver(ok) as people:
            overrides: dict[str, Any] = {
                "feeds.binance_usdm.stale_after_s": 600.0,
                "alerts.policy": str(tmp_path / "alerts.toml"),
                "sinks.console.enabled": False,
                "sinks.mqtt.enabled": True,
                "sinks.mqtt.port": broker.port,
            }
            for name, server, has_events in (("hook", events, True), ("notices", people, False)):
                hook = {"url": f"http://127.0.0.1:{server.port}/", "allow": ["127.0.0.1"], "password": SECRET, "events": has_events}
                overrides |= {f"sinks.webhook.{name}.{key}": value for key, value in hook.items()}
            simulator = Simulator(binance_usdm(), falling(), speed=1.0)
            async with local_rig(tmp_path, simulator, documents, tables=[tables], overrides=overrides) as rig:
                await rig.caught_up()
                heads = {number: committer.partition.head.seq for number, committer in rig.daemon.committers.items()}
                await until(lambda: bool(people.requests), within_s=20)
                standing = [each async for each in standing_pools(await rig.daemon.places.ledger_link().open(), 0)]
                levels = await _retained(broker.port, {f"margin/{each.group or '-'}/{each.account}/level" for each in standing})
                adopting = await _adopting(rig.daemon.places.ledger_link, len(standing))
    finally:
        broker.kill()

    bodies = [orjson.loads(request.body) for request in events.requests]
    assert len({body["id"] for body in bodies}) == heads[0]
    assert all(is_signed_by(SECRET, each.headers[SIGNATURE_HEADER.lower()], each.body, 0, tolerance_s=1e12) for each in events.requests)
    assert standing
    for each in standing:
        assert levels[f"margin/{each.group or '-'}/{each.account}/level"]["level"] == each.level.word
    notices = [orjson.loads(request.body) for request in people.requests]
    assert {notice["kind"] for notice in notices} == {"notice"}
    bad = {each.account for each in standing if each.level >= Level.MARGIN_CALL}
    assert bad
    assert sum(notice["count"] for notice in notices) >= len(bad)
    assert len(notices) <= 3
    assert adopting


async def _retained(port: int, wanted: set[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    async with asyncio.timeout(10), aiomqtt.Client("127.0.0.1", port) as client:
        await client.subscribe("margin/+/+/level")
        async for message in client.messages:
            assert isinstance(message.payload, bytes)
            found[str(message.topic)] = orjson.loads(message.payload)
            if wanted <= found.keys():
                return found
    raise AssertionError("the broker went away")


async def _adopting(links: Any, count: int) -> bool:
    """Another process would know all that stands."""
    link: Link = links()
    mqtt, alertmanager = MqttSink(MqttOptions(host="127.0.0.1")), AlertmanagerSink(AlertmanagerOptions(url="https://a.example"))
    adopted = await adopt_standing(lambda: link, [0], [mqtt, alertmanager])
    return adopted == count == alertmanager.firing
