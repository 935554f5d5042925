"""Makes the passwords and certificates that compose.yaml (or a cluster) starts with, once; what is there already is kept.

    prepare.py FOLDER            writes FOLDER/<consumer>/..., owned by the consumer where we are root
    prepare.py FOLDER --show     prints what people need: the passwords of operator, producers, readers and Grafana, and the authority

Consumers: margin-monitor (its passwords), prometheus (the token of the live page and /metrics), redis (users.acl with hashes), mosquitto
(password hashes, certificate, rights), grafana, people.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import secrets
import subprocess
import sys
from pathlib import Path

__all__ = ["main", "mosquitto_hash", "prepare"]

# The users that the images run as: (uid, gid).
_OWNERS = {
    "margin-monitor": (10001, 10001),
    "redis": (999, 999),
    "mosquitto": (1883, 1883),
    "mosquitto-data": (1883, 1883),  # the broker's volume: its image does not know the folder
    "grafana": (472, 0),
    "prometheus": (65534, 65534),
    "people": (0, 0),
}
_REDIS_USERS = ("margin-monitor", "margin-producer", "margin-reader", "margin-operator", "margin-backup")
_MQTT_USERS = ("margin-monitor", "operator")
_YEARS = 10


def main(arguments: list[str]) -> int:
    """Prepares a folder or shows what people need of it."""
    show = "--show" in arguments
    folders = [argument for argument in arguments if not argument.startswith("--")]
    if len(folders) != 1:
        print("usage: prepare.py FOLDER [--show]", file=sys.stderr)
        return 2
    folder = Path(folders[0])
    if show:
        for path in sorted((folder / "people").iterdir()):
            print(f"{path.name}: {path.read_text(encoding='utf-8').strip()}")
        return 0
    prepare(folder, deploy=Path(__file__).resolve().parents[1])
    return 0


def prepare(folder: Path, *, deploy: Path) -> None:
    """Writes what is absent.

    A folder that was completed once keeps its passwords and certificates; the broker's rights and all owners are set anew.

    Args:
        folder: Where the folders of the consumers are.
        deploy: The folder with redis/users.acl and mosquitto/acl.
    """
    os.umask(0o077)
    for consumer in _OWNERS:
        (folder / consumer).mkdir(parents=True, exist_ok=True)
    done = folder / "people" / "prepared"
    if not done.exists():
        redis = {user: secrets.token_urlsafe(32) for user in _REDIS_USERS}
        mqtt = {user: secrets.token_urlsafe(32) for user in _MQTT_USERS}
        grafana = secrets.token_urlsafe(24)
        _write(folder / "redis" / "users.acl", _acl((deploy / "redis" / "users.acl").read_text(encoding="utf-8"), redis))
        _write(folder / "mosquitto" / "passwords", "".join(f"{user}:{mosquitto_hash(password)}\n" for user, password in mqtt.items()))
        authority = _make_certificates(folder / "mosquitto" / "certs", names=("mosquitto", "localhost"))
        _write(folder / "margin-monitor" / "redis", redis["margin-monitor"])
        _write(folder / "margin-monitor" / "mqtt", mqtt["margin-monitor"])
        _write(folder / "margin-monitor" / "ca.pem", authority)
        _write(folder / "grafana" / "admin-password", grafana)
        for name, secret in (
            ("redis-margin-producer", redis["margin-producer"]),
            ("redis-margin-reader", redis["margin-reader"]),
            ("redis-margin-operator", redis["margin-operator"]),
            ("redis-margin-backup", redis["margin-backup"]),
            ("mqtt-operator", mqtt["operator"]),
            ("grafana-admin", grafana),
            ("mqtt-ca.pem", "\n" + authority),
        ):
            _write(folder / "people" / name, secret)
        _write(done, "The passwords and certificates were made. Remove the volumes to have new ones.")
    if not (folder / "people" / "page-token").exists():  # by itself, so that an older deployment gets one too
        token = secrets.token_urlsafe(32)
        for path in ("margin-monitor/http", "prometheus/http", "people/page-token"):
            _write(folder / path, token)
    _write(folder / "mosquitto" / "acl", (deploy / "mosquitto" / "acl").read_text(encoding="utf-8"))
    _hand_over(folder)


def mosquitto_hash(password: str, *, salt: bytes | None = None, iterations: int = 20_000) -> str:
    """A password as mosquitto 2 stores it: `$7$<iterations>$<salt>$<PBKDF2-HMAC-SHA512>`, both in base64."""
    salt = secrets.token_bytes(12) if salt is None else salt
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, iterations, 64)
    return f"$7${iterations}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def _acl(template: str, passwords: dict[str, str]) -> str:
    """The users of deploy/redis/users.acl, with the hash of each password in the place of the zeros."""
    for user, password in passwords.items():
        hashed = hashlib.sha256(password.encode()).hexdigest()
        template, found = re.subn(rf"^(user {user} on )#0{{64}}", rf"\g<1>#{hashed}", template, flags=re.MULTILINE)
        if found != 1:
            raise SystemExit(f"prepare: users.acl: expected one line `user {user} on #000...`, found {found}")
    return template


def _make_certificates(folder: Path, *, names: tuple[str, ...]) -> str:
    """An authority of our own, and the broker's certificate for `names`; returns the authority. Its key is thrown away."""
    folder.mkdir(exist_ok=True)
    days = str(_YEARS * 365)
    alternatives = ",".join([*(f"DNS:{name}" for name in names), "IP:127.0.0.1"])
    authority, key = folder / "ca.pem", folder / "ca.key"
    request = folder / "broker.csr"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    _openssl("req", "-x509", *curve, "-days", days, "-subj", "/CN=margin-monitor authority", "-keyout", str(key), "-out", str(authority))
    _openssl("req", *curve, "-subj", f"/CN={names[0]}", "-keyout", str(folder / "broker.key"), "-out", str(request))
    extensions = folder / "broker.ext"
    _write(extensions, f"subjectAltName={alternatives}\nbasicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth\n")
    signed = ["-CA", str(authority), "-CAkey", str(key), "-CAcreateserial", "-CAserial", str(folder / "ca.serial")]
    _openssl("x509", "-req", "-in", str(request), *signed, "-days", days, "-extfile", str(extensions), "-out", str(folder / "broker.pem"))
    for path in (key, request, extensions, folder / "ca.serial"):
        path.unlink(missing_ok=True)
    return authority.read_text(encoding="utf-8")


def _openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"prepare: openssl {arguments[0]} ended with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")


def _write(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o400)


def _hand_over(folder: Path) -> None:
    """Gives each consumer its own folder; only root can."""
    if os.geteuid() != 0:
        return
    for consumer, (uid, gid) in _OWNERS.items():
        for path in (folder / consumer, *(folder / consumer).rglob("*")):
            os.chown(path, uid, gid)
            if path.is_dir():
                path.chmod(0o700)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
