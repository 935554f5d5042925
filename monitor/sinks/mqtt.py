"""Events to an MQTT 5 broker: every event on a topic of its account, the present level retained, a will for our own death.

    <prefix>/<group>/<account>/event          QoS 1, the row's bytes as they stand in the ledger (`id` holds partition, seq and token)
    <prefix>/<group>/<account>/level          QoS 1, retained: the account (worst of its pools), and `pools`: those above healthy or unknown
    <prefix>/notice/<route>                   QoS 1, finished notices of the alert policy, where a route names this sink
    <prefix>/status[/<name>]                  QoS 1, retained: online with the latest heartbeat, offline by will or farewell

A row is delivered when the broker has acknowledged all of its messages with success. aiomqtt counts any PUBACK as success, also one
that says "not authorized", and goes on waiting when the connection breaks: `_Connection` sees the reason code and the break.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import aiomqtt
import orjson
import paho.mqtt.client as paho
from aiomqtt.exceptions import MqttConnectError
from aiomqtt.types import PahoSocket
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from monitor.margin.levels import Level
from monitor.sinks.base import Backoff, Reason, SinkStatistics, is_addressed_to, read_body, shortened
from monitor.wire.rows import Delivered, Delivery, Refused, Row, Unavailable

__all__ = ["MqttOptions", "MqttSink", "topic_level"]

FAREWELL_S = 1.5
"""How long `close` may take to say goodbye."""

LEADS_S = 0.1
"""How often a process that waits to lead looks whether it does."""
HELD_S = 30.0
"""A connection that held this long was a good one: the next back-off starts anew."""

QUICK_ACKNOWLEDGEMENT: int | None = getattr(socket, "TCP_QUICKACK", None)
"""Linux only."""

PACKET_BYTES = 16
"""Fixed header, lengths, packet id and properties of a PUBLISH, rounded up."""

TOPIC_BYTES = 600
"""Room kept for prefix, group and account (at most 128 characters each) when a payload is made to fit."""


def topic_level(name: object) -> str:
    """A name as one level of a topic: `/ + # $ %` and whatever is not plain ASCII as %XX; `-` when there is none."""
    text = "" if name is None else str(name)
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
        timeout_s: For a connection, and for each acknowledgement.
        keepalive_s: A silent broker is given up after twice this time.
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
    max_in_flight: int = 8
    max_payload_bytes: int = 262_144

    @property
    def status_topic(self) -> str:
        """Where the sink says that it is there, and the broker that it is not."""
        return f"{self.prefix}/status/{topic_level(self.status_name)}" if self.status_name else f"{self.prefix}/status"


class MqttSink:
    """One broker.

    Args:
        may_connect: Asked before each connection; False while another process leads the partitions.
        uniform: Source of the jitter.
    """

    def __init__(
        self,
        options: MqttOptions,
        *,
        name: str = "mqtt",
        may_connect: Callable[[], bool] = _always,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.name = name
        self.statistics = SinkStatistics()
        self.batch_rows = options.max_in_flight
        self.last_error = Unavailable(Reason.UNREACHABLE, detail="not connected yet")
        self._options = options
        self._may_connect = may_connect
        self._backoff = Backoff(uniform, most_s=15.0)
        self._slots = asyncio.Semaphore(options.max_in_flight)
        self._turns: dict[str, _Turn] = {}
        self._connection: _Connection | None = None
        self._connected = asyncio.Event()
        self._standing: dict[str, _Standing] = {}
        self._heartbeat: dict[str, Any] = {}
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

    async def announce(self, heartbeat: Mapping[str, Any]) -> bool:
        """Puts a heartbeat (last sequence and hash of each partition, say) on the status topic. False when it could not be sent now."""
        self._heartbeat = dict(heartbeat)
        connection = self._connection
        return connection is not None and isinstance(await self._send_status(connection, "online"), Delivered)

    async def deliver(self, row: Row) -> Delivery:
        """Publishes a row: event, pool level, account level; waits for the connection and for each acknowledgement.

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
            async with self._slots:
                delivery = await self._publish(row, body)
            mine.is_good = not isinstance(delivery, Unavailable)
            return self.statistics.count(delivery)
        finally:
            self.statistics.in_flight -= 1
            mine.over.set()
            if self._turns.get(account) is mine:
                del self._turns[account]

    async def deliver_batch(self, rows: Sequence[Row]) -> int:
        """Publishes several rows at once, those of one account one after the other. How many, from the first on, have arrived."""
        answers = await asyncio.gather(*(self.deliver(row) for row in rows))
        return next((count for count, answer in enumerate(answers) if not isinstance(answer, Delivered)), len(answers))

    def forget(self) -> None:
        """Forgets what stands: another process may have told more since. `adopt` follows."""
        self._standing.clear()

    def adopt(self, *, account: str, group: str | None, pool: str, level: Level, unknown: str | None) -> None:
        """Tells the sink of a pool that stands above healthy or is unknown since before this process: its rows may be long delivered.

        Call it for every such pool of the ledger before the first row, else the account's retained level may be too good until each of
        its pools has moved once.
        """
        self._standing.setdefault(account, _Standing(group)).see(pool, level, unknown)

    def _messages(self, row: Row, body: Mapping[str, Any], connection: _Connection) -> list[_Publication]:
        """The messages of a row, in the order in which they are sent."""
        if body.get("kind") == "notice":
            payload = self._fitted(row, body, connection)
            return [_Publication(f"{self._options.prefix}/notice/{topic_level(body.get('route'))}", payload, is_retained=False)]
        group, account, pool = body.get("group"), body.get("account"), body.get("pool")
        messages = [_Publication(f"{self._account_topic(group, account)}/event", self._fitted(row, body, connection), is_retained=False)]
        if body.get("level") is None or account is None or pool is None:
            return messages
        level, unknown = Level.of(body["level"]), body.get("unknown")
        standing = self._standing.setdefault(account, _Standing(group))
        if standing.group != group:
            messages.append(_Publication(f"{self._account_topic(standing.group, account)}/level", b""))
        standing.see(pool, level, unknown)
        messages.append(_Publication(f"{self._account_topic(group, account)}/level", _level(row, body, standing)))
        return messages

    def _settle(self, body: Mapping[str, Any]) -> None:
        """After a row has arrived: remembers under which group, and forgets accounts of which nothing stands."""
        standing = self._standing.get(str(body.get("account")))
        if standing is not None:
            standing.group = body.get("group")
            if not standing.pools:
                del self._standing[str(body.get("account"))]

    def _account_topic(self, group: object, account: object) -> str:
        return f"{self._options.prefix}/{topic_level(group)}/{topic_level(account)}"

    def _fitted(self, row: Row, body: Mapping[str, Any], connection: _Connection) -> bytes:
        """The row's own bytes, or the same without the long lists when the broker or the options do not take that much."""
        allowed = self._options.max_payload_bytes
        if connection.maximum_packet_size is not None:
            allowed = min(allowed, connection.maximum_packet_size - TOPIC_BYTES)
        payload = shortened(row.body, body, allowed)
        self.statistics.trimmed += payload is not row.body
        return payload

    async def _publish(self, row: Row, body: Mapping[str, Any]) -> Delivery:
        """Sends all messages of a row and waits for all acknowledgements."""
        connection: _Connection | None = None
        try:
            async with asyncio.timeout(self._options.timeout_s):
                while (connection := self._connection) is None:
                    await self._connected.wait()
                messages = self._messages(row, body, connection)
                codes = await connection.publish_acknowledged(messages)
        except TimeoutError:
            if connection is None:
                return self.last_error
            connection.abort()  # what was sent may still arrive: order is kept by starting anew
            return Unavailable(Reason.TIMEOUT, detail=f"no acknowledgement within {self._options.timeout_s:g} s")
        except _TooLarge as error:
            return Refused(Reason.TOO_LARGE, str(error))
        except aiomqtt.MqttError as error:
            return Unavailable(Reason.CLOSED, detail=str(error))
        delivery = _verdict(messages, codes)
        if isinstance(delivery, Delivered):
            self._settle(body)
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
        try:
            async with self._connection_to_broker() as connection:
                online = await self._send_status(connection, "online")
                if isinstance(online, Refused):
                    return Unavailable(
                        online.reason, detail=f"the broker does not let us write to {self._options.status_topic}: {online.detail}"
                    )
                if isinstance(online, Unavailable):
                    return online
                self.statistics.connects += 1
                self._connection = connection
                self._connected.set()
                try:
                    why = await connection.ended(closing)
                finally:
                    self._connection = None
                    self._connected.clear()
                if why is None:
                    await self._send_status(connection, "offline")
                    why = "closed by us"
                return Unavailable(Reason.CLOSED, detail=why)
        except TimeoutError:
            return Unavailable(Reason.TIMEOUT, detail=f"no connection within {self._options.timeout_s:g} s")
        except ssl.SSLError as error:
            return Unavailable(Reason.TLS, detail=str(error))
        except MqttConnectError as error:
            return Unavailable(Reason.DENIED, detail=f"the broker refuses the connection: {error}")
        except (aiomqtt.MqttError, OSError, ValueError) as error:
            return Unavailable(Reason.TLS if "certificate" in str(error).lower() else Reason.UNREACHABLE, detail=str(error))

    @contextlib.asynccontextmanager
    async def _connection_to_broker(self) -> AsyncIterator[_Connection]:
        options = self._options
        connection = _Connection(
            options,
            will=aiomqtt.Will(options.status_topic, orjson.dumps(self._status("offline", "the connection was lost")), qos=1, retain=True),
        )
        try:
            async with asyncio.timeout(options.timeout_s):
                await connection.__aenter__()
            yield connection
        finally:
            await connection.leave()

    def _status(self, status: str, why: str | None = None) -> dict[str, Any]:
        told = {"status": status, "client_id": self._options.client_id}
        return {**told, "why": why} if why else {**told, **self._heartbeat}

    async def _send_status(self, connection: _Connection, status: str) -> Delivery:
        """Publishes the retained status on this very connection."""
        messages = [_Publication(self._options.status_topic, orjson.dumps(self._status(status, "closed" if status == "offline" else None)))]
        limit = FAREWELL_S / 2 if status == "offline" else self._options.timeout_s
        try:
            async with asyncio.timeout(limit):
                codes = await connection.publish_acknowledged(messages)
        except TimeoutError:
            return Unavailable(Reason.TIMEOUT, detail=f"no acknowledgement of the status within {limit:g} s")
        except aiomqtt.MqttError as error:
            return Unavailable(Reason.CLOSED, detail=str(error))
        return _verdict(messages, codes)


