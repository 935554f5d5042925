"""The image: pinned, without root, its parts there; its helpers do what the Dockerfile counts on. Docker itself is not run here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from deploy.docker.healthcheck import is_alive

_ROOT = Path(__file__).resolve().parents[2]
_FOLDER = _ROOT / "deploy" / "docker"
_DOCKERFILE = (_FOLDER / "Dockerfile").read_text(encoding="utf-8")


def test_what_goes_in_is_pinned() -> None:
    """The base by digest, every requirement by hash, the project from files that were copied."""
    assert re.search(r"^ARG PYTHON_IMAGE=python:\d+\.\d+\.\d+-slim-bookworm@sha256:[0-9a-f]{64}$", _DOCKERFILE, re.MULTILINE)
    assert set(re.findall(r"^FROM (\S+)", _DOCKERFILE, re.MULTILINE)) == {"${PYTHON_IMAGE}"}
    for line in re.findall(r"pip install .*", _DOCKERFILE):
        assert "--require-hashes" in line or "--no-index" in line, line


def test_it_runs_without_root_and_is_watched() -> None:
    """The last stage sets a user by number, a health check, and an entry point."""
    last = _DOCKERFILE.rsplit("FROM ", maxsplit=1)[1]

    assert re.search(r"^USER (?!0)\d+:\d+$", last, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK .*healthcheck\.py", last, re.MULTILINE)
    assert "apt-get" not in _DOCKERFILE


def test_everything_it_copies_is_let_through_and_exists() -> None:
    """The list of what the build may see names each source of a COPY, and nothing secret can slip in."""
    allowed = {line[1:] for line in (_FOLDER / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")}
    copied = {source for line in re.findall(r"^COPY (?!--from)(.+)$", _DOCKERFILE, re.MULTILINE) for source in line.split()[:-1]}

    assert copied == allowed
    assert all((_ROOT / source).exists() for source in copied)


def test_the_health_check_follows_livez() -> None:
    """200 is alive; 503 and silence are not."""
    status = [200]

    class Livez(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status[0] if self.path == "/livez" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
            """Keeps quiet."""

    with HTTPServer(("127.0.0.1", 0), Livez) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        assert is_alive(port)
        status[0] = 503
        assert not is_alive(port)
        server.shutdown()
    assert not is_alive(port)


@pytest.mark.parametrize("is_writable", [True, False])
def test_the_entry_point_brings_the_kernels_and_becomes_the_daemon(tmp_path: Path, is_writable: bool) -> None:
    """The compiled kernels go where Numba may write; where nothing can be written it says what to do and goes on."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "kernel.nbc").write_text("compiled")
    (folder / "entrypoint").write_bytes((_FOLDER / "entrypoint").read_bytes())
    (folder / "entrypoint").chmod(0o755)
    (folder / "margin-monitor").write_text('#!/bin/sh\necho "became $$: $*"\n')
    (folder / "margin-monitor").chmod(0o755)
    cache = tmp_path / ("cache" if is_writable else "absent/cache")

    with subprocess.Popen(
        [folder / "entrypoint", "run", "--shard", "0/2"],
        env={"PATH": os.environ["PATH"], "NUMBA_CACHE_DIR": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        out, error = process.communicate(timeout=10)

    assert out == f"became {process.pid}: run --shard 0/2\n"
    assert (cache / "kernel.nbc").exists() == is_writable
    assert ("--tmpfs /tmp" in error) == (not is_writable)


def test_the_kernels_are_compiled_while_the_image_is_built(tmp_path: Path) -> None:
    """The warm-up fills the cache folder, for a processor by name; a second run finds all of it there."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_CPU_NAME": "generic", "PYTHONPATH": str(_ROOT)}
    found = []
    for _ in range(2):
        subprocess.run([sys.executable, _FOLDER / "warm_up.py"], env=environment, check=True, timeout=100)
        found.append({path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nbc")})

    assert found[0]
    assert found[0] == found[1]
