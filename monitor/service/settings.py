"""The settings: one TOML file, environment over file, flags over environment; checked before anything starts.

Environment: `MARGIN_MONITOR_<SECTION>__<KEY>`, e.g. `MARGIN_MONITOR_HTTP__PORT=9000`. Secrets come from the environment or from a file
named by a `..._file` key, never from the TOML file itself. Every key, its default and its meaning: config/margin-monitor.toml.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import ssl
import tomllib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from monitor.alerting.routes import AlertPolicy, parse_policy
from monitor.errors import ConfigError
from monitor.margin.accounts import VENUES
from monitor.margin.levels import Threshold, Thresholds

__all__ = [
    "ENVIRONMENT_PREFIX",
    "AlertSettings",
    "AlertmanagerSettings",
    "CacheSettings",
    "ChatSettings",
    "ConsoleSettings",
    "EvaluatorSettings",
    "FeedSettings",
    "FeedsSettings",
    "HttpSettings",
    "LedgerSettings",
    "LevelSettings",
    "LogSettings",
    "MqttSettings",
    "SecretSection",
    "Settings",
    "SinkSettings",
    "WebhookSettings",
    "is_loopback",
    "line_of",
    "load_policy",
    "load_settings",
    "redacted",
]

ENVIRONMENT_PREFIX = "MARGIN_MONITOR_"
LEAST_TOKEN = 16


def _ratio(value: Any) -> Decimal:
    """A margin ratio written as a number or a string, read as the decimal that it prints."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise ValueError("a number such as 0.8")  # noqa: TRY004 - pydantic turns ValueError into its own
    try:
        number = Decimal(str(value))
    except ArithmeticError:
        raise ValueError("a number such as 0.8") from None
    if not number.is_finite() or not 0 < number < 100:
        raise ValueError("a margin ratio above 0 (1.0 is liquidation)")
    return number


def _redis_url(value: str) -> str:
    if value == "embedded" or re.match(r"(redis|rediss|unix)://", value):
        if re.match(r"\w+://[^/@]*:[^/@]+@", value):
            raise ValueError("an address without a password in it: put the password in the environment or in password_file")
        return value
    raise ValueError('"embedded", redis://HOST:PORT/DB, rediss://... or unix:///PATH')


def _websocket_url(value: str) -> str:
    local = re.match(r"ws://(127\.0\.0\.1|localhost|\[::1\])(:\d+)?(/|$)", value)
    if not value or local or value.startswith("wss://"):
        return value
    raise ValueError("a wss:// address (ws:// only on loopback)")


FEED_VENUES = tuple(venue for venue in VENUES if venue not in ("drift", "mango_v4", "house"))
"""Venues with a WebSocket feed; the others' prices come in documents."""


def _venue(value: str) -> str:
    if value in FEED_VENUES:
        return value
    raise ValueError(f"one of {', '.join(FEED_VENUES)}")


Ratio = Annotated[Decimal, BeforeValidator(_ratio)]
RedisUrl = Annotated[str, AfterValidator(_redis_url)]
WebsocketUrl = Annotated[str, AfterValidator(_websocket_url)]
Venue = Annotated[str, AfterValidator(_venue)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Port = Annotated[int, Field(ge=0, le=65_535)]
SinkName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]


def read_secret(path: Path, key: str) -> str:
    """The text of a file that keeps a secret. Raises ConfigError when it cannot be read or others can read it."""
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(source=str(path), key=key, value=str(error), expected="a readable file") from None
    if mode & 0o027:  # the group may read: systemd credentials and Kubernetes secrets are handed over so
        raise ConfigError(
            source=str(path), key=key, value=f"mode {mode & 0o777:03o}", expected="a file that only its owner can read (chmod 600)"
        )
    return text


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address to listen on."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Section(BaseModel):
    """A section: unknown keys are errors, values are not changed after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SecretSection(Section):
    """A section that may name a secret: by environment, or by a file that only its owner can read."""

    password: SecretStr | None = None
    password_file: Path | None = None

    def secret(self) -> str | None:
        """The password, from the environment or the file. Raises ConfigError when the file cannot be read or others can read it."""
        if self.password is not None:
            return self.password.get_secret_value()
        if self.password_file is None:
            return None
        return read_secret(self.password_file, "password_file")


class LedgerSettings(SecretSection):
    """Where accounts, levels and events are kept for good."""

    url: RedisUrl = "redis://127.0.0.1:6379/0"
    username: str | None = None
    data_dir: Path = Path("var/ledger")
    partitions: Literal[1, 64] = 1
    lease_s: Annotated[float, Field(ge=0.5, le=60)] = 4.0
    retain_events: Annotated[int, Field(ge=1_000)] = 100_000
    wait_s: Annotated[float, Field(ge=0)] = 0.0


class CacheSettings(SecretSection):
    """Where ticks, last prices and health snapshots live."""

    url: RedisUrl | Literal[""] = ""
    username: str | None = None
    retain_ticks: Annotated[int, Field(ge=100)] = 50_000


class FeedSettings(Section):
    """One venue's feed."""

    url: WebsocketUrl = ""
    symbols: tuple[str, ...] = ()
    stale_after_s: Seconds | None = None
    connections: Annotated[int, Field(ge=1, le=2)] = 1


