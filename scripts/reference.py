"""Writes the pages of docs/reference that say what the code says: settings, metrics, events, HTTP, command line. Run by `make generated`.

    python scripts/reference.py

Settings come from the models and the comments of config/margin-monitor.toml, metrics from the catalogue, events from an event that is built
here as the daemon builds it, HTTP from the routes and the texts of their functions, the command line from its parser.
`tests/scripts/test_reference.py` fails when a page is not what this writes.
"""

from __future__ import annotations

import inspect
import re
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import orjson
import typer
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from starlette.routing import Route

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from monitor.margin.levels import Level  # noqa: E402
from monitor.margin.prices import PriceKind  # noqa: E402
from monitor.service.account_book import AccountBook  # noqa: E402
from monitor.service.cli import app as cli_app  # noqa: E402
from monitor.service.facts import facts_of  # noqa: E402
from monitor.service.http import build_app  # noqa: E402
from monitor.service.metrics import CATALOGUE, PREFIX  # noqa: E402
from monitor.service.price_store import PriceStore  # noqa: E402
from monitor.service.reload import needs_restart  # noqa: E402
from monitor.service.settings import ENVIRONMENT_PREFIX, Settings  # noqa: E402
from monitor.service.tables import VenueTables  # noqa: E402
from monitor.wire.event_body import tick_cause  # noqa: E402
from monitor.wire.events import TickPosition, blind_body, level_body  # noqa: E402
from monitor.wire.prices import PriceBatch  # noqa: E402
from monitor.wire.suspicion import suspicions  # noqa: E402

__all__ = ["BLIND_FIELDS", "EVENT_FIELDS", "FOLDER", "PAGES", "field_paths", "sample_blind", "sample_event"]

FOLDER = ROOT / "docs" / "reference"
_CONFIG = ROOT / "config" / "margin-monitor.toml"


# ---------------------------------------------------------------------- settings


def settings_page() -> str:
    """Every key of the settings: type, default, environment variable, meaning, and whether a reload can change it."""
    meanings = _meanings(_CONFIG.read_text(encoding="utf-8"))
    parts = [
        _head("Settings", "the models of monitor/service/settings.py and the comments of config/margin-monitor.toml"),
        (
            "One TOML file, environment over file, flags over environment. A key in a section `a.b` is the variable "
            f"`{ENVIRONMENT_PREFIX}A__B__KEY`. A secret never stands in the file: `password` comes from the environment, or from the file "
            "that `password_file` names, which nobody but its owner, and at most the group, may read.\n\n"
            "`margin-monitor check-config FILE` names file, line and key of what is wrong. *Reload*: "
            "[SIGHUP](../operations/README.md#reload) takes a change over, or it needs a restart."
        ),
    ]
    for section, model in _sections(Settings, ""):
        rows = []
        for name, field in model.model_fields.items():
            if _models_of(field.annotation):
                continue
            meaning = meanings.get((section, name)) or meanings.get((_without_name(section), name)) or _SECRETS.get(name, "")
            reload = "restart" if needs_restart(f"{section}.{name}") else "reload"
            default = _default(field)
            if section.startswith("levels."):
                default = f"`{getattr(getattr(Settings().levels, section.removeprefix('levels.')), name)}`"
            rows.append(f"| `{name}` | {_type_of(field)} | {default} | {meaning} | {reload} |")
        doc = " ".join((model.__doc__ or "").split())
        parts.append(f"## `[{section}]`\n\n{doc}\n\n| key | type | default | meaning | change |\n|---|---|---|---|---|\n" + "\n".join(rows))
    return "\n\n".join(parts) + "\n"


_SECRETS = {
    "password": "the secret itself, from the environment only",
    "password_file": "file with the secret",
    "username": "user name that goes with the password",
    "allow": 'private networks that may be called, such as `["10.1.0.0/16"]`',
    "ca_file": "authorities that the receiver's certificate is checked by; the system's own without it",
    "timeout_s": "give up on an answer after so many seconds",
    "url": "address",
    "enter": "ratio at which the level is entered",
    "leave": "ratio below which it is left; at most `enter`",
}


