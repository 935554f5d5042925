"""Settings: what is read, in which order, and what the errors say."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from monitor.errors import ConfigError
from monitor.service.settings import Settings, load_settings, redacted

ROOT = Path(__file__).resolve().parents[2]


def write(tmp_path: Path, text: str) -> Path:
    """A settings file with this text."""
    path = tmp_path / "settings.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_documented_file_holds_the_defaults() -> None:
    """config/margin-monitor.toml says what the code does when there is no file."""
    assert load_settings(ROOT / "config" / "margin-monitor.toml", environment={}) == Settings()


def test_every_key_is_documented() -> None:
    """Each key of the settings stands in config/margin-monitor.toml, set or commented."""
    text = (ROOT / "config" / "margin-monitor.toml").read_text(encoding="utf-8")
    for section, model in Settings():
        for key in type(model).model_fields:
            if key != "password" and section != "feeds":
                assert any(f in text for f in (f"{key} =", f".{key}]", f".{key}.")), f"{section}.{key}"


def test_flags_win_over_environment_over_file(tmp_path: Path) -> None:
    """The three sources are merged in the promised order."""
    path = write(tmp_path, "[http]\nport = 1\nhost = '127.0.0.2'\n[log]\nlevel = 'error'\n")
    environment = {"MARGIN_MONITOR_HTTP__PORT": "2", "MARGIN_MONITOR_HTTP__HOST": "127.0.0.3", "OTHER": "x"}
    settings = load_settings(path, environment=environment, overrides={"http.port": 3})

    assert (settings.http.port, settings.http.host, settings.log.level) == (3, "127.0.0.3", "error")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[http]\nport = 70000\n", "settings.toml:2: http.port: 70000"),
        ('[http]\nhost = "0.0.0.0"\n', "settings.toml:2: http.host: '0.0.0.0': expected a loopback address, or http.token_file"),
        ('[http]\nhost = "::"\ntls_cert_file = "a"\ntls_key_file = "b"\n', "settings.toml:2: http.host: '::': expected a loopback address"),
        ('[http]\ntls_key_file = "b"\n', "settings.toml:2: http.tls_key_file: 'b': expected http.tls_cert_file and http.tls_key_file"),
        ('[http]\nclient_ca_file = "b"\n', "settings.toml:2: http.client_ca_file: 'b': expected http.tls_cert_file"),
        ("[http]\n\nprot = 1\n", "settings.toml:3: http.prot: 1: expected a known key, perhaps 'port'"),
        ("[htp]\nport = 1\n", "settings.toml:1: htp: {'port': 1}: expected a known key, perhaps 'http'"),
        ('[ledger]\nurl = "http://x"\n', "settings.toml:2: ledger.url: 'http://x': expected \"embedded\""),
        ('[ledger]\nurl = "redis://u:secret@h"\n', "without a password"),
        ('[ledger]\npassword = "x"\n', "settings.toml:2: ledger.password: ***: expected no secret in this file"),
        ("[ledger]\npartitions = 3\n", "settings.toml:2: ledger.partitions: 3: expected 1 or 64"),
        ("[levels]\nwatch = { enter = 0.9, leave = 0.95 }\n", "leave (0.95) at most enter (0.9)"),
        ("[levels.watch]\nenter = 0.9\nleave = 0.85\n", "settings.toml:1: levels: "),
        ("[levels]\nwatch = { enter = nan, leave = 0.5 }\n", "settings.toml:2: levels.watch.enter: nan"),
        ('[feeds]\nvenues = ["binance"]\n', "settings.toml:2: feeds.venues.0: 'binance': expected one of binance_usdm"),
        ('[feeds.okx]\nurl = "ws://example.org"\n', "settings.toml:2: feeds.okx.url: 'ws://example.org': expected a wss:// address"),
        ("x = [", "settings.toml:1: (syntax): 'x = ['"),
        ("[http]\nport = 1\nport = 2\n", "settings.toml:3: (syntax)"),
    ],
)
def test_an_error_names_file_line_key_value_and_what_was_expected(tmp_path: Path, text: str, said: str) -> None:
    """One line that a person can act on."""
    with pytest.raises(ConfigError) as caught:
        load_settings(write(tmp_path, text), environment={})

    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_error_in_the_environment_names_the_variable() -> None:
    """The variable is where the reader has to look."""
    with pytest.raises(ConfigError, match=r"^MARGIN_MONITOR_HTTP__PORT: http.port: 'x'"):
        load_settings(None, environment={"MARGIN_MONITOR_HTTP__PORT": "x"})


@pytest.mark.parametrize(("data", "said"), [(b"\xff\xfe[", "not UTF-8"), (None, "No such file")])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, data: bytes | None, said: str) -> None:
    """Absent files and other encodings are errors of their own."""
    path = tmp_path / "settings.toml"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"settings\.toml") as caught:
        load_settings(path, environment={})

    assert said in str(caught.value)


def test_secrets_are_hidden_and_their_file_must_be_private(tmp_path: Path) -> None:
    """A password never appears in the effective settings, and a file that others can read is refused."""
    settings = load_settings(None, environment={"MARGIN_MONITOR_LEDGER__PASSWORD": "canary-secret"})
    assert settings.ledger.secret() == "canary-secret"
    assert "canary-secret" not in str(redacted(settings)) + repr(settings)

    secret = tmp_path / "secret"
    secret.write_text("from a file\n")
    secret.chmod(0o644)
    with_file = load_settings(None, environment={}, overrides={"ledger.password_file": str(secret)})
    with pytest.raises(ConfigError, match="chmod 600"):
        with_file.ledger.secret()
    secret.chmod(0o600)
    assert with_file.ledger.secret() == "from a file"


def test_thresholds_are_exact() -> None:
    """0.65 in the file is the decimal 0.65, not the nearest float64."""
    assert Settings().levels.thresholds().watch.enter == Decimal("0.65")
