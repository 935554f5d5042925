"""Make `.venv` with the pinned requirements (hashes checked) and the project itself, inside the checkout.

Runs on the system's own Python. Where Debian's Python came without the package python3-venv, pip is taken from the package
python3-pip-whl, unpacked into `.servers/`.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys

import debian

__all__ = ["main"]

_VENV = debian.ROOT / ".venv"
_PYTHON = _VENV / "bin" / "python"


def main(requirements: list[str]) -> int:
    """Install the requirement files into `.venv`, made first where it is absent, broken or of another Python.

    Returns:
        0, or 1 with one line on standard error that says what to do.
    """
    try:
        if not _is_usable():
            _create()
        for name in requirements:
            print(f"installing {name} into .venv (hashes checked)", flush=True)
            _pip("install", "--require-hashes", "-r", str(debian.ROOT / name))
        # Build tools are pinned and in the environment already; so nothing is fetched for the project itself.
        _pip("install", "--no-deps", "--no-build-isolation", "--editable", str(debian.ROOT))
    except subprocess.CalledProcessError as error:
        print(f"make_venv: {' '.join(map(str, error.cmd[:6]))} ... ended with {error.returncode}; its message is above", file=sys.stderr)
        return 1
    except debian.UnobtainableError as error:
        print(
            f"make_venv: {sys.executable} has no ensurepip, and python3-pip-whl is not to be had ({error});"
            " install the package python3-venv and try again",
            file=sys.stderr,
        )
        return 1
    return 0


def _is_usable() -> bool:
    """Whether `.venv` is here, runs, has pip and is of this Python's version."""
    ask = "import pip, sys; print(*sys.version_info[:2])"
    try:
        done = subprocess.run([_PYTHON, "-c", ask], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return done.returncode == 0 and done.stdout.split() == [str(part) for part in sys.version_info[:2]]


def _create() -> None:
    """Make the environment, with pip from ensurepip or from Debian's wheel of it."""
    shutil.rmtree(_VENV, ignore_errors=True)
    print(f"making .venv with Python {'.'.join(map(str, sys.version_info[:3]))} ({sys.executable})", flush=True)
    if importlib.util.find_spec("ensurepip") is not None:
        subprocess.run([sys.executable, "-m", "venv", str(_VENV)], check=True)
        return
    debian.unpack("python3-pip-whl", dependencies=False)
    wheel = next(iter(sorted((debian.UNPACKED / "usr/share/python-wheels").glob("pip-*.whl"))), None)
    if wheel is None:
        raise debian.UnobtainableError("the package python3-pip-whl has no pip wheel")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(_VENV)], check=True)
    _pip("install", "--no-index", str(wheel), pip=[str(_PYTHON), str(wheel / "pip")])


def _pip(*arguments: str, pip: list[str] | None = None) -> None:
    """Run pip of the environment; its cache would be outside the checkout, so it has none."""
    quiet = ["--quiet", "--no-cache-dir", "--disable-pip-version-check", "--no-input"]
    environment = os.environ | {"PIP_ROOT_USER_ACTION": "ignore", "PYTHONNOUSERSITE": "1"}
    subprocess.run([*(pip or [str(_PYTHON), "-m", "pip"]), *arguments[:1], *quiet, *arguments[1:]], check=True, env=environment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