def _sections(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, type[BaseModel]]]:
    seen_feed = False
    for name, field in model.model_fields.items():
        for inner in _models_of(field.annotation):
            is_named = get_origin(field.annotation) is dict
            is_feed = inner.__name__ == "FeedSettings"
            if is_feed and seen_feed:
                continue
            seen_feed = seen_feed or is_feed
            key = ".".join(part for part in (prefix, "<venue>" if is_feed else name, "<name>" if is_named else "") if part)
            if any(not _models_of(each.annotation) for each in inner.model_fields.values()):
                yield key, inner
            yield from _sections(inner, key)


def _models_of(annotation: Any) -> list[type[BaseModel]]:
    candidates = (annotation, *get_args(annotation))
    return [each for each in candidates if isinstance(each, type) and issubclass(each, BaseModel)]


def _without_name(section: str) -> str:
    return section.removesuffix(".<name>")


def _meanings(text: str) -> dict[tuple[str, str], str]:
    """(section, key) -> the comment behind it in the documented file, commented keys included."""
    found: dict[tuple[str, str], str] = {}
    section = ""
    for line in text.splitlines():
        bare = line.removeprefix("# ")
        if header := re.match(r"\[([\w.]+)\]", bare):
            section = header[1]
            section = "feeds.<venue>" if section.startswith("feeds.") else section
            section = ".".join(section.split(".")[:2]) if re.match(r"sinks\.(webhook|alertmanager|chat)\.", section) else section
        elif key := re.match(r"""(\w+) = (?:"[^"]*"|\[[^\]]*\]|\{[^}]*\}|[^#\s]+)\s*(?:#\s*(.*))?$""", bare):
            found.setdefault((section, key[1]), _cell(key[2] or ""))
    return found


def _type_of(field: FieldInfo) -> str:
    text = _type_name(field.annotation)
    bounds = [
        f"{word} {getattr(each, name):g}"
        for each in field.metadata
        for name, word in (("ge", "from"), ("gt", "above"), ("le", "to"), ("lt", "below"))
        if getattr(each, name, None) is not None
    ]
    return " ".join([text, *bounds])


