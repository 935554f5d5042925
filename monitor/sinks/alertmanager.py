"""Levels as alerts of a Prometheus Alertmanager (API v2), which groups, silences and routes them with everything else.

    alertname MarginLevel    labels account, pool, group, venue, severity (the level); fires while the pool stands above healthy
    alertname MarginUnknown  labels account, pool, group, venue; fires while the level cannot be claimed
    alertname MarginBlind    labels partition; fires for an hour

Alertmanager forgets alerts when it restarts and resolves those that nobody sends again. So what fires is sent again every `resend_s`, with
an end `hold_s` ahead: after our own restart nothing is resolved by silence, only by an event that says so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from monitor.alerting.messages import headline, line
from monitor.margin.levels import Level
from monitor.sinks.base import Reason, SinkStatistics, is_addressed_to, read_body
from monitor.sinks.http_post import HttpFailure, PostOptions, Target, delivery_of, post
from monitor.wire.rows import Delivered, Delivery, Refused, Row, Unavailable

__all__ = ["AlertmanagerOptions", "AlertmanagerSink"]

BATCH = 200
BLIND_S = 3600.0
PATH = "/api/v2/alerts"

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertmanagerOptions:
    """Where Alertmanager is. `url` is its base address, e.g. http://127.0.0.1:9093; plain HTTP needs an allowed network in `post`."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    post: PostOptions = field(default_factory=PostOptions)
    resend_s: float = 60.0
    hold_s: float = 86_400.0


class AlertmanagerSink:
    """One Alertmanager; for a cluster, one sink a member. Raises ValueError for an address that cannot be used."""

    def __init__(
        self,
        options: AlertmanagerOptions,
        *,
        name: str = "alertmanager",
        may_send: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepares. `may_send` is False while another process leads: what fires is then sent again by that one."""
        base = Target.of(options.url)
        self.name = name
        self.statistics = SinkStatistics()
        self.resent = 0
        self._options, self._may_send, self._clock = options, may_send, clock
        self._target = Target(base.is_secure, base.host, base.port, base.path.rstrip("/") + PATH)
        self._firing: dict[Labels, dict[str, Any]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._closing: asyncio.Future[None] | None = None

    @property
    def firing(self) -> int:
        """Alerts that are sent again and again."""
        return len(self._firing)

    async def open(self) -> None:
        """Starts sending again what fires."""
        assert self._group is None, "open() once"
        self._group = await asyncio.TaskGroup().__aenter__()
        self._closing = asyncio.get_running_loop().create_future()
        self._group.create_task(self._resend(self._closing), name=f"{self.name}: resend")

    async def close(self) -> None:
        """Stops; nothing is resolved by it."""
        if self._group is None or self._closing is None:
            return
        group, self._group = self._group, None
        if not self._closing.done():
            self._closing.set_result(None)
        await group.__aexit__(None, None, None)

    def forget(self) -> None:
        """Forgets what fires: another process may have told more since. `adopt` follows."""
        self._firing.clear()

    def adopt(self, *, account: str, group: str | None, venue: str | None, pool: str, level: Level, unknown: str | None) -> None:
        """Tells the sink of a pool that stands above healthy or is unknown since before this process, so that it is sent again too."""
        body = {"account": account, "group": group, "venue": venue, "pool": pool, "level": level.word, "unknown": unknown}
        for labels, alert in self._alerts({**body, "kind": "level", "previous": "healthy"}, self._clock()):
            self._firing.setdefault(labels, alert)

    async def deliver(self, row: Row) -> Delivery:
        """Posts what an event makes fire and what it resolves. Notices are not for Alertmanager: it makes its own."""
        try:
            body = read_body(row)
        except ValueError as error:
            return self.statistics.count(Refused(Reason.REJECTED, str(error)))
        if body.get("kind") in {"notice", "numbers"} or not is_addressed_to(body, self.name):
            return Delivered()
        alerts = self._alerts(body, self._clock())
        self.statistics.entered()
        try:
            delivery = await self._send([alert for _, alert in alerts])
        finally:
            self.statistics.in_flight -= 1
        if isinstance(delivery, Delivered):
            for labels, alert in alerts:
                if "startsAt" in alert and body.get("kind") != "blind":
                    self._firing[labels] = alert
                else:
                    self._firing.pop(labels, None)
        return self.statistics.count(delivery)

    def _alerts(self, body: Mapping[str, Any], now: float) -> list[tuple[Labels, dict[str, Any]]]:
        """What fires (with `startsAt`) and what is over (without), from one event."""
        about = {"summary": headline(body), "description": line(body)}
        decided = body.get("decided_at_ns")
        since = decided / 1e9 if type(decided) is int else now
        if body.get("kind") == "blind":
            labels = _labels("MarginBlind", {"partition": str(body.get("id", "?")).partition("/")[0]})
            return [(labels, _alert(labels, about, since, now + BLIND_S))]
        whose = {key: body.get(key) for key in ("account", "pool", "group", "venue")}
        alerts: list[tuple[Labels, dict[str, Any]]] = []
        unknown = _labels("MarginUnknown", whose)
        if body.get("unknown") is not None:
            alerts.append((unknown, _alert(unknown, about, since, now + self._options.hold_s)))
            if body.get("level") == body.get("previous"):
                return alerts  # the level goes on firing as the last one known
        elif body.get("previous_unknown") is not None:
            alerts.append((unknown, _alert(unknown, about, None, now)))
        for level, fires in ((body.get("previous"), False), (body.get("level"), True)):
            if level in {None, Level.HEALTHY.word} or (not fires and level == body.get("level")):
                continue
            labels = _labels("MarginLevel", {**whose, "severity": level})
            alerts.append((labels, _alert(labels, about, since if fires else None, now + self._options.hold_s if fires else now)))
        return alerts

    async def _send(self, alerts: list[dict[str, Any]]) -> Delivery:
        if not alerts:
            return Delivered()
        headers = {"Content-Type": "application/json", "User-Agent": "margin-monitor", **self._options.headers}
        try:
            answer = await post(self._target, orjson.dumps(alerts), headers, self._options.post)
        except HttpFailure as failure:
            return Unavailable(failure.reason, detail=failure.detail)
        return delivery_of(answer, self._clock())

    async def _resend(self, closing: asyncio.Future[None]) -> None:
        while not closing.done():
            await asyncio.wait((closing,), timeout=self._options.resend_s)
            for batch in _batches(list(self._firing)):
                if closing.done():
                    return
                if not self._may_send():
                    break
                ends = _time(self._clock() + self._options.hold_s)
                # looked up anew: an event may have resolved it meanwhile
                alerts = [{**self._firing[labels], "endsAt": ends} for labels in batch if labels in self._firing]
                if not isinstance(await self._send(alerts), Delivered):
                    break
                self.resent += len(alerts)


def _labels(name: str, values: Mapping[str, Any]) -> Labels:
    return (("alertname", name), *((key, str(value)) for key, value in values.items() if value))


def _alert(labels: Labels, annotations: Mapping[str, str], starts: float | None, ends: float) -> dict[str, Any]:
    alert: dict[str, Any] = {"labels": dict(labels), "annotations": dict(annotations), "endsAt": _time(ends)}
    return alert if starts is None else {**alert, "startsAt": _time(starts)}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _batches(labels: list[Labels]) -> Iterable[list[Labels]]:
    return (labels[start : start + BATCH] for start in range(0, len(labels), BATCH))
