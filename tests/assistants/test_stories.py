"""The stories of tests/heavy/test_browser.py as an assistant lives them."""

from __future__ import annotations

import pytest

from aggregator.client import Client, Query
from tests.assistants.asking import assistant
from tests.redis_servers import RedisServer, redis_servers_available
from tests.web.shop import FAILED, grow, stock

pytestmark = [
    pytest.mark.parametrize("redis_server", sorted(redis_servers_available())[:1], indirect=True),
    pytest.mark.parametrize(("transport", "era"), [("stdio", "auto"), ("http", "legacy")]),
]


async def test_find_the_dearest_open_session_see_which_trace_failed_and_go_there(
    redis_server: RedisServer, transport: str, era: str
) -> None:
    await stock(redis_server.url)
    async with assistant(redis_server.url, transport, era) as ask:
        found = await ask("find_sessions", project="travel", status="open", sort="cost", limit=3)
        dearest = found["sessions"][0]
        assert (dearest["session_id"], dearest["cost_usd"]) == ("runaway-agent", "51.720000000")
        told = await ask("explain_session", session_id=dearest["session_id"], project=dearest["project"])
        assert told["against_project"]["times_median"]["cost"] > 100
        assert [one["model"] for one in told["models"]] == ["gpt-4o"]
        (failed,) = told["failed_traces"]
        assert (failed["trace_id"], failed["name"]) == (FAILED, "search flights")
        assert failed["link"] == f"https://jaeger.example/trace/{FAILED}?session=runaway-agent"
        assert failed["link"] in await ask.text("explain_session", session_id="runaway-agent")


async def test_find_all_sessions_of_a_user(redis_server: RedisServer, transport: str, era: str) -> None:
    await stock(redis_server.url)
    async with assistant(redis_server.url, transport, era) as ask:
        first = (await ask("find_sessions", search="runaway"))["sessions"][0]
        seen, cursor = list[str](), None
        while True:
            page = await ask("find_sessions", user=first["user_id"], limit=10, **({"cursor": cursor} if cursor else {}))
            seen += [one["session_id"] for one in page["sessions"]]
            if (cursor := page["next"]) is None:
                break
        async with Client(redis_server.url) as client:
            assert seen == [one.session_id async for one in client.all(Query(user="grace"))]
        assert len(seen) > 10


async def test_watch_a_running_session_grow(redis_server: RedisServer, transport: str, era: str) -> None:
    await stock(redis_server.url)
    async with assistant(redis_server.url, transport, era) as ask:
        before = await ask("explain_session", session_id="runaway-agent", traces_by="start", limit=50)
        await grow(redis_server.url, 91_000)
        after = await ask("explain_session", session_id="runaway-agent", traces_by="start", limit=50)
        assert len(after["traces"]) == after["session"]["trace_count"] == len(before["traces"]) + 1
        assert after["session"]["tokens"]["total"] == before["session"]["tokens"]["total"] + 120
        (most,) = (await ask("find_sessions", sort="traces", limit=1))["sessions"]
        assert most == after["session"]