@dataclass(frozen=True, slots=True)
class _Publication:
    """One message to publish with QoS 1."""

    topic: str
    payload: bytes
    is_retained: bool = True


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


class _TooLarge(aiomqtt.MqttError):
    """The broker has said that it takes no packet of this size."""


class _Connection(aiomqtt.Client):
    """One connection of aiomqtt, whose acknowledgements carry their reason code and whose end is noticed by everyone who waits."""

    def __init__(self, options: MqttOptions, *, will: aiomqtt.Will) -> None:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = 0
        super().__init__(
            options.host,
            options.port,
            identifier=options.client_id,
            protocol=aiomqtt.ProtocolVersion.V5,
            username=options.username,
            password=options.password,
            tls_context=options.tls,
            keepalive=options.keepalive_s,
            will=will,
            clean_start=True,
            properties=properties,
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
            timeout=float("inf"),  # its own time-outs use asyncio.wait_for, which swallows cancellations on Python 3.11
        )
        self._client.connect_timeout = min(options.timeout_s, 5.0)
        self._waiting: dict[int, _Acknowledgements] = {}
        self._disconnected.add_done_callback(self._give_up_waiting)
        self._is_given_up = False
        self.maximum_packet_size: int | None = None

    async def publish_acknowledged(self, messages: Sequence[_Publication]) -> list[ReasonCode]:
        """Publishes with QoS 1 and returns the broker's reason code of each. Raises MqttError when the connection ends first."""
        for message in messages:
            size = len(message.topic.encode()) + len(message.payload) + PACKET_BYTES
            if self.maximum_packet_size is not None and size > self.maximum_packet_size:
                raise _TooLarge(f"{size} bytes for {message.topic}: the broker takes packets of {self.maximum_packet_size} bytes")
        if self._disconnected.done():
            raise aiomqtt.MqttError(self._why())
        group = _Acknowledgements(len(messages), self._loop.create_future())
        try:
            for message in messages:
                sent = self._client.publish(message.topic, message.payload, qos=1, retain=message.is_retained)
                if sent.rc != paho.MQTT_ERR_SUCCESS:
                    raise aiomqtt.MqttCodeError(sent.rc, "could not publish")
                group.ids.append(sent.mid)
                self._waiting[sent.mid] = group  # in time: acknowledgements are read by this very loop
            return await group.codes
        finally:
            for message_id in group.ids:
                self._waiting.pop(message_id, None)

    def _acknowledge_quickly(self) -> None:
        """Has the kernel send the TCP acknowledgement that it holds back.

        A broker that leaves Nagle's algorithm on (mosquitto's default) holds all PUBACKs but the first back until that one is acknowledged,
        which would be after 40 ms: a burst of 11,279 events took 60 s. The kernel forgets the wish by itself, so it is said each time.
        """
        connected = self._client.socket()
        if QUICK_ACKNOWLEDGEMENT is not None and isinstance(connected, socket.socket):
            with contextlib.suppress(OSError):
                connected.setsockopt(socket.IPPROTO_TCP, QUICK_ACKNOWLEDGEMENT, 1)

    async def ended(self, closing: asyncio.Future[None]) -> str | None:
        """Waits for the end of the connection and returns why it came; None when `closing` came first."""
        await asyncio.wait((closing, self._disconnected), return_when=asyncio.FIRST_COMPLETED)
        return self._why() if self._disconnected.done() else None

    def abort(self) -> None:
        """Breaks the connection off; the ordinary path then notices and tidies up."""
        connected = self._client.socket()
        if isinstance(connected, socket.socket):
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)

    async def leave(self) -> None:
        """Disconnects: politely if the broker lets us, else by breaking off. Never raises for what the broker does."""
        self._is_given_up = True
        try:
            async with asyncio.timeout(FAREWELL_S / 2):
                if self._connected.done() and not self._connected.cancelled() and self._connected.exception() is None:
                    await self.__aexit__(None, None, None)
        except (TimeoutError, aiomqtt.MqttError):
            pass
        finally:
            self.abort()

    def _why(self) -> str:
        error = self._disconnected.exception() if self._disconnected.done() else None
        return str(error) if error is not None else "the connection was closed"

    def _client_connect(self) -> None:
        """Runs in a thread that cannot be cancelled: when it comes too late, it closes what it has opened."""
        super()._client_connect()
        if self._is_given_up:
            self.abort()

    def _on_connect(
        self, client: paho.Client, userdata: Any, flags: paho.ConnectFlags, reason_code: ReasonCode, properties: Properties | None = None
    ) -> None:
        self.maximum_packet_size = getattr(properties, "MaximumPacketSize", None)
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _on_disconnect(
        self, client: paho.Client, userdata: Any, flags: paho.DisconnectFlags, reason_code: ReasonCode, properties: Properties | None = None
    ) -> None:
        if not self._connected.cancelled():  # given up while connecting: nobody waits any more
            super()._on_disconnect(client, userdata, flags, reason_code, properties)

    def _on_socket_register_write(self, client: paho.Client, userdata: Any, sock: PahoSocket) -> None:  # noqa: ARG002
        """Adds the writer later, as the connecting thread must, but not for a socket that has been closed meanwhile."""

        def write() -> None:
            try:
                client.loop_write()
            except (OSError, ValueError) as error:
                if not self._disconnected.done():
                    self._disconnected.set_exception(error)

        def add() -> None:
            if sock.fileno() >= 0 and client.want_write():
                self._loop.add_writer(sock.fileno(), write)

        self._loop.call_soon_threadsafe(add)

    def _on_publish(
        self,
        client: paho.Client,  # noqa: ARG002 - the signature is aiomqtt's
        userdata: Any,  # noqa: ARG002
        mid: int,
        reason_code: ReasonCode,
        properties: Properties,  # noqa: ARG002
    ) -> None:
        self._acknowledge_quickly()
        group = self._waiting.pop(mid, None)
        if group is not None:
            group.take(mid, reason_code)

    def _give_up_waiting(self, _disconnected: asyncio.Future[None]) -> None:
        for group in {id(each): each for each in self._waiting.values()}.values():
            if not group.codes.done():
                group.codes.set_exception(aiomqtt.MqttError(self._why()))


class _Acknowledgements:
    """Reason codes of a few messages, in the order in which they were sent."""

    __slots__ = ("_codes", "_count", "codes", "ids")

    def __init__(self, count: int, codes: asyncio.Future[list[ReasonCode]]) -> None:
        self.ids: list[int] = []
        self.codes = codes
        self._count, self._codes = count, dict[int, ReasonCode]()

    def take(self, message_id: int, code: ReasonCode) -> None:
        self._codes[message_id] = code
        if len(self._codes) == self._count and not self.codes.done():
            self.codes.set_result([self._codes[each] for each in self.ids])


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


def _verdict(messages: Sequence[_Publication], codes: Sequence[ReasonCode]) -> Delivery:
    """What the PUBACKs' reason codes (MQTT 5, section 3.4.2.1) mean for the row: the first failure counts."""
    for message, code in zip(messages, codes, strict=True):
        if not code.is_failure:
            continue
        detail = f"{message.topic}: {code} ({code.value})"
        match code.value:
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
