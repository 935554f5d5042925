"""Makes the sinks that the settings name, and the alert policy among them.

A sink that gets events has a cursor of its own under its name. With an alert policy, people's sinks get finished notices from the policy,
which is a sink itself; a sink that a route names may get events too.
"""

from __future__ import annotations

import json
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from monitor.alerting.messages import Markup
from monitor.alerting.routes import AlertPolicy
from monitor.errors import ConfigError
from monitor.ledger.connection import Link, Wire
from monitor.ledger.keys import PartitionKeys
from monitor.ledger.notify import NotifyRecords
from monitor.ledger.records import LevelRecord, read_account, read_level
from monitor.margin.levels import Level
from monitor.service.settings import AlertmanagerSettings, ChatSettings, Settings, WebhookSettings, load_policy
from monitor.sinks.alertmanager import AlertmanagerOptions, AlertmanagerSink
from monitor.sinks.base import Sink
from monitor.sinks.chat import ChatSink
from monitor.sinks.console import ConsoleSink
from monitor.sinks.http_post import Networks, PostOptions
from monitor.sinks.mqtt import MqttOptions, MqttSink
from monitor.sinks.policy import PolicySink
from monitor.sinks.webhook import WebhookOptions, WebhookSink

__all__ = ["Receivers", "Standing", "adopt_standing", "make_receivers", "policy_of", "standing_pools"]

SCAN = 1000


@dataclass(frozen=True, slots=True)
class Receivers:
    """The sinks of a process: those that get every event (the policy among them), and all of them."""

    events: tuple[Sink, ...]
    policy: PolicySink | None


def make_receivers(
    settings: Settings,
    numbers: Sequence[int],
    links: Callable[[], Link],
    *,
    may_send: Callable[[int], bool],
    extra: Sequence[Sink] = (),
) -> Receivers:
    """Makes all sinks. Raises ConfigError for what cannot work, before anything is opened.

    Args:
        numbers: The partitions of this process; the first one is the home of its notices.
        may_send: Whether this process certainly leads a partition.
        extra: Further sinks that get every event (the demo's, a test's).
    """

    def leads() -> bool:
        return all(may_send(number) for number in numbers)

    chosen = settings.sinks
    with_events: list[Sink] = list(extra)
    notices_only: list[Sink] = []
    if chosen.console.enabled:
        with_events.append(ConsoleSink())
    if chosen.mqtt.enabled:
        mqtt = chosen.mqtt
        options = MqttOptions(
            host=mqtt.host,
            port=mqtt.port,
            client_id=f"margin-monitor-{numbers[0]}",
            prefix=mqtt.topic_prefix,
            username=mqtt.username,
            password=mqtt.secret(),
            tls=mqtt.tls_context(),
        )
        with_events.append(MqttSink(options, may_connect=leads))
    with_events += [_alertmanager(name, each, leads) for name, each in chosen.alertmanager.items()]
    for name, webhook in chosen.webhook.items():
        (with_events if webhook.events else notices_only).append(_webhook(name, webhook))
    for name, chat in chosen.chat.items():
        gets_events = chat.events or settings.alerts.policy is None
        (with_events if gets_events else notices_only).append(_chat(name, chat))
    _check_names([*with_events, *notices_only])
    policy = policy_of(settings)
    if policy is None:
        return Receivers((*with_events, *notices_only), None)
    sink = PolicySink(
        policy,
        NotifyRecords({number: links() for number in numbers}, settings.ledger.partitions),
        notices_only,
        borrowed=with_events,
        home=numbers[0],
        may_send=leads,
    )
    return Receivers((*with_events, sink), sink)


def policy_of(settings: Settings) -> AlertPolicy | None:
    """The alert policy, None without one. Raises ConfigError, also for a route to a sink that is not set up."""
    if settings.alerts.policy is None:
        return None
    chosen = settings.sinks
    names = [*chosen.webhook, *chosen.alertmanager, *chosen.chat]
    names += [name for name, is_on in (("console", chosen.console.enabled), ("mqtt", chosen.mqtt.enabled)) if is_on]
    return load_policy(settings.alerts.policy, names)


def _webhook(name: str, settings: WebhookSettings) -> WebhookSink:
    key = f"sinks.webhook.{name}"
    secret = settings.secret()
    try:
        options = WebhookOptions(
            url=settings.url, secrets=(secret,) if secret else (), post=_post(key, settings.allow, settings.ca_file, settings.timeout_s)
        )
        return WebhookSink(options, name=name)
    except ValueError as error:
        raise _wrong(key, "password" if "secret" in str(error) else "url", error) from None


