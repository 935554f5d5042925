"""Broken settings, by the hundred: the documented file with one thing wrong in it."""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path

__all__ = ["broken_configs"]

# fmt: off
WRONG_VALUES = (
    "true", "-1", "1e400", "nan", "inf", '""', '"none"', "[]", "[1]", "{}", "{ a = 1 }", "1979-05-27", '"\\u0000"', "99999999999",
)
NO_TOML = (
    "x = [", "x = ", "= 1", "[a", "[[a]", 'x = "', "x = 01", "x = 1 2", "x y = 1", "\x00 = 1", "[http]\n[http]", "'''", "x = {a = 1,\n}",
)
# fmt: on


def broken_configs(documented: str, folder: Path, count: int) -> Iterator[str]:
    """`count` files that cannot be used, each another one, always the same. `folder`: empty, for the files that they name.

    Every comment that holds a key is taken as set, so that each documented key gets its turn.
    """
    rng = random.Random(20)
    open_to_all = folder / "open"
    open_to_all.write_text("a secret that everybody can read")
    open_to_all.chmod(0o644)
    no_table = folder / "no_table.json"
    no_table.write_text('{"venue": "nowhere"}')
    policy = folder / "policy.toml"
    policy.write_text('[[routes]]\nname = "a"\nsinks = ["absent"]\n')
    lines = documented.splitlines()
    keys = [number for number, line in enumerate(lines) if re.match(r"[a-z_]+ = ", line)]
    sections = [number for number, line in enumerate(lines) if line.startswith("[")]

    def wrong_type() -> str:
        return _with(lines, rng.choice(keys), lambda line: f"{line.split(' = ')[0]} = {rng.choice(WRONG_VALUES)}")

    def misspelt_key() -> str:
        return _with(lines, rng.choice(keys), lambda line: _misspelt(rng, line.split(" = ")[0]) + " = " + line.split(" = ", 1)[1])

    def misspelt_section() -> str:
        return _with(lines, rng.choice(sections), lambda line: "[" + _misspelt(rng, line[1 : line.index("]")]) + "]")

    def unknown_key() -> str:
        name = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz_", k=rng.randint(3, 12)))
        return _with(lines, rng.choice(sections), lambda line: f"{line}\n{name} = {rng.choice(WRONG_VALUES)}")

    def no_toml() -> str:
        return _with(lines, rng.randrange(len(lines)), lambda line: f"{line}\n{rng.choice(NO_TOML)}")

    def key_twice() -> str:
        return _with(lines, rng.choice(keys), lambda line: f"{line}\n{line}")

    def out_of_range() -> str:
        section, key, value = rng.choice(_RANGES)
        return _replaced(documented, section, key, value)

    def missing_file() -> str:
        section, key = rng.choice(_FILES)
        return _replaced(documented, section, key, f'"{folder}/absent-{rng.randrange(10**6)}"', listed=key == "tables")

    def unusable_file() -> str:
        section, key = rng.choice(_FILES)
        found = {"tables": no_table, "policy": policy}.get(key, open_to_all)
        return _replaced(documented, section, key, f'"{found}"', listed=key == "tables") + f"# {rng.randrange(10**6)}\n"

    def conflict() -> str:
        return documented + rng.choice(_CONFLICTS) + f"# {rng.randrange(10**6)}\n"

    def inline_secret() -> str:
        section = rng.choice(("ledger", "cache", "sinks.mqtt"))
        return _replaced(documented, section, "password", f'"canary-{rng.randrange(10**6)}"')

    kinds = [wrong_type, misspelt_key, misspelt_section, unknown_key, no_toml, key_twice]
    kinds += [out_of_range, missing_file, unusable_file, conflict, inline_secret]
    seen = {documented}
    for kind in cycle(kinds):
        if len(seen) > count:
            return
        text = kind()
        if text not in seen and not _is_harmless(text):
            seen.add(text)
            yield text


