"""One HTTP/1.1 POST over its own connection, to an address that has been checked, with every wait and every size bounded.

A receiver's address is looked up once, each address is checked against what may be called, and the connection goes to the checked address
itself: a name that changes its answer in between (DNS rebinding) gains nothing. Redirects are not followed, proxies of the environment are
not used, and of an answer only the head and a little of the body are read.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from monitor.alerting.messages import clean
from monitor.sinks.base import Reason
from monitor.wire.rows import Delivered, Delivery, Refused, Unavailable

__all__ = ["Answer", "HttpFailure", "Networks", "PostOptions", "Target", "delivery_of", "post", "retry_after_s"]

HEAD_BYTES = 16_384
DETAIL_BYTES = 512
DETAIL_WAIT_S = 0.5
LONGEST_RETRY_S = 3600.0

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class HttpFailure(Exception):
    """No answer: the reason, and for people the detail. Stays inside the sinks."""

    def __init__(self, reason: Reason, detail: str) -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}")


@dataclass(frozen=True, slots=True)
class Target:
    """Where a POST goes.

    Attributes:
        path: With the query, percent-encoded, from `/` on.
    """

    is_secure: bool
    host: str
    port: int
    path: str

    @classmethod
    def of(cls, url: str) -> Target:
        """Reads `https://host[:port]/path` (or http).

        Raises ValueError with what was expected; the text does not repeat the address, which may be a secret.
        """
        if not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError("an address of printable ASCII without blanks")
        parts = urlsplit(url)
        if parts.scheme not in {"https", "http"}:
            raise ValueError("an address that begins with https://")
        if parts.username is not None or parts.password is not None:
            raise ValueError("an address without a user or password in it")
        if not parts.hostname or not re.fullmatch(r"[A-Za-z0-9.:_-]+", parts.hostname):
            raise ValueError("a host name")
        if parts.fragment:
            raise ValueError("an address without #")
        is_secure = parts.scheme == "https"
        port = parts.port if parts.port is not None else 443 if is_secure else 80
        if not 0 < port < 65_536:
            raise ValueError("a port from 1 to 65535")
        return cls(is_secure, parts.hostname, port, (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))

    def __str__(self) -> str:
        """Without the path, which often holds a secret."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_secure else 'http'}://{host}:{self.port}"

    @property
    def host_header(self) -> str:
        """The Host header: the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_secure else 80) else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Networks:
    """What may be called: public addresses over TLS, and these networks besides (over plain HTTP too)."""

    allowed: tuple[Network, ...] = ()

    @classmethod
    def of(cls, texts: Sequence[str]) -> Networks:
        """From `10.0.0.0/8`, `127.0.0.1`, `::1/128`. Raises ValueError."""
        return cls(tuple(ipaddress.ip_network(text) for text in texts))

    def permit(self, address: Address, *, is_secure: bool) -> bool:
        """Whether an address may be called.

        Private, loopback, link-local (where clouds keep their secrets), multicast and reserved addresses may not, unless a network was
        allowed by name; an address that carries another one inside (IPv4 in IPv6) is judged by that one too.
        """
        forms = [address, *_inside(address)]
        if any(form in network for form in forms for network in self.allowed):
            return True
        return is_secure and all(form.is_global and not form.is_multicast and not form.is_reserved for form in forms)


def _inside(address: Address) -> list[Address]:
    if isinstance(address, ipaddress.IPv4Address):
        return []
    found: list[Address | None] = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in NAT64:
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [each for each in found if each is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PostOptions:
    """Bounds and trust of a POST. `tls`: by default the system's authorities, TLS 1.2 or later, host name checked."""

    networks: Networks = field(default_factory=Networks)
    timeout_s: float = 10.0
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and headers (names in lower case) of an answer; of an error the beginning of the body, cleaned for a log line."""

    status: int
    headers: Mapping[str, str]
    detail: str = ""


async def post(target: Target, body: bytes, headers: Mapping[str, str], options: PostOptions) -> Answer:
    """Sends one POST and reads the head of the answer. Raises HttpFailure. May be cancelled: the connection is closed at once."""
    try:
        async with asyncio.timeout(options.timeout_s):
            reader, writer = await _connect(target, options)
            try:
                writer.write(_request(target, body, headers))
                await writer.drain()
                return await _answer(reader)
            finally:
                writer.transport.abort()
    except TimeoutError:
        raise HttpFailure(Reason.TIMEOUT, f"{target}: no answer within {options.timeout_s:g} s") from None
    except ssl.SSLError as error:
        raise HttpFailure(Reason.TLS, f"{target}: {error.reason or error}") from None
    except (OSError, EOFError) as error:
        raise HttpFailure(Reason.CLOSED, f"{target}: {error or type(error).__name__}") from None


async def _connect(target: Target, options: PostOptions) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise HttpFailure(Reason.UNREACHABLE, f"{target}: {error.strerror or error}") from None
    addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
    permitted = [
        address
        for address in addresses
        if options.networks.permit(ipaddress.ip_address(address.partition("%")[0]), is_secure=target.is_secure)
    ]
    if not permitted:
        why = "is not public and not allowed" if target.is_secure else "is not allowed without TLS"
        raise HttpFailure(Reason.ADDRESS, f"{target}: {', '.join(addresses)} {why}")
    context = options.tls if target.is_secure else None
    failure = ""
    for address in permitted:
        try:
            return await asyncio.open_connection(
                address, target.port, ssl=context, server_hostname=target.host if context is not None else None, limit=HEAD_BYTES
            )
        except ssl.SSLError:
            raise
        except OSError as error:
            failure = str(error)
    raise HttpFailure(Reason.UNREACHABLE, f"{target}: {failure}")


def _request(target: Target, body: bytes, headers: Mapping[str, str]) -> bytes:
    lines = [f"POST {target.path} HTTP/1.1", f"Host: {target.host_header}", "Connection: close", f"Content-Length: {len(body)}"]
    for name, value in headers.items():
        assert not re.search(r"[\r\n\0]", name + value), f"header {name} breaks the line"
        lines.append(f"{name}: {value}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


async def _answer(reader: asyncio.StreamReader) -> Answer:
    for _ in range(5):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            raise HttpFailure(Reason.TOO_LARGE, f"the head of the answer is longer than {HEAD_BYTES} bytes") from None
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise HttpFailure(Reason.PROTOCOL, f"not an HTTP answer: {clean(error.partial[:80].decode('latin-1'))}") from None
            raise HttpFailure(Reason.CLOSED, "the connection was closed without an answer") from None
        answer = _read_head(head)
        if answer.status >= 200:
            return answer if answer.status < 300 else Answer(answer.status, answer.headers, await _detail(reader))
    raise HttpFailure(Reason.PROTOCOL, "one interim answer after another")


def _read_head(head: bytes) -> Answer:
    first, *rest = head.decode("latin-1").split("\r\n")
    found = re.fullmatch(r"HTTP/1\.[01] ([1-5]\d\d)(?: .*)?", first)
    if found is None:
        raise HttpFailure(Reason.PROTOCOL, f"not an HTTP answer: {clean(first[:80])}")
    pairs = (line.partition(":") for line in rest if ":" in line)
    return Answer(int(found[1]), {name.strip().lower(): value.strip() for name, _, value in pairs})


async def _detail(reader: asyncio.StreamReader) -> str:
    """A little of the body, for the log. It is not waited for long, and never read to its end."""
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(DETAIL_WAIT_S):
            return clean((await reader.read(DETAIL_BYTES)).decode("utf-8", "replace"))
    return ""


def retry_after_s(header: str | None, now_s: float) -> float | None:
    """What a Retry-After header asks for, seconds, at most an hour; None when there is none that can be read (RFC 9110, 10.2.3)."""
    if header is None:
        return None
    if re.fullmatch(r"\d{1,9}", header, re.ASCII):
        return min(float(header), LONGEST_RETRY_S)
    try:
        return min(max(0.0, parsedate_to_datetime(header).timestamp() - now_s), LONGEST_RETRY_S)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def delivery_of(answer: Answer, now_s: float) -> Delivery:
    """What a status means for the row.

    Refused only where the status speaks of this very request; a status that would meet every row (a wrong key, a wrong path, a redirect)
    is the receiver's trouble: nothing is parked, and it shows as unavailable until somebody repairs it.
    """
    status, detail = answer.status, f"{answer.status} {answer.detail}".strip()
    wait = retry_after_s(answer.headers.get("retry-after"), now_s)
    match status:
        case _ if status < 300:
            return Delivered()
        case _ if status < 400:
            return Unavailable(Reason.REDIRECT, detail=f"{status}: redirects are not followed, set the final address")
        case 408 | 425 | 429 | 503:
            return Unavailable(Reason.BUSY, wait, detail)
        case _ if status >= 500:
            return Unavailable(Reason.SERVER_ERROR, wait, detail)
        case 401 | 403 | 407:
            return Unavailable(Reason.DENIED, wait, detail)
        case 413 | 414 | 431:
            return Refused(Reason.TOO_LARGE, detail)
        case 400 | 406 | 409 | 411 | 415 | 422:
            return Refused(Reason.REJECTED, detail)
        case _:
            return Unavailable(Reason.REJECTED, wait, detail)
