"""The command `top`: it asks with the token that it was given."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from monitor.errors import MonitorError
from monitor.service.http import HttpServer
from monitor.service.http_guard import Guard
from monitor.service.top import top_command


async def test_it_gives_the_token_of_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the token the table is shown; without it, or with another one, the answer is told."""

    async def accounts(_request: Request) -> Response:
        return Response(orjson.dumps({"total": 7, "offset": 0, "accounts": []}))

    app = Starlette(routes=[Route("/api/accounts", accounts)], middleware=[Middleware(Guard, token="a long token")])
    app.state.closing = asyncio.Event()
    server = HttpServer(app, host="127.0.0.1", port=0)
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text("a long token\n")
    wrong.write_text("another one\n")
    for path in (right, wrong):
        path.chmod(0o600)

    def top(token_file: Path | None) -> int:
        return top_command(server.address, count=5, once=True, interval_s=1.0, token_file=token_file)

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(server.run())
        assert await asyncio.to_thread(top, right) == 0
        assert "7 accounts at" in capsys.readouterr().out
        for refused in (wrong, None):
            with pytest.raises(MonitorError, match="401"):
                await asyncio.to_thread(top, refused)
        server.stop()
