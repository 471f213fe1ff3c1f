"""The stories of tests/heavy/test_browser.py on the command line, in processes of their own."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from aggregator.client import Client, Query
from tests.redis_servers import RedisServer, redis_servers_available
from tests.test_cli import command
from tests.web.shop import FAILED, TRACE_URL, environ_of, grow, stock

pytestmark = pytest.mark.parametrize("redis_server", sorted(redis_servers_available())[:1], indirect=True)


@pytest.fixture
async def url(redis_server: RedisServer) -> str:
    await stock(redis_server.url)
    return redis_server.url


async def sessions(url: str, *arguments: str) -> str:
    code, out, err = await command(
        "sessions", *arguments, AGGREGATOR_REDIS__URL=url, AGGREGATOR_WEB__TRACE_URL=TRACE_URL
    )
    assert code == 0, err
    return out


async def test_find_the_dearest_open_session_see_which_trace_failed_and_go_there(url: str) -> None:
    listed = await sessions(url, "ls", "--project", "travel", "--status", "open", "--sort", "cost")
    rows = [line.split() for line in listed.splitlines() if line.startswith(" travel")]
    assert rows[0][1] == "runaway-agent"
    shown = await sessions(url, "show", rows[0][1])
    (failed,) = [line for line in shown.splitlines() if "✗" in line]
    assert "search flights" in failed
    assert FAILED in failed
    assert f"search flights: https://jaeger.example/trace/{FAILED}?session=runaway-agent" in shown.splitlines()


async def test_find_all_sessions_of_a_user(url: str) -> None:
    first = json.loads(await sessions(url, "ls", "--search", "runaway", "--json"))["sessions"][0]
    found = json.loads(await sessions(url, "ls", "--user", first["user_id"], "--json", "-n", "500"))
    async with Client(url) as client:
        wanted = [one.session_id async for one in client.all(Query(user="grace"))]
    assert [one["session_id"] for one in found["sessions"]] == wanted
    assert len(wanted) > 10


async def test_watch_a_running_session_grow(url: str) -> None:
    top = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "aggregator", "sessions", "top", "--json", "--every", "0.2", "--sort", "traces"),
        env=environ_of(url),
        stdout=asyncio.subprocess.PIPE,
        limit=2**20,
    )
    assert top.stdout is not None

    async def traces() -> int:
        """Of the session that leads at the next look."""
        assert top.stdout is not None
        leading = json.loads(await asyncio.wait_for(top.stdout.readline(), timeout=30))["sessions"][0]
        assert leading["session_id"] == "runaway-agent"
        return int(leading["trace_count"])

    try:
        before = await traces()
        for more in (1, 2):
            await grow(url, 91_000 + more)
            while (seen := await traces()) == before + more - 1:
                pass
            assert seen == before + more
    finally:
        top.terminate()
        await top.communicate()