class FeedsSettings(Section):
    """Which venues are read, and what happens when Redis is slower than they are."""

    venues: tuple[Venue, ...] = ("binance_usdm",)
    on_slow: Literal["conflate", "wait"] = "conflate"
    binance_usdm: FeedSettings = FeedSettings()
    binance_coinm: FeedSettings = FeedSettings()
    bybit: FeedSettings = FeedSettings()
    okx: FeedSettings = FeedSettings()
    deribit: FeedSettings = FeedSettings()
    hyperliquid: FeedSettings = FeedSettings()
    dydx_v4: FeedSettings = FeedSettings()
    bitmex: FeedSettings = FeedSettings()
    kraken_futures: FeedSettings = FeedSettings()

    def of(self, venue: str) -> FeedSettings:
        """The settings of one venue."""
        settings = getattr(self, venue)
        assert isinstance(settings, FeedSettings)
        return settings


class EvaluatorSettings(Section):
    """How the evaluator works and what it keeps."""

    tables: tuple[Path, ...] = ()
    snapshot_interval_s: Seconds = 5.0
    unknown_after_s: Seconds = 10.0
    silent_after_s: Seconds = 15.0
    worst_accounts: Annotated[int, Field(ge=0, le=200)] = 20


class ThresholdSettings(Section):
    """Margin ratios at which a level is entered and left."""

    enter: Ratio
    leave: Ratio

    @model_validator(mode="after")
    def _ordered(self) -> ThresholdSettings:
        if self.leave > self.enter:
            raise ValueError(f"leave ({self.leave}) at most enter ({self.enter})")
        return self


class LevelSettings(Section):
    """The ladder of levels."""

    watch: ThresholdSettings = ThresholdSettings(enter=Decimal("0.65"), leave=Decimal("0.60"))
    margin_call: ThresholdSettings = ThresholdSettings(enter=Decimal("0.80"), leave=Decimal("0.75"))
    liquidation: ThresholdSettings = ThresholdSettings(enter=Decimal(1), leave=Decimal("0.95"))

    @model_validator(mode="after")
    def _rising(self) -> LevelSettings:
        self.thresholds()
        return self

    def thresholds(self) -> Thresholds:
        """The same ladder as a value of the margin model."""
        return Thresholds(
            **{name: Threshold(getattr(self, name).enter, getattr(self, name).leave) for name in ("watch", "margin_call", "liquidation")}
        )


class ConsoleSettings(Section):
    """Events as lines on standard output."""

    enabled: bool = True


class MqttSettings(SecretSection):
    """Events to an MQTT broker."""

    enabled: bool = False
    host: str = "127.0.0.1"
    port: Port = 1883
    username: str | None = None
    tls: bool = False
    ca_file: Path | None = None
    topic_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$")] = "margin"

    def tls_context(self) -> ssl.SSLContext | None:
        """What TLS is checked by; None for plain TCP. Raises ConfigError when the file of authorities cannot be used."""
        if not self.tls:
            return None
        try:
            return ssl.create_default_context(cafile=str(self.ca_file) if self.ca_file is not None else None)
        except OSError as error:
            raise ConfigError(
                source=str(self.ca_file), key="sinks.mqtt.ca_file", value=str(error), expected="certificates in PEM form"
            ) from None


class PostSettings(SecretSection):
    """What every sink that posts over HTTP has."""

    url: str
    allow: tuple[str, ...] = ()
    ca_file: Path | None = None
    timeout_s: Annotated[float, Field(gt=0, le=120)] = 10.0


class WebhookSettings(PostSettings):
    """Signed JSON to an address of the operator's own; the password is the secret that signs."""

    events: bool = True


class AlertmanagerSettings(PostSettings):
    """Levels as alerts of a Prometheus Alertmanager; a password goes with the user name, or alone as a bearer token."""

    username: str | None = None


class ChatSettings(SecretSection):
    """Messages over apprise; the password is the whole address of the service."""

    format: Literal["text", "markdown"] = "text"
    events: bool = False


class SinkSettings(Section):
    """Who gets the events."""

    console: ConsoleSettings = ConsoleSettings()
    mqtt: MqttSettings = MqttSettings()
    webhook: dict[SinkName, WebhookSettings] = Field(default_factory=dict)
    alertmanager: dict[SinkName, AlertmanagerSettings] = Field(default_factory=dict)
    chat: dict[SinkName, ChatSettings] = Field(default_factory=dict)


