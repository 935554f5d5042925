"""Events to an MQTT 5 broker: every event on a topic of its account, the present level retained, a will for our own death.

    <prefix>/<group>/<account>/event          QoS 1, the row's bytes as they stand in the ledger (`id` holds partition, seq and token)
    <prefix>/<group>/<account>/level          QoS 1, retained: the account (worst of its pools), and `pools`: those above healthy or unknown
    <prefix>/notice/<route>                   QoS 1, finished notices of the alert policy, where a route names this sink
    <prefix>/status[/<name>]                  QoS 1, retained: online with the latest heartbeat, offline by will or farewell

The heartbeat says until when we were alive, and of each partition the last row that the broker has taken, with its hash: by it a receiver
finds that it has heard everything, and that the chain is the ledger's.

A row is delivered when the broker has acknowledged all of its messages with success.
"""

from __future__ import annotations

import asyncio
import random
import re
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import orjson

from monitor.margin.levels import Level
from monitor.sinks.base import Backoff, Reason, SinkStatistics, is_addressed_to, read_body, shortened
from monitor.sinks.mqtt_connection import ConnectionEnded, MqttConnection, Publication, Refusal, TooLarge, Will
from monitor.wire.mqtt import reason
from monitor.wire.rows import Delivered, Delivery, Refused, Row, Unavailable

__all__ = ["MqttOptions", "MqttSink", "topic_level"]

FAREWELL_S = 1.5
"""How long `close` may take to say goodbye."""

LEADS_S = 0.1
"""How often a process that waits to lead looks whether it does."""
HELD_S = 30.0
"""A connection that held this long was a good one: the next back-off starts anew."""

TOPIC_BYTES = 600
"""Room kept for prefix, group and account (at most 128 characters each) when a payload is made to fit."""

PLAIN = re.compile(r"(?!-$)[A-Za-z0-9_.~:@-]+", re.ASCII)
BUSY = frozenset({0x88, 0x89, 0x97, 0x9F})


def topic_level(name: object) -> str:
    """A name as one level of a topic: `/ + # $ %` and whatever is not plain ASCII as %XX; `-` when there is none."""
    text = "" if name is None else str(name)
    if PLAIN.fullmatch(text):
        return text
    return "%2D" if text == "-" else quote(text, safe=":@") or "-"


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttOptions:
    """How the broker is reached and how much is under way.

    Attributes:
        client_id: Fixed for a set of partitions: when another process takes them over, the broker itself throws the old one out.
        status_name: Last level of the status topic when several processes share a broker; empty for one.
        tls: None for plain TCP.
        timeout_s: For a connection, and for the next acknowledgement of what is under way.
        keepalive_s: A silent broker is given up after twice this time.
        heartbeat_s: How often the status is said anew.
        max_in_flight: Rows under way at once.
        max_payload_bytes: Above it inputs, then positions, then the cure are left out of the payload; `truncated` names them.
    """

    host: str
    port: int = 1883
    client_id: str = "margin-monitor"
    status_name: str = ""
    prefix: str = "margin"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None
    timeout_s: float = 10.0
    keepalive_s: int = 15
    heartbeat_s: float = 10.0
    max_in_flight: int = 500
    max_payload_bytes: int = 262_144

    @property
    def status_topic(self) -> str:
        """Where the sink says that it is there, and the broker that it is not."""
        return f"{self.prefix}/status/{topic_level(self.status_name)}" if self.status_name else f"{self.prefix}/status"