def _type_name(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{orjson.dumps(each).decode()}`" for each in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_type_name(each) for each in arguments if each is not type(None) and get_origin(each) is not Literal)
    if origin is tuple:
        return f"list of {_type_name(arguments[0])}s"
    if origin is not None and hasattr(annotation, "__metadata__"):
        return _type_name(arguments[0])
    names = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path", SecretStr: "secret"}
    return names.get(annotation, "number")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined:
        return "none"
    return f"`{orjson.dumps(value, default=str).decode()}`"


# ---------------------------------------------------------------------- metrics


def metrics_page() -> str:
    """Every metric: kind, labels, meaning."""
    rows = [
        f"| `{PREFIX}{name}` | {each.kind} | {', '.join(f'`{label}`' for label in each.labels) or 'none'} | {_cell(each.help)} |"
        for name, each in CATALOGUE.items()
    ]
    return (
        _head("Metrics", "the catalogue of monitor/service/metrics.py")
        + "\n\nAt `/metrics`. A histogram has the suffixes `_bucket`, `_sum` and `_count`. The usual `process_...` and `python_info` are "
        "there too. [Dashboards](../../deploy/grafana/generate.py) and [rules](../../deploy/prometheus/rules/margin-monitor.yml) use "
        "no others. No series is made for each account: the number of series does not grow with the book, but for "
        "`evaluator.worst_accounts` names, and venue and group.\n\n"
        "| metric | kind | labels | meaning |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
    )


# ---------------------------------------------------------------------- events

EVENT_FIELDS: Mapping[str, str] = {
    "id": "`<partition>/<seq>-<token>`: the event's name for ever; a receiver drops an id that it has seen",
    "kind": "`level`",
    "account": "id of the account",
    "pool": "the margin pool, such as `cross:USDT`; an isolated position is a pool of its own",
    "level": "`healthy`, `watch`, `margin_call`, `liquidation` or `bankrupt`; while `unknown` is set it is the last one known",
    "previous": "the level before",
    "unknown": "why the level cannot be claimed; null when it can",
    "previous_unknown": "the same before",
    "rev": "counts the changes of this pool from 1",
    "episode": "counts the stays above healthy",
    "at": "place in the tick log: writer's epoch, message in it, tick in the message",
    "chain": "hash of the row before",
    "venue": "venue of the account",
    "group": "group of the account; null for none",
    "currency": "currency of the amounts below",
    "cause": "what made the change: a price (`mark`, `index` ...), `document`, `stale`, `never_seen`, `refused`, `start` or `pass`",
    "cause.kind": "which of these",
    "cause.instrument": "whose price, where it was one",
    "cause.price": "the price as the venue sent it",
    "cause.venue_time_ms": "the venue's own time of it, ms since 1970; 0 where it sends none",
    "cause.received_at_ns": "when it was received, ns since 1970",
    "cause.suspicious": "why to doubt the price, which counts all the same; left out for an ordinary one",
    "cause.suspicious.reason": (
        "`jump` (more than 10% from the number before), `against_index` (5% off the venue's index), `venue_deviation` (3% off the median "
        "of the other venues), `single_source` (strange, and too few venues to compare)"
    ),
    "cause.suspicious.reference": "what it was compared with",
    "cause.suspicious.deviation": "price / reference - 1",
    "equity": "what the pool is worth",
    "maintenance_margin": "what it must hold",
    "fees": "fees of closing that the venue counts",
    "margin_ratio": "(maintenance margin + fees) / equity; 1 is liquidation; null at or below zero equity",
    "headroom": "equity - maintenance margin - fees",
    "level_at_median": (
        "the level, by enter thresholds alone, with each price replaced by the median of at least two other venues' prices for the same "
        "asset; null where no price has one"
    ),
    "margin_ratio_at_median": "the margin ratio there",
    "shortfall": "equity that is missing to leave the level",
    "positions": "each position of the pool",
    "positions.instrument": "as the venue spells it",
    "positions.side": "`both`, or `long` or `short` in hedge mode",
    "positions.quantity": "signed, in the venue's own count",
    "positions.mark_price": "at that tick",
    "positions.notional": "in the pool's currency",
    "positions.unrealized_pnl": "mine above 0",
    "positions.maintenance_margin": "of this position",
    "positions.liquidation_price": "price at which the pool is liquidated when only this instrument moves; null for none",
    "positions.bankruptcy_price": "price at which the pool's equity is 0, likewise",
    "positions.distance": "(liquidation price - mark) / mark",
    "pool_liquidation": "common move of all prices at which the pool is liquidated, as a fraction; null for none",
    "pool_liquidation.down": "falling",
    "pool_liquidation.up": "rising",
    "cure": "what would bring the pool below a level",
    "cure.below": "below which",
    "cure.deposit": "amount to deposit",
    "cure.reduce": "or quantity to close, each enough alone; null where it is not",
    "cure.reduce.instrument": "of which instrument",
    "cure.reduce.side": "and side",
    "cure.reduce.quantity": "by how much the quantity changes, signed",
    "rules": "the rule set",
    "rules.name": "its name",
    "rules.since": "in force since",
    "inputs": "what it was computed from; `verify` recomputes the event from it",
    "inputs.document_hash": "first 128 bits of the SHA-256 of the account's document",
    "inputs.as_of": "the moment that is described",
    "inputs.prices": "every price used: kind, name, exact decimal",
    "inputs.medians": "the medians used for `level_at_median`, likewise; left out where there are none",
    "decided_at_ns": "when it was decided, ns since 1970",
}

BLIND_FIELDS: Mapping[str, str] = {
    "id": "as above",
    "kind": "`blind`: ticks are missing, and nothing was decided between two places",
    "from": "place in the tick log from which on; null if not known",
    "to": "up to which; null if not known",
    "reason": "why",
    "chain": "as above",
}


def sample_event() -> dict[str, Any]:
    """A margin call, built as the daemon builds it."""
    document = {
        "version": 1,
        "sequence": 12,
        "account": {
            "id": "desk-1",
            "venue": "binance_usdm",
            "group": "prop",
            "balances": [{"asset": "USDT", "wallet": "1500"}],
            "positions": [{"instrument": "BTCUSDT", "quantity": "1", "entry_price": "61000", "side": "both"}],
        },
    }
    now = datetime(2026, 11, 20, 21, 16, 4, tzinfo=UTC)
    book, store = AccountBook(VenueTables()), PriceStore()
    data = orjson.dumps(document)
    held = book.parse(data, now)
    now_ms, received_at_ns = 1_795_209_364_000, 1_795_209_364_012_345_678
    batch = PriceBatch(
        venue="binance_usdm",
        kind=PriceKind.MARK,
        names=["BTCUSDT"],
        prices=[59_790.5],
        venue_times_ms=[now_ms],
        received_at_ns=received_at_ns,
    )
    store.take(batch)
    strange = suspicions(59_790.5, previous=59_810.0, peers=[61_940.0, 61_960.0])
    facts = facts_of(
        held.pools["cross:USDT"],
        store.prices("binance_usdm"),
        Level.MARGIN_CALL,
        Settings().levels.thresholds(),
        cause=tick_cause(PriceKind.MARK, "BTCUSDT", 59_790.5, now_ms, received_at_ns, strange),
        document_hash=sha256(data).hexdigest()[:32],
        as_of=now,
        decided_at_ns=received_at_ns + 1_500_000,
        medians={"mark": {"BTCUSDT": Decimal(61_950)}},
    )
    body = level_body(
        event_id="0/41-3",
        account="desk-1",
        pool="cross:USDT",
        level=Level.MARGIN_CALL,
        previous=Level.WATCH,
        unknown=None,
        previous_unknown=None,
        rev=7,
        episode=2,
        at=TickPosition(1_795_200_000_000, 9_364, 0),
        previous_hash="5f0c3a1be27d9a4c8be0f6a1d2c3b4e5",
        facts=orjson.dumps(facts),
    )
    event = orjson.loads(body)
    assert isinstance(event, dict)
    return event


def sample_blind() -> dict[str, Any]:
    """A row that says that ticks are missing."""
    body = blind_body(
        event_id="0/42-3",
        start=TickPosition(1_795_200_000_000, 9_364, 0),
        end=None,
        reason="trimmed",
        previous_hash="5f0c3a1be27d9a4c8be0f6a1d2c3b4e5",
    )
    blind = orjson.loads(body)
    assert isinstance(blind, dict)
    return blind


def field_paths(node: Any, prefix: str = "") -> Iterator[str]:
    """Dotted paths of all fields of a JSON value, those of a list's members under the list; prices by name are not fields."""
    if isinstance(node, dict) and prefix not in {"inputs.prices.", "inputs.medians."}:
        for key, value in node.items():
            yield prefix + key
            yield from field_paths(value, f"{prefix}{key}.")
    elif isinstance(node, list) and node:
        yield from field_paths(node[0], prefix)


def events_page() -> str:
    """The fields of an event, with an example."""

    def table(fields: Mapping[str, str]) -> str:
        return "| field | meaning |\n|---|---|\n" + "\n".join(f"| `{name}` | {meaning} |" for name, meaning in fields.items())

    example = orjson.dumps(sample_event(), option=orjson.OPT_INDENT_2).decode()
    return (
        "\n\n".join(
            [
                _head("Events", "an event that scripts/reference.py builds as the daemon does"),
                (
                    "One JSON object for each change of the verdict of one margin pool: in the stream `{p}:events` of the ledger, on MQTT"
                    " (`<prefix>/<group>/<account>/event`), in webhooks and at `/api/events`. Delivered at least once, in order for each"
                    " account, always with the same `id`. Amounts and ratios are decimals in quotes, exact to the last digit."
                    " New fields may be added:"
                    " ignore what you do not know."
                ),
                table(EVENT_FIELDS),
                "Such as this one:",
                f"```json\n{example}\n```",
                "## Numbers that follow",
                (
                    "When one price message changes the level of more than one pool, all levels are told at"
                    ' once: their events have `"numbers": "follow"`, venue, group, cause and time, and none of the other numbers. A row of'
                    " `kind` `numbers` follows as soon as it is worked out, with `account`, `pool`, `level`, `rev`, `at` and"
                    " `decided_at_ns` of the event that it belongs to and all of its numbers, at the prices of that tick. It is left out"
                    " where the level has changed again since, or where the process ended in between."
                ),
                "## Missing ticks",
                table(BLIND_FIELDS),
                "## Hash chain",
                (
                    "The hash of a row is the first 128 bits of `sha256(hash of the row before + id + body)`, in hex; `chain` in the body"
                    " is the hash before. `margin-monitor verify --all` walks the chain and recomputes every number."
                ),
            ]
        )
        + "\n"
    )


# ---------------------------------------------------------------------- HTTP


def http_page() -> str:
    """Every address: what it answers, and its parameters."""
    parts = [
        _head("HTTP", "the routes of monitor/service/http.py and the texts of their functions"),
        (
            "On `http.host` and `http.port` (127.0.0.1:9464). "
            "Nothing here changes an account or a setting, and there is no way for an order: what can be written is what people tell the "
            "alert policy. "
            'JSON unless said otherwise; an error is `{"error": "..."}` with its status.'
        ),
    ]
    routes: dict[Any, list[Route]] = {}
    for route in build_app(_NobodysReadings()).routes:
        if isinstance(route, Route):
            routes.setdefault(route.endpoint, []).append(route)
    for endpoint, same in routes.items():
        parts.append(_section_of(endpoint, same))
    return "\n\n".join(parts) + "\n"


def _section_of(endpoint: Any, routes: Sequence[Route]) -> str:
    first, *more = (inspect.getdoc(endpoint) or "").split("\n\n")
    methods = ", ".join(sorted({method for route in routes for method in route.methods or () if method != "HEAD"}))
    text = f"## {methods} {', '.join(f'`{route.path}`' for route in routes)}\n\n{' '.join(first.split())}"
    for block in more:
        rows = re.findall(r"^(\w+): (.*(?:\n .*)*)", block, re.MULTILINE)
        if rows and block.lstrip().startswith(rows[0][0]):
            listed = "\n".join(f"| `{name}` | {_cell(' '.join(meaning.split()))} |" for name, meaning in rows)
            text += f"\n\n| parameter | meaning |\n|---|---|\n{listed}"
        else:
            text += "\n\n" + block
    return text


class _NobodysReadings:
    """Stands in for a daemon: routes are only listed."""

    def __getattr__(self, name: str) -> Any:
        return None


# ---------------------------------------------------------------------- command line


def cli_page() -> str:
    """Every command with its arguments and options."""
    command = typer.main.get_command(cli_app)
    parts = [
        _head("Command line", "the parser of monitor/service/cli.py"),
        "Exit codes: 0 done; 1 failed; 2 usage, configuration, or a refused document. An error is one line on standard error.",
    ]
    for path, each in _commands(command, "margin-monitor"):
        context = typer.Context(each, info_name=path)
        usage = " ".join([path, *each.collect_usage_pieces(context)])
        rows = []
        for parameter in each.params:
            record = parameter.get_help_record(context)
            if record is not None and "--help" not in parameter.opts:
                rows.append(f"| `{record[0]}` | {_cell(record[1])} |")
        table = "\n\n| | |\n|---|---|\n" + "\n".join(rows) if rows else ""
        parts.append(f"## {path.removeprefix('margin-monitor ')}\n\n{' '.join((each.help or '').split())}\n\n```text\n{usage}\n```{table}")
    return "\n\n".join(parts) + "\n"


def _commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    if hasattr(command, "commands"):
        for name, each in command.commands.items():
            yield from _commands(each, f"{path} {name}")
    else:
        yield path, command


# ---------------------------------------------------------------------- all


def _head(title: str, source: str) -> str:
    return f"# {title}\n\n<!-- Written by scripts/reference.py from {source}: change it there, then run `make generated`. -->"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").strip()


PAGES = {
    "settings.md": settings_page,
    "metrics.md": metrics_page,
    "events.md": events_page,
    "http.md": http_page,
    "cli.md": cli_page,
}
"""File name -> what writes its text."""


if __name__ == "__main__":
    for name, write in PAGES.items():
        (FOLDER / name).write_text(write(), encoding="utf-8")
        print(f"docs/reference/{name}")