class AlertSettings(Section):
    """Where the alert policy is written."""

    policy: Path | None = None


class HttpSettings(Section):
    """The live page, metrics, health and the API, and who may ask."""

    enabled: bool = True
    token_file: Path | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    client_ca_file: Path | None = None
    allowed_hosts: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: Port = 9464

    @field_validator("client_ca_file")
    @classmethod
    def _with_tls(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and not (info.data.get("tls_cert_file") and info.data.get("tls_key_file")):
            raise ValueError("http.tls_cert_file and http.tls_key_file beside it")
        return value

    @field_validator("tls_key_file")
    @classmethod
    def _with_certificate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if (value is None) != (info.data.get("tls_cert_file") is None):
            raise ValueError("http.tls_cert_file and http.tls_key_file together, or neither")
        return value

    @field_validator("host")
    @classmethod
    def _not_open_to_the_world(cls, value: str, info: ValidationInfo) -> str:
        """Whoever can reach it could read every account."""
        if not is_loopback(value) and not info.data.get("token_file") and not info.data.get("client_ca_file"):
            raise ValueError("a loopback address, or http.token_file, or http.client_ca_file with TLS: without one anybody could read it")
        return value

    def token(self) -> str | None:
        """The token that readers must bring. Raises ConfigError when its file cannot be used."""
        if self.token_file is None:
            return None
        text = read_secret(self.token_file, "http.token_file")
        if len(text) < LEAST_TOKEN:
            raise ConfigError(
                source=str(self.token_file),
                key="http.token_file",
                value=f"{len(text)} characters",
                expected=f"a token of at least {LEAST_TOKEN} (openssl rand -hex 32)",
            )
        return text


class LogSettings(Section):
    """What is written to standard error."""

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(Section):
    """All settings of the daemon."""

    ledger: LedgerSettings = LedgerSettings()
    cache: CacheSettings = CacheSettings()
    feeds: FeedsSettings = FeedsSettings()
    evaluator: EvaluatorSettings = EvaluatorSettings()
    levels: LevelSettings = LevelSettings()
    alerts: AlertSettings = AlertSettings()
    sinks: SinkSettings = SinkSettings()
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()


def load_settings(
    path: Path | None, *, environment: Mapping[str, str] | None = None, overrides: Mapping[str, Any] | None = None
) -> Settings:
    """Reads, merges and checks the settings.

    Args:
        path: The TOML file, or None for the defaults.
        environment: Variables; `os.environ` when None.
        overrides: Flags, as dotted keys: {"http.port": 9000}. The strongest.

    Raises:
        ConfigError: The first thing wrong, with file, line, key, value and what was expected.
    """
    raw: dict[str, Any] = {}
    text = ""
    if path is not None:
        text, raw = _read_toml(path)
        _refuse_inline_secrets(path, text, raw)
    environment = os.environ if environment is None else environment
    origins: dict[tuple[str, ...], str] = {}
    for name, value in sorted(environment.items()):
        if name.startswith(ENVIRONMENT_PREFIX) and "__" in name:
            keys = tuple(name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"))
            origins[keys] = name
            _put(raw, keys, _from_text(value))
    for dotted, value in (overrides or {}).items():
        keys = tuple(dotted.split("."))
        origins[keys] = "--" + dotted.replace(".", "-")
        _put(raw, keys, value)
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        raise _first_error(error, raw, path, text, origins) from None


def load_policy(path: Path, sinks: Sequence[str]) -> AlertPolicy:
    """Reads and checks an alert policy. `sinks`: those that are set up. Raises ConfigError with file, line, key and value."""
    text, raw = _read_toml(path)

    def line_in_policy(keys: Sequence[str]) -> int | None:
        if len(keys) < 2 or keys[0] != "routes":
            return line_of(text, keys)
        starts = [number for number, line in enumerate(text.splitlines()) if re.match(r"\s*\[\[\s*routes\s*\]\]", line)]
        if not int(keys[1]) < len(starts):
            return None
        start = starts[int(keys[1])]
        inside = line_of("\n".join(text.splitlines()[start:]), ("routes", *keys[2:3]))
        return start + (inside or 1)

    return parse_policy(raw, source=str(path), sinks=sinks, line_of=line_in_policy)


def redacted(settings: Settings) -> dict[str, Any]:
    """The effective settings as plain values, with every secret shown as `***`."""
    dumped = settings.model_dump(mode="json")

    def hide(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: ("***" if key == "password" and value is not None else hide(value)) for key, value in node.items()}
        return node

    result = hide(dumped)
    assert isinstance(result, dict)
    return result


def _read_toml(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(source=str(path), key="(file)", value=error.strerror or str(error), expected="a readable TOML file") from None
    if len(data) > 1_000_000:
        raise ConfigError(source=str(path), key="(file)", value=f"{len(data)} bytes", expected="at most 1 MB")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(source=str(path), line=line, key="(text)", value="not UTF-8", expected="UTF-8 text") from None
    try:
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        line = int(found[1]) if found else text.count("\n") + 1
        lines = text.splitlines()
        shown = lines[line - 1].strip() if 0 < line <= len(lines) else "(end of file)"
        raise ConfigError(source=str(path), line=line, key="(syntax)", value=repr(shown), expected=f"TOML: {error}") from None


def _refuse_inline_secrets(path: Path, text: str, raw: Mapping[str, Any]) -> None:
    """A password in the file would end up in backups and version control."""

    def walk(node: Mapping[str, Any], keys: tuple[str, ...]) -> None:
        for key, value in node.items():
            if isinstance(value, dict):
                walk(value, (*keys, key))
            elif key == "password":
                variable = ENVIRONMENT_PREFIX + "__".join((*keys, key)).upper()
                raise ConfigError(
                    source=str(path),
                    line=line_of(text, (*keys, key)),
                    key=".".join((*keys, key)),
                    value="***",
                    expected=f"no secret in this file: use the variable {variable} or password_file",
                )

    walk(raw, ())


def _from_text(value: str) -> Any:
    """An environment value: TOML syntax where it is TOML (numbers, booleans, lists), else the text itself."""
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return value


def _put(raw: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    node = raw
    for key in keys[:-1]:
        below = node.setdefault(key, {})
        if not isinstance(below, dict):
            below = node[key] = {}
        node = below
    node[keys[-1]] = value


def _first_error(
    error: ValidationError, raw: Mapping[str, Any], path: Path | None, text: str, origins: Mapping[tuple[str, ...], str]
) -> ConfigError:
    """The first problem of a pydantic report, in the words of this house."""
    first = min(error.errors(include_url=False), key=lambda each: each["type"] == "missing")  # a misspelt key is both unknown and missing
    keys = tuple(str(part) for part in first["loc"])
    while keys and keys[-1] in ("str", "constrained-str", "literal['']", "function-after[_redis_url(), str]"):
        keys = keys[:-1]
    shown = repr(_at(raw, keys))
    if first["type"] == "extra_forbidden":
        known = _known_keys(keys[:-1])
        near = difflib.get_close_matches(keys[-1], known, n=1)
        expected = f"a known key, perhaps {near[0]!r}" if near else f"one of {', '.join(known)}"
    elif first["type"] == "missing":
        expected = "a value: this key has no default"
    else:
        expected = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    origin = next((name for known_keys, name in origins.items() if keys[: len(known_keys)] == known_keys), None)
    if origin is not None or path is None:
        return ConfigError(source=origin or "settings", key=".".join(keys), value=shown, expected=expected)
    return ConfigError(source=str(path), line=line_of(text, keys), key=".".join(keys), value=shown, expected=expected)


def _at(raw: Any, keys: Sequence[str]) -> Any:
    node = raw
    for key in keys:
        if isinstance(node, Mapping) and key in node:
            node = node[key]
        elif isinstance(node, list | tuple) and key.isdigit() and int(key) < len(node):
            node = node[int(key)]
        else:
            break
    return node


def _known_keys(keys: Sequence[str]) -> list[str]:
    model: type[BaseModel] = Settings
    for key in keys:
        field = model.model_fields.get(key)
        if field is None:
            break
        candidates = [a for a in (field.annotation, *get_args(field.annotation)) if isinstance(a, type) and issubclass(a, BaseModel)]
        if not candidates:
            break
        model = candidates[0]
    return list(model.model_fields)


_PART = r"""(?:"[^"]*"|'[^']*'|[\w-]+)"""
_KEYS = rf"{_PART}(?:\s*\.\s*{_PART})*"


def line_of(text: str, keys: Sequence[str]) -> int | None:
    """The line on which a dotted key stands in a TOML text: the deepest part of it that can be found."""
    section: tuple[str, ...] = ()
    best: tuple[int, int] | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(rf"\s*\[+\s*({_KEYS})\s*\]+", line):
            here = section = _parts(header[1])
        elif assignment := re.match(rf"\s*({_KEYS})\s*=", line):
            here = (*section, *_parts(assignment[1]))
        else:
            continue
        depth = len(here)
        if tuple(keys[:depth]) == here and (best is None or depth > best[0]):
            best = (depth, number)
        elif best is None and here[: len(keys)] == tuple(keys):
            best = (0, number)  # a section that stands in the file only through its parts
    return best[1] if best else None


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in re.findall(_PART, dotted))
