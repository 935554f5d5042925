"""Messages to people over apprise: one address of one service, say a channel of a chat or a mailbox.

Optional: `pip install "margin-monitor[chat]"`. apprise blocks, so it runs in one thread of its own: a service that hangs holds up this sink
only. One address a sink, since apprise would send again to those that had already taken the message.
"""

from __future__ import annotations

import asyncio
import importlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from monitor.alerting.messages import Markup, render
from monitor.sinks.base import Reason, SinkStatistics, is_addressed_to, read_body
from monitor.wire.rows import Delivered, Delivery, Refused, Row, Unavailable

__all__ = ["ChatSink"]


class ChatSink:
    """One apprise address (https://github.com/caronc/apprise/wiki lists the forms).

    Raises ValueError when apprise is not installed or does not know the address; the text does not repeat the address, which holds secrets.
    """

    def __init__(self, address: str, *, name: str = "chat", markup: Markup = Markup.TEXT, timeout_s: float = 30.0) -> None:
        try:
            apprise: Any = importlib.import_module("apprise")
        except ImportError:
            raise ValueError('apprise to be installed: pip install "margin-monitor[chat]"') from None
        self._service = apprise.Apprise()
        if not self._service.add(address):
            raise ValueError("an address that apprise knows")
        self.name = name
        self.statistics = SinkStatistics()
        self._markup, self._timeout_s = markup, timeout_s
        self._format = {Markup.TEXT: apprise.NotifyFormat.TEXT, Markup.MARKDOWN: apprise.NotifyFormat.MARKDOWN}[markup]
        self._thread: ThreadPoolExecutor | None = None
        self._running: asyncio.Future[Any] | None = None

    async def open(self) -> None:
        """Prepares the thread."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=self.name)

    async def deliver(self, row: Row) -> Delivery:
        """Sends a notice that names this sink, or an event in full."""
        try:
            body = read_body(row)
        except ValueError as error:
            return self.statistics.count(Refused(Reason.REJECTED, str(error)))
        if not is_addressed_to(body, self.name):
            return Delivered()
        if body.get("kind") == "notice":
            title, text = str(body.get("title", "")), str(body.get(self._markup.value, ""))
        else:
            message = render(body, self._markup)
            title, text = message.title, message.body
        self.statistics.entered()
        try:
            return self.statistics.count(await self._send(title, text))
        finally:
            self.statistics.in_flight -= 1

    async def close(self) -> None:
        """Does not wait for a service that hangs."""
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)
            self._thread = None

    async def _send(self, title: str, text: str) -> Delivery:
        assert self._thread is not None, "open() first"
        if self._running is not None and not self._running.done():
            return Unavailable(Reason.TIMEOUT, detail="the message before is still under way")
        call = lambda: self._service.notify(title=title, body=text, body_format=self._format)  # noqa: E731 - runs in the thread
        self._running = asyncio.get_running_loop().run_in_executor(self._thread, call)
        done, _ = await asyncio.wait((self._running,), timeout=self._timeout_s)
        if not done:
            return Unavailable(Reason.TIMEOUT, detail=f"not sent within {self._timeout_s:g} s")
        try:
            was_sent = bool(self._running.result())
        except Exception as error:  # noqa: BLE001 - whatever a plug-in raises, the row is not delivered
            return Unavailable(Reason.PROTOCOL, detail=f"{type(error).__name__}: {error}")
        return Delivered() if was_sent else Unavailable(Reason.SERVER_ERROR, detail="the service did not take the message")