def _alertmanager(name: str, settings: AlertmanagerSettings, leads: Callable[[], bool]) -> AlertmanagerSink:
    key = f"sinks.alertmanager.{name}"
    secret = settings.secret()
    headers: dict[str, str] = {}
    if secret and settings.username:
        headers["Authorization"] = "Basic " + b64encode(f"{settings.username}:{secret}".encode()).decode()
    elif secret:
        headers["Authorization"] = f"Bearer {secret}"
    try:
        post = _post(key, settings.allow, settings.ca_file, settings.timeout_s)
        return AlertmanagerSink(AlertmanagerOptions(url=settings.url, headers=headers, post=post), name=name, may_send=leads)
    except ValueError as error:
        raise _wrong(key, "url", error) from None


def _chat(name: str, settings: ChatSettings) -> ChatSink:
    key = f"sinks.chat.{name}"
    address = settings.secret()
    if not address:
        expected = "the service's apprise address, from the environment or in the file that password_file names"
        raise ConfigError(source="settings", key=f"{key}.password_file", value="(none)", expected=expected)
    try:
        return ChatSink(address, name=name, markup=Markup(settings.format))
    except ValueError as error:
        raise _wrong(key, "password", error) from None


def _post(key: str, allow: Sequence[str], ca_file: Path | None, timeout_s: float) -> PostOptions:
    try:
        networks = Networks.of(allow)
    except ValueError as error:
        raise ConfigError(source="settings", key=f"{key}.allow", value=str(error), expected='networks such as "10.0.0.0/8"') from None
    try:
        tls = ssl.create_default_context(cafile=str(ca_file) if ca_file is not None else None)
    except OSError as error:
        raise ConfigError(source=str(ca_file), key=f"{key}.ca_file", value=str(error), expected="certificates in PEM form") from None
    return PostOptions(networks=networks, timeout_s=timeout_s, tls=tls)


def _wrong(key: str, name: str, error: ValueError) -> ConfigError:
    return ConfigError(source="settings", key=f"{key}.{name}", value="***", expected=str(error))


def _check_names(sinks: Sequence[Sink]) -> None:
    seen: set[str] = set()
    for sink in sinks:
        if sink.name in seen or sink.name == "policy":
            raise ConfigError(source="settings", key=f"sinks...{sink.name}", value=sink.name, expected="a name that no other sink has")
        seen.add(sink.name)


@dataclass(frozen=True, slots=True)
class Standing:
    """A pool that stands above healthy or is unknown, and whose it is."""

    account: str
    pool: str
    level: Level
    unknown: str | None
    group: str | None
    venue: str | None


async def adopt_standing(links: Callable[[], Link], numbers: Sequence[int], sinks: Sequence[Sink]) -> int:
    """Tells sinks that keep the present state (MQTT's retained levels, Alertmanager) what stands in the ledger, and nothing else. How many.

    Raises LedgerUnavailable.
    """
    keepers = [sink for sink in sinks if isinstance(sink, MqttSink | AlertmanagerSink)]
    count = 0
    for sink in keepers:
        sink.forget()
    for number in numbers if keepers else ():
        wire = await links().open()
        try:
            async for each in standing_pools(wire, number):
                count += 1
                for sink in keepers:
                    named = {"account": each.account, "group": each.group, "pool": each.pool, "level": each.level, "unknown": each.unknown}
                    if isinstance(sink, MqttSink):
                        sink.adopt(**named)  # type: ignore[arg-type]
                    else:
                        sink.adopt(**named, venue=each.venue)  # type: ignore[arg-type]
        finally:
            wire.close()
    return count


async def standing_pools(wire: Wire, partition: int) -> AsyncIterator[Standing]:
    """Every pool of a partition that is not simply healthy. Damaged records are left to the load. Raises LedgerUnavailable."""
    keys = PartitionKeys.of(partition)
    cursor: bytes = b"0"
    while True:
        cursor, pairs = await wire.call("HSCAN", keys.levels, cursor, "COUNT", SCAN, timeout_s=30.0)
        found: dict[str, LevelRecord] = {}
        for name, sealed in zip(pairs[::2], pairs[1::2], strict=True):
            record = read_level(name.decode(), sealed)
            if record is not None and (record.level is not Level.HEALTHY or record.unknown is not None):
                found[name.decode()] = record
        accounts = list(dict.fromkeys(name.partition("/")[0] for name in found))
        whose: dict[str, Mapping[str, str | None]] = {}
        if accounts:
            documents = await wire.call("HMGET", keys.accounts, *accounts, timeout_s=30.0)
            whose = {account: _whose(account, sealed) for account, sealed in zip(accounts, documents, strict=True)}
        for name, record in found.items():
            account, _, pool = name.partition("/")
            yield Standing(account, pool, record.level, record.unknown, whose[account].get("group"), whose[account].get("venue"))
        if cursor == b"0":
            return


def _whose(account: str, sealed: bytes | None) -> Mapping[str, str | None]:
    read = read_account(account, sealed) if sealed is not None else None
    if read is None or read[1] is None:
        return {}
    document = json.loads(read[1]).get("account")
    return document if isinstance(document, dict) else {}
