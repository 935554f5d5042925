"""Secrets in every place that the settings allow, under the shipped ACLs: they appear in no log, metric, page, process list or key."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.service.settings import SecretSection, Settings
from tests.support.commands import needs, path_of

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("http", "ledger", "cache", "sinks.mqtt", "sinks.webhook.hook", "sinks.alertmanager.main", "sinks.chat.desk")
PAGES = ("/", "/metrics", "/livez?verbose", "/readyz?verbose", "/api/accounts", "/api/accounts/a1", "/api/events", "/api/feeds", "/x")
DOCUMENT = (
    '{"version": 1, "sequence": 1, "account": {"id": "a1", "venue": "binance_usdm", "balances": [],'
    ' "positions": [{"instrument": "BTCUSDT", "quantity": "1"}]}}'
)


def canary(place: str) -> str:
    """The secret of one place."""
    word = f"canary-{hashlib.sha256(place.encode()).hexdigest()[:40]}"
    return f"json://user:{word}@127.0.0.1:9/" if place == "sinks.chat.desk" else word


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Path]:
    """A Redis with the users of deploy/redis/users.acl, and one who may look at everything. Its socket."""
    acl = (ROOT / "deploy" / "redis" / "users.acl").read_text()
    digest = hashlib.sha256(canary("ledger").encode()).hexdigest()
    (tmp_path / "users.acl").write_text(
        re.sub(r"(user margin-monitor on #)0+", rf"\g<1>{digest}", acl) + "user looker on nopass ~* &* +@all\n"
    )
    socket = tmp_path / "r.sock"
    command = [path_of("redis-server") or "", "--port", "0", "--unixsocket", str(socket), "--dir", str(tmp_path)]
    command += ["--aclfile", str(tmp_path / "users.acl"), "--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    with subprocess.Popen([*command, "--maxmemory-policy", "noeviction"], stdout=subprocess.DEVNULL) as process:
        try:
            yield socket
        finally:
            process.terminate()
            process.wait(10)


def settings_text(folder: Path, socket: Path) -> str:
    """Settings with a secret in a file for every place, but the ledger's, whose comes from the environment."""
    parts = {
        "http": "port = 0\n",
        "ledger": f'url = "unix://{socket}"\nusername = "margin-monitor"\ndata_dir = "{folder}/known"\n',
        "cache": f'url = "unix://{socket}"\nusername = "margin-monitor"\n',
        "sinks.mqtt": 'enabled = true\nport = 9\nusername = "margin-monitor"\n',
        "sinks.webhook.hook": 'url = "http://127.0.0.1:9/hook"\nallow = ["127.0.0.1"]\n',
        "sinks.alertmanager.main": 'url = "http://127.0.0.1:9/"\nallow = ["127.0.0.1"]\nusername = "margin-monitor"\n',
        "sinks.chat.desk": "events = true\n",
    }
    text = '[evaluator]\nunknown_after_s = 0.5\n[log]\nlevel = "debug"\n'
    for place, part in parts.items():
        secret = folder / f"secret-{place}"
        secret.write_text(canary("ledger" if place == "cache" else place) + "\n")
        secret.chmod(0o600)
        key = "token_file" if place == "http" else "password_file"
        text += f"[{place}]\n{part}" + (f'{key} = "{secret}"\n' if place != "ledger" else "")
    return text


def test_every_place_for_a_secret_is_planted() -> None:
    """A new section with a secret has to be planted here too."""
    sinks = Settings.model_fields["sinks"].annotation
    assert sinks is not None
    of_sinks = {f"sinks.{name}" for name in sinks.model_fields} - {"sinks.console"}
    of_top = {
        name
        for name, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, SecretSection)
    }

    assert {".".join(place.split(".")[:2]) for place in PLACES} == of_sinks | of_top | {"http"}


@needs("redis-server", "redis-cli")
def test_no_secret_appears_anywhere(tmp_path: Path, redis: Path) -> None:
    """The whole daemon at work, with receivers that fail, a good reload and a refused one; then everything that it wrote is searched."""
    pytest.importorskip("apprise")
    file = tmp_path / "settings.toml"
    file.write_text(settings_text(tmp_path, redis))
    environment = {**os.environ, "MARGIN_MONITOR_LEDGER__PASSWORD": canary("ledger")}
    found: dict[str, str] = {}
    monitor = (sys.executable, "-m", "monitor")

    def mm(*arguments: str, given: str = "") -> None:
        done = subprocess.run(
            [*monitor, *arguments],
            cwd=ROOT,
            env=environment,
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        found[" ".join(arguments)] = done.stdout + done.stderr

    (tmp_path / "log").touch()
    with (tmp_path / "log").open("r+") as log, (tmp_path / "out").open("w") as out:
        command = [*monitor, "run", "--config", str(file), "--stage", "evaluator,alerts"]
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=log) as process:
            try:
                address = _wait_for(tmp_path / "log", r"http_listening address=(\S+)")
                _wait_for(tmp_path / "log", r" ready ()")
                mm("accounts", "import", "--config", str(file), "-", given=DOCUMENT)
                _wait_for(tmp_path / "out", r"(a1)")
                good = file.read_text()
                file.write_text(good + "[levels]\nwatch = { enter = 0.5, leave = 0.4 }\n")
                process.send_signal(signal.SIGHUP)
                _wait_for(tmp_path / "log", r" (reloaded) ")
                file.write_text(good.replace("password_file", 'password = "canary-inline"\npassword_file'))
                process.send_signal(signal.SIGHUP)
                _wait_for(tmp_path / "log", r" (reload_refused) ")
                mm("check-config", str(file))
                file.write_text(good)
                mm("check-config", str(file))
                mm("check-config", "--json", str(file))
                mm("accounts", "list", "--config", str(file))
                found |= {page: _get(address + page) for page in PAGES}
                found["command line"] = Path(f"/proc/{process.pid}/cmdline").read_text()
                look = [path_of("redis-cli") or "", "-s", str(redis), "--user", "looker", "--pass", "", "--no-auth-warning"]
                keys = subprocess.run([*look, "keys", "*"], capture_output=True, text=True, check=True).stdout.split()
                found["keys"] = " ".join(keys)
                found["clients"] = subprocess.run([*look, "client", "list"], capture_output=True, text=True, check=True).stdout
            finally:
                process.terminate()
                process.wait(20)
    found |= {str(file): file.read_text(errors="replace") for file in (tmp_path / "appendonlydir").iterdir()}  # every command that wrote
    found |= {"log": (tmp_path / "log").read_text(), "output": (tmp_path / "out").read_text()}

    assert "margin_monitor_ready" in found["/metrics"]
    assert "{0}:head" in found["keys"]
    assert "wanted:binance_usdm" in found["keys"]  # the ACL lets the daemon do all its work
    assert "NOPERM" not in found["log"]
    assert "***" in found[f"check-config {file}"]
    words = [re.sub(r"^json://user:(.*)@.*$", r"\1", canary(place)) for place in PLACES]
    assert {place: word for place, text in found.items() for word in [*words, "canary-"] if word in text} == {}


def _wait_for(file: Path, pattern: str) -> str:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if match := re.search(pattern, file.read_text()):
            return match[1]
        time.sleep(0.05)
    raise AssertionError(f"{pattern} not in: {file.read_text()}")


def _get(address: str) -> str:
    try:
        request = urllib.request.Request(address, headers={"Authorization": f"Bearer {canary('http')}"})
        with urllib.request.urlopen(request, timeout=10) as reply:
            return str(reply.read().decode() + str(reply.headers))
    except urllib.error.HTTPError as error:
        return error.read().decode() + str(error.headers)
