"""The command `top`: the worst accounts of a running daemon, as a table that renews itself."""

from __future__ import annotations

import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from monitor.errors import ConfigError, MonitorError
from monitor.service.settings import read_secret

__all__ = ["top_command"]

COLOURS = {"healthy": "green", "watch": "yellow", "margin_call": "dark_orange", "liquidation": "red", "bankrupt": "bold red"}
BAR = 20
WIDTH = 160
"""Columns where the output is no terminal."""


def top_command(address: str, *, count: int, once: bool, interval_s: float, token_file: Path | None = None) -> int:
    """Shows the table until Ctrl-C, or once. `token_file`: the daemon's `http.token_file`.

    Raises ConfigError for an address that is none, MonitorError when nobody answers.
    """
    if urlsplit(address).scheme not in ("http", "https") or not urlsplit(address).hostname:
        raise ConfigError(source="--address", key="address", value=repr(address), expected="http://HOST:PORT")
    token = None if token_file is None else read_secret(token_file, "--token-file")
    if once or not sys.stdout.isatty():
        console = Console(width=None if sys.stdout.isatty() else WIDTH)
        console.print(_picture(_ask(address, count, token), address))
        return 0
    console = Console()
    with Live(_picture(_ask(address, count, token), address), console=console, refresh_per_second=4, screen=True) as live:
        try:
            while True:
                time.sleep(max(0.1, interval_s))
                live.update(_picture(_ask(address, count, token), address))
        except KeyboardInterrupt:
            return 0


def _ask(address: str, count: int, token: str | None) -> dict[str, Any]:
    request = urllib.request.Request(f"{address}/api/accounts?limit={count}")  # noqa: S310 - scheme checked above
    if token is not None:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - as above
            body = orjson.loads(answer.read())
    except urllib.error.HTTPError as error:
        raise MonitorError(f"{address}: {error.code}: {error.read().decode(errors='replace')[:200]}") from None
    except (OSError, ValueError) as error:
        raise MonitorError(f"{address}: no daemon answers there ({error})") from None
    assert isinstance(body, dict)
    return body


def _picture(body: dict[str, Any], address: str) -> Group:
    table = Table(expand=False, title=None, pad_edge=False)
    for name, justify in (("account", "left"), ("venue", "left"), ("group", "left"), ("level", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    table.add_column("margin ratio", justify="left", min_width=BAR + 9)
    table.add_column("equity", justify="right")
    table.add_column("requirement", justify="right")
    table.add_column("worst pool", justify="left")
    for row in body["accounts"]:
        unknown = row["unknown"]
        pool = row["pools"][0] if row["pools"] else {}
        level = Text("unknown", "magenta") if unknown else Text(row["level"], COLOURS[row["level"]])
        what = Text(unknown, "magenta") if unknown else Text(pool.get("pool", ""))
        table.add_row(
            Text(row["id"]),
            row["venue"],
            row["group"] or "",
            level,
            Text("?") if unknown else _bar(row["margin_ratio"], row["level"]),
            _money(pool.get("equity")),
            _money(pool.get("requirement")),
            what,
        )
    head = f"{body['total']:,} accounts at {address}, worst first; 1.0 is liquidation"
    return Group(Text(head, "bold"), table)


def _bar(ratio: float | None, level: str) -> Text:
    if ratio is None:
        return Text("no equity" if level == "bankrupt" else "-", COLOURS[level])
    filled = min(BAR, round(ratio * BAR))
    return Text(f"{'█' * filled}{'·' * (BAR - filled)} {ratio:7.4f}", COLOURS[level])


def _money(value: float | None) -> str:
    return "" if value is None else f"{value:,.2f}"