class MqttSink:
    """One broker.

    Args:
        may_connect: Asked before each connection and each heartbeat; False while another process leads the partitions.
        uniform: Source of the jitter.
        clock: Wall time, for the heartbeat.
    """

    def __init__(
        self,
        options: MqttOptions,
        *,
        name: str = "mqtt",
        may_connect: Callable[[], bool] = _always,
        uniform: Callable[[float, float], float] = random.uniform,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.statistics = SinkStatistics()
        self.batch_rows = options.max_in_flight
        self.last_error = Unavailable(Reason.UNREACHABLE, detail="not connected yet")
        self._options = options
        self._may_connect, self._clock = may_connect, clock
        self._backoff = Backoff(uniform, most_s=15.0)
        self._turns: dict[str, _Turn] = {}
        self._connection: MqttConnection | None = None
        self._connected = asyncio.Event()
        self._standing: dict[str, _Standing] = {}
        self._places: dict[int, Row] = {}
        self._group: asyncio.TaskGroup | None = None
        self._closing: asyncio.Future[None] | None = None

    @property
    def is_connected(self) -> bool:
        """True while the broker has accepted us and the connection stands."""
        return self._connection is not None

    async def open(self) -> None:
        """Starts connecting; an absent broker does not hold the caller up."""
        assert self._group is None, "open() once"
        self._group = await asyncio.TaskGroup().__aenter__()
        self._closing = asyncio.get_running_loop().create_future()
        self._group.create_task(self._keep_connected(self._closing), name=f"{self.name}: connection")

    async def close(self) -> None:
        """Says `offline` where that is still possible, and disconnects."""
        if self._group is None or self._closing is None:
            return
        group, self._group = self._group, None
        if not self._closing.done():
            self._closing.set_result(None)
        await group.__aexit__(None, None, None)

    async def deliver(self, row: Row) -> Delivery:
        """Publishes a row: event, account level; waits for the connection and for each acknowledgement.

        Rows of one account go one after the other: while an earlier one has not arrived, a later one is `unavailable`, so that a retained
        level never goes back in time.
        """
        try:
            body = read_body(row)
        except ValueError as error:
            return self.statistics.count(Refused(Reason.REJECTED, str(error)))
        if not is_addressed_to(body, self.name):
            return Delivered()
        account = str(body.get("account", ""))
        before, mine = self._turns.get(account), _Turn()
        self._turns[account] = mine
        self.statistics.entered()
        try:
            if before is not None and not await before.went_well():
                return self.statistics.count(Unavailable(Reason.EARLIER, detail="an earlier row of the account was not delivered"))
            delivery = await self._publish(row, body)
            mine.is_good = not isinstance(delivery, Unavailable)
            return self.statistics.count(delivery)
        finally:
            self.statistics.in_flight -= 1
            mine.over.set()
            if self._turns.get(account) is mine:
                del self._turns[account]

    async def deliver_batch(self, rows: Sequence[Row]) -> int:
        """Publishes rows at once, up to the first whose account is among them already. How many, from the first on, have arrived."""
        connection = self._connection
        if connection is None:
            return 0
        accounts: set[str] = set()
        sent: list[tuple[Row, dict[str, Any], list[Publication], asyncio.Future[list[int]]]] = []
        try:
            for row in rows:
                body = read_body(row)
                account = str(body.get("account", ""))
                if account in accounts or account in self._turns or not is_addressed_to(body, self.name):
                    break
                accounts.add(account)
                messages = self._messages(row, body, connection)
                sent.append((row, body, messages, connection.publish(messages)))
        except (ValueError, TooLarge, ConnectionEnded):
            pass  # the worker offers it by itself, and hears why
        self.statistics.in_flight += len(sent)
        self.statistics.in_flight_high = max(self.statistics.in_flight_high, self.statistics.in_flight)
        count = 0
        try:
            for row, body, messages, codes in sent:
                if not isinstance(_verdict(messages, await codes), Delivered):
                    break
                self._settle(row, body)
                count += 1
        except ConnectionEnded:
            pass
        finally:
            self.statistics.in_flight -= len(sent)
            self.statistics.delivered += count
        return count

    def forget(self) -> None:
        """Forgets what stands: another process may have told more since. `adopt` follows."""
        self._standing.clear()

    def adopt(self, *, account: str, group: str | None, pool: str, level: Level, unknown: str | None) -> None:
        """Tells the sink of a pool that stands above healthy or is unknown since before this process: its rows may be long delivered.

        Call it for every such pool of the ledger before the first row, else the account's retained level may be too good until each of
        its pools has moved once.
        """
        self._standing.setdefault(account, _Standing(group)).see(pool, level, unknown)

    def _messages(self, row: Row, body: Mapping[str, Any], connection: MqttConnection) -> list[Publication]:
        """The messages of a row, in the order in which they are sent."""
        if body.get("kind") == "notice":
            payload = self._fitted(row, body, connection)
            return [Publication(f"{self._options.prefix}/notice/{topic_level(body.get('route'))}", payload, is_retained=False)]
        group, account, pool = body.get("group"), body.get("account"), body.get("pool")
        topic = self._account_topic(group, account)
        messages = [Publication(f"{topic}/event", self._fitted(row, body, connection), is_retained=False)]
        if body.get("level") is None or account is None or pool is None:
            return messages
        level, unknown = Level.of(body["level"]), body.get("unknown")
        standing = self._standing.setdefault(account, _Standing(group))
        if standing.group != group:
            messages.append(Publication(f"{self._account_topic(standing.group, account)}/level", b""))
        standing.see(pool, level, unknown)
        messages.append(Publication(f"{topic}/level", _level(row, body, standing)))
        return messages

    def _settle(self, row: Row, body: Mapping[str, Any]) -> None:
        """After a row has arrived: remembers its place and its group, and forgets accounts of which nothing stands."""
        if body.get("kind") != "notice":
            known = self._places.get(row.partition)
            if known is None or (row.token, row.seq) > (known.token, known.seq):
                self._places[row.partition] = row
        standing = self._standing.get(str(body.get("account")))
        if standing is not None:
            standing.group = body.get("group")
            if not standing.pools:
                del self._standing[str(body.get("account"))]

    def _account_topic(self, group: object, account: object) -> str:
        return f"{self._options.prefix}/{topic_level(group)}/{topic_level(account)}"

    def _fitted(self, row: Row, body: Mapping[str, Any], connection: MqttConnection) -> bytes:
        """The row's own bytes, or the same without the long lists when the broker or the options do not take that much."""
        allowed = self._options.max_payload_bytes
        if connection.maximum_packet_size is not None:
            allowed = min(allowed, connection.maximum_packet_size - TOPIC_BYTES)
        payload = shortened(row.body, body, allowed)
        self.statistics.trimmed += payload is not row.body
        return payload

    async def _publish(self, row: Row, body: Mapping[str, Any]) -> Delivery:
        """Sends all messages of a row and waits for all acknowledgements."""
        try:
            async with asyncio.timeout(self._options.timeout_s):
                while (connection := self._connection) is None:
                    await self._connected.wait()
        except TimeoutError:
            return self.last_error
        try:
            messages = self._messages(row, body, connection)
            codes = await connection.publish(messages)
        except TooLarge as error:
            return Refused(Reason.TOO_LARGE, str(error))
        except ConnectionEnded as error:
            return Unavailable(Reason.TIMEOUT if error.is_timeout else Reason.CLOSED, detail=str(error))
        delivery = _verdict(messages, codes)
        if isinstance(delivery, Delivered):
            self._settle(row, body)
        return delivery

    async def _keep_connected(self, closing: asyncio.Future[None]) -> None:
        """Connects, again and again, until `close`. Waits between attempts also when the broker closed the last connection politely."""
        loop = asyncio.get_running_loop()
        while not closing.done():
            if not self._may_connect():  # no failure: when it leads it must connect at once
                self.last_error = Unavailable(Reason.NOT_LEADING, detail="another process holds the partitions")
                self._backoff.reset()
                await asyncio.wait((closing,), timeout=LEADS_S)
                continue
            started = loop.time()
            self.last_error = await self._one_connection(closing)
            if loop.time() - started >= HELD_S:
                self._backoff.reset()
            await asyncio.wait((closing,), timeout=self._backoff.next())

    async def _one_connection(self, closing: asyncio.Future[None]) -> Unavailable:
        """One connection from beginning to end; returns why it ended."""
        options = self._options
        try:
            connection = await MqttConnection.open(
                options.host,
                options.port,
                client_id=options.client_id,
                will=Will(options.status_topic, orjson.dumps(self._status("offline", "the connection was lost"))),
                username=options.username,
                password=options.password,
                tls=options.tls,
                timeout_s=options.timeout_s,
                keepalive_s=options.keepalive_s,
            )
        except TimeoutError:
            return Unavailable(Reason.TIMEOUT, detail=f"no connection within {options.timeout_s:g} s")
        except ssl.SSLError as error:
            return Unavailable(Reason.TLS, detail=str(error))
        except Refusal as error:
            why = f"the broker refuses the connection: {error}"
            return Unavailable(Reason.BUSY if error.code in BUSY else Reason.DENIED, detail=why)
        except ConnectionEnded as error:
            return Unavailable(Reason.CLOSED, detail=str(error))
        except OSError as error:
            return Unavailable(Reason.UNREACHABLE, detail=str(error))
        try:
            return await self._use(connection, closing)
        finally:
            await connection.leave(FAREWELL_S / 2)

    async def _use(self, connection: MqttConnection, closing: asyncio.Future[None]) -> Unavailable:
        """Lets rows through while the connection stands, and says from time to time that it does; returns why it ended."""
        online = await self._send_status(connection, "online")
        if isinstance(online, Refused):
            return Unavailable(online.reason, detail=f"the broker does not let us write to {self._options.status_topic}: {online.detail}")
        if isinstance(online, Unavailable):
            return online
        self.statistics.connects += 1
        self._connection = connection
        self._connected.set()
        try:
            while (why := await connection.ended(closing, self._options.heartbeat_s)) is None and not closing.done():
                if self._may_connect():
                    await self._send_status(connection, "online")
        finally:
            self._connection = None
            self._connected.clear()
        if why is None:
            await self._send_status(connection, "offline", "closed")
        return Unavailable(Reason.CLOSED, detail=str(why or "closed by us"))

    def _status(self, status: str, why: str | None = None) -> dict[str, Any]:
        told: dict[str, Any] = {"status": status, "client_id": self._options.client_id}
        if why is not None:
            return {**told, "why": why}
        delivered = {str(number): {"seq": row.seq, "token": row.token, "hash": row.hash} for number, row in self._places.items()}
        return {**told, "at_ms": int(self._clock() * 1000), "delivered": delivered}

    async def _send_status(self, connection: MqttConnection, status: str, why: str | None = None) -> Delivery:
        """Publishes the retained status on this very connection."""
        messages = [Publication(self._options.status_topic, orjson.dumps(self._status(status, why)))]
        limit = FAREWELL_S / 2 if status == "offline" else self._options.timeout_s
        try:
            async with asyncio.timeout(limit):
                codes = await connection.publish(messages)
        except TimeoutError:
            return Unavailable(Reason.TIMEOUT, detail=f"no acknowledgement of the status within {limit:g} s")
        except ConnectionEnded as error:
            return Unavailable(Reason.TIMEOUT if error.is_timeout else Reason.CLOSED, detail=str(error))
        return _verdict(messages, codes)


class _Standing:
    """The pools of one account that stand above healthy or are unknown, and the group under whose topics that was said."""

    __slots__ = ("group", "pools")

    def __init__(self, group: str | None) -> None:
        self.group = group
        self.pools: dict[str, tuple[Level, str | None]] = {}

    def see(self, pool: str, level: Level, unknown: str | None) -> None:
        if level is Level.HEALTHY and unknown is None:
            self.pools.pop(pool, None)
        else:
            self.pools[pool] = (level, unknown)

    def worst(self) -> tuple[Level, str | None]:
        """The worst level of the account's pools, and why it cannot be claimed if one of them is unknown."""
        level = max((level for level, _ in self.pools.values()), default=Level.HEALTHY)
        return level, next((unknown for _, unknown in self.pools.values() if unknown is not None), None)


class _Turn:
    """A row's place in the order of its account."""

    __slots__ = ("is_good", "over")

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.is_good = False

    async def went_well(self) -> bool:
        await self.over.wait()
        return self.is_good


def _level(row: Row, body: Mapping[str, Any], standing: _Standing) -> bytes:
    """What a retained level says. While the verdict is unknown `level` is null: an old level must not be read as the present one.

    The pool that moved tells its ratio, and is named also when it is healthy again.
    """
    moved = str(body.get("pool"))
    pools = {name: _claim(*verdict) for name, verdict in {moved: (Level.HEALTHY, None), **standing.pools}.items()}
    if pools[moved]["unknown"] is None:
        pools[moved]["margin_ratio"] = body.get("margin_ratio")
    about = {"rev": body.get("rev"), "seq": row.seq, "token": row.token, "id": row.id, "decided_at_ns": body.get("decided_at_ns")}
    return orjson.dumps({**_claim(*standing.worst()), "account": body.get("account"), "pools": pools, **about})


def _claim(level: Level, unknown: str | None) -> dict[str, Any]:
    known = {"level": level.word} if unknown is None else {"level": None, "last_level": level.word}
    return {**known, "unknown": unknown}


def _verdict(messages: Sequence[Publication], codes: Sequence[int]) -> Delivery:
    """What the PUBACKs' reason codes (MQTT 5, section 3.4.2.1) mean for the row: the first failure counts."""
    for message, code in zip(messages, codes, strict=True):
        if code < 0x80:
            continue
        detail = f"{message.topic}: {reason(code)}"
        match code:
            case 0x87:  # not authorized
                return Refused(Reason.DENIED, detail)
            case 0x90 | 0x99:  # topic name invalid, payload format invalid
                return Refused(Reason.REJECTED, detail)
            case 0x95:  # packet too large
                return Refused(Reason.TOO_LARGE, detail)
            case 0x97:  # quota exceeded
                return Unavailable(Reason.BUSY, detail=detail)
            case _:
                return Unavailable(Reason.SERVER_ERROR, detail=detail)
    return Delivered()