_RANGES = (
    ("http", "port", "65536"),
    ("http", "port", "-1"),
    ("ledger", "partitions", "2"),
    ("ledger", "lease_s", "0.1"),
    ("ledger", "lease_s", "61"),
    ("ledger", "retain_events", "999"),
    ("ledger", "wait_s", "-1.0"),
    ("cache", "retain_ticks", "1"),
    ("evaluator", "worst_accounts", "201"),
    ("evaluator", "snapshot_interval_s", "0"),
    ("evaluator", "unknown_after_s", "86401"),
    ("levels", "watch", "{ enter = 0.81, leave = 0.60 }"),
    ("levels", "watch", "{ enter = 0.5, leave = 0.60 }"),
    ("levels", "watch", "{ enter = 0.5 }"),
    ("levels", "liquidation", "{ enter = 0, leave = 0 }"),
    ("levels", "liquidation", "{ enter = 101, leave = 1 }"),
    ("levels", "margin_call", "{ enter = 1.2, leave = 0.75 }"),
    ("feeds", "venues", '["binance"]'),
    ("feeds", "on_slow", '"drop"'),
    ("feeds.binance_usdm", "url", '"ws://example.org"'),
    ("feeds.binance_usdm", "url", '"http://example.org"'),
    ("feeds.binance_usdm", "connections", "3"),
    ("ledger", "url", '"redis://user:word@example.org"'),
    ("ledger", "url", '"127.0.0.1:6379"'),
    ("cache", "url", '"http://127.0.0.1"'),
    ("sinks.mqtt", "topic_prefix", '"margin/#"'),
    ("sinks.mqtt", "port", "70000"),
    ("log", "level", '"loud"'),
    ("log", "format", '"xml"'),
)

_FILES = (
    ("ledger", "password_file"),
    ("cache", "password_file"),
    ("sinks.mqtt", "password_file"),
    ("alerts", "policy"),
    ("evaluator", "tables"),
)

_CONFLICTS = (
    '\n[sinks.webhook.console]\nurl = "https://risk.example.org/"\n',
    '\n[sinks.webhook.policy]\nurl = "https://risk.example.org/"\n',
    '\n[sinks.alertmanager.a]\nurl = "https://a.example/"\n[sinks.webhook.a]\nurl = "https://b.example/"\n',
    '\n[sinks.webhook.Risk]\nurl = "https://risk.example.org/"\n',
    '\n[sinks.webhook.a]\nurl = "ftp://risk.example.org/"\n',
    "\n[sinks.webhook.a]\n",
    "\n[sinks.webhook]\na = 1\n",
    '\n[sinks.alertmanager.a]\nurl = "https://a.example/"\nallow = ["10.0.0.1/8"]\n',
    '\n[sinks.alertmanager.a]\nurl = "https://a.example/"\nca_file = "/nonexistent"\n',
    '\n[sinks.chat.desk]\nformat = "text"\n',
    '\n[sinks.chat.desk]\nformat = "html"\n',
    "\n[ledger.url]\nx = 1\n",
)


def _with(lines: list[str], number: int, change: Callable[[str], str]) -> str:
    return "\n".join([*lines[:number], change(lines[number]), *lines[number + 1 :]]) + "\n"


def _misspelt(rng: random.Random, word: str) -> str:
    at = rng.randrange(len(word))
    return rng.choice(
        (word[:at] + word[at + 1 :], word[:at] + "x" + word[at:], word[: at + 1] + word[at:], word[:at] + "q" + word[at + 1 :])
    )


def _replaced(text: str, section: str, key: str, value: str, *, listed: bool = False) -> str:
    """The text with another value of a key, in its place or added to its section."""
    value = f"[{value}]" if listed else value
    head, _, rest = text.partition(f"\n[{section}]")
    first, *below = re.split(r"(?m)^(?=\[)", rest, maxsplit=1)
    changed = re.sub(rf"(?m)^{key} = .*$", f"{key} = {value}", first)
    if changed == first:
        line, _, others = first.partition("\n")
        changed = f"{line}\n{key} = {value}\n{others}"
    return f"{head}\n[{section}]{changed}{''.join(below)}"


def _is_harmless(text: str) -> bool:
    """A change that may be no fault: a value of the right type after all, an empty section that is valid."""
    from monitor.errors import ConfigError
    from monitor.service.settings import Settings

    try:
        raw = tomllib.loads(text)
        Settings.model_validate(raw)
    except (ValueError, ConfigError):
        return False
    sinks = raw.get("sinks", {})
    named = [raw["ledger"].get("password_file"), raw["cache"].get("password_file"), sinks.get("mqtt", {}).get("password_file")]
    named += [
        raw.get("alerts", {}).get("policy"),
        *raw.get("evaluator", {}).get("tables", ()),
        *(sinks.get(k) for k in ("webhook", "chat")),
    ]
    inline = any("password" in section for section in (raw["ledger"], raw["cache"], sinks.get("mqtt", {})))
    return not any(named) and not inline and not sinks.get("alertmanager")
