"""What the tools answer is what the client reads, within bounds, and nothing in it steers anybody."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median_low
from typing import Any

import jsonschema
import pytest
from mcp import Client as Sdk

from aggregator.adapters.redis.connections import connect
from aggregator.assistants.arguments import MOST_SESSIONS, MOST_TRACES
from aggregator.assistants.server import EVERYTHING, make_server
from aggregator.assistants.texts import DATA
from aggregator.client import Client, Query, Sort
from aggregator.client.trace_links import TraceLinks
from aggregator.core.model import SessionRef
from aggregator.ports import SessionPut
from tests.assistants.asking import Assistant
from tests.client.conftest import allow_reader
from tests.client.sessions import fill, puts, whole_put
from tests.contract.builders import T0_MS, T0_US
from tests.contract.conftest import Stores, redis_stores
from tests.redis_servers import RedisServer, redis_servers_available
from tests.sessions.hostile import HOSTILE, put_hostile
from tests.sessions.test_commands import STEERING
from tests.web.shop import KEYS, TRACE_URL

pytestmark = pytest.mark.parametrize("redis_server", sorted(redis_servers_available())[:1], indirect=True)


@pytest.fixture
async def stores(redis_server: RedisServer) -> AsyncIterator[Stores]:
    connections = connect(redis_server.url)
    yield redis_stores(connections, None, KEYS)
    await connections.close()


@asynccontextmanager
async def asking(redis_server: RedisServer) -> AsyncIterator[Assistant]:
    """An assistant of a server within this process, whose Redis user may only read."""
    server = make_server(Client(allow_reader(redis_server)), TraceLinks(TRACE_URL), EVERYTHING)
    async with Sdk(server) as client:
        yield Assistant(client)


async def test_every_tool_says_that_it_only_reads_and_what_it_takes_and_gives(redis_server: RedisServer) -> None:
    async with asking(redis_server) as ask:
        tools = (await ask.client.list_tools()).tools
    assert [tool.name for tool in tools] == ["find_sessions", "explain_session", "compare_sessions", "project_totals"]
    for tool in tools:
        assert tool.annotations is not None
        assert tool.annotations.read_only_hint
        assert not tool.annotations.destructive_hint
        assert not tool.annotations.open_world_hint
        assert tool.description
        jsonschema.Draft202012Validator.check_schema(tool.input_schema)
        assert tool.output_schema is not None
        jsonschema.Draft202012Validator.check_schema(tool.output_schema)
        for name, field in tool.input_schema["properties"].items():
            assert "description" in json.dumps(field), (tool.name, name)


async def test_pages_hold_each_session_once_in_the_client_s_order(redis_server: RedisServer, stores: Stores) -> None:
    await fill(stores, list(puts(120)), now_ms=T0_MS)
    async with asking(redis_server) as ask, Client(redis_server.url) as client:
        seen, cursor = list[dict[str, Any]](), None
        while True:
            page = await ask("find_sessions", project="demo", sort="cost", limit=MOST_SESSIONS, cursor=cursor)
            assert len(page["sessions"]) <= MOST_SESSIONS
            seen += page["sessions"]
            if (cursor := page["next"]) is None:
                break
        wanted = [one async for one in client.all(Query(project="demo", sort=Sort.COST))]
        assert seen == [one.model_dump(mode="json") for one in wanted]
        assert len(seen) > MOST_SESSIONS / 2
        least = await ask("find_sessions", project="demo", sort="cost", order="asc", limit=1)
        assert least["sessions"][0]["cost_usd"] == min(one["cost_usd"] for one in seen)
        middle = sorted(one["ended_at"] for one in seen if one["ended_at"])[len(seen) // 2]
        late = await ask("find_sessions", project="demo", since=middle, limit=MOST_SESSIONS, user="")
        assert all(one["ended_at"] >= middle for one in late["sessions"])
        assert late["matching"] == sum((one["ended_at"] or one["last_activity_at"]) >= middle for one in seen)


async def test_an_explanation_shares_out_the_whole_session(redis_server: RedisServer, stores: Stores) -> None:
    step_us = 10_000_000
    traces = [
        whole_put(
            number, name=f"step {number}", started_us=T0_US + number * step_us,
            ended_us=T0_US + number * step_us + (15_000_000 if number == 0 else 5_000_000),
            counts={
                "span_count": 3, "error_count": int(number in (2, 4)), "prompt_tokens": 100 * (number + 1),
                "completion_tokens": 0, "cost_rest_nano": 1_000_000 * (number + 1),
            },
            models={f"model-{number % 2}": [1, 100 * (number + 1), 0, 0, 0, 1_000_000 * (number + 1)]},
        )
        for number in range(60)
    ]  # fmt: skip
    who = SessionRef("demo", "long")
    await fill(stores, [SessionPut(who, traces), *puts(40, projects=["demo"])], now_ms=T0_MS, closed_share=0)
    async with asking(redis_server) as ask, Client(redis_server.url) as client:
        first = await ask("explain_session", session_id="long", limit=MOST_TRACES)
        assert first["next_offset"] == MOST_TRACES
        rest = await ask("explain_session", session_id="long", limit=MOST_TRACES, offset=MOST_TRACES)
        assert rest["next_offset"] is None
        shown = first["traces"] + rest["traces"]
        assert [one["name"] for one in shown] == [f"step {number}" for number in reversed(range(60))]
        assert sum(one["share_of_cost"] for one in shown) == pytest.approx(1, abs=0.01)
        assert sum(one["share_of_tokens"] for one in first["models"]) == pytest.approx(1, abs=0.001)
        assert [one["model"] for one in first["models"]] == ["model-1", "model-0"]
        assert [one["name"] for one in first["failed_traces"]] == ["step 4", "step 2"]
        assert first["busy_ms"] == 15_000 + 58 * 5_000  # of the second trace all lies within the first
        detail = await client.get("demo", "long")
        assert detail is not None
        assert first["session"] == detail.model_dump(mode="json", exclude={"traces", "models"})
        alike = [one async for one in client.all(Query(project="demo"))]
        against = first["against_project"]
        assert against["sessions"] == len(alike) == 41
        assert against["median"]["tokens"] == median_low(one.tokens.total for one in alike)
        assert against["times_median"]["traces"] == round(60 / median_low(one.trace_count for one in alike), 4)
        by_start = await ask("explain_session", session_id="long", traces_by="start", limit=2)
        assert [one["name"] for one in by_start["traces"]] == ["step 0", "step 1"]


async def test_sessions_are_compared_to_the_first(redis_server: RedisServer, stores: Stores) -> None:
    small = SessionPut(SessionRef("demo", "small"), [whole_put(1)])
    big = SessionPut(SessionRef("demo", "big"), [whole_put(number) for number in (2, 3, 4)])
    await fill(stores, [small, big], now_ms=T0_MS, closed_share=0)
    async with asking(redis_server) as ask:
        told = await ask("compare_sessions", sessions=[{"session_id": "small"}, {"session_id": "big"}])
    assert [one["session"]["session_id"] for one in told["sessions"]] == ["small", "big"]
    assert told["sessions"][1]["times_first"] | {"cost": None} == {
        "duration": 1.0,
        "traces": 3.0,
        "tokens": 3.0,
        "cost": None,
    }
    assert told["sessions"][1]["tokens_per_trace"] == 120


async def test_totals_of_all_projects_are_short_and_of_one_whole(redis_server: RedisServer, stores: Stores) -> None:
    await fill(stores, list(puts(60, projects=[f"p{number:02}" for number in range(15)])), now_ms=T0_MS)
    async with asking(redis_server) as ask, Client(redis_server.url) as client:
        told = await ask("project_totals")
        assert [one["project"] for one in told["projects"]] + told["more_projects"] == await client.projects()
        assert len(told["projects"]) == 10
        assert all(one["over_time"] == [] for one in told["projects"])
        (one,) = (await ask("project_totals", project="p03"))["projects"]
        wanted = (await client.totals("p03")).model_dump(mode="json")
        assert {**one, "as_of": ""} == {**wanted, "as_of": ""}
        assert one["over_time"]
        assert (await ask("project_totals", project="p99"))["projects"][0]["sessions"] == 0


async def test_what_means_harm_is_data(redis_server: RedisServer, stores: Stores) -> None:
    await put_hostile(stores)
    async with asking(redis_server) as ask:
        page = await ask("find_sessions", limit=MOST_SESSIONS)
        assert {one["session_id"] for one in page["sessions"]} == set(HOSTILE)
        text = await ask.text("find_sessions", limit=MOST_SESSIONS)
        rows = [re.findall(r'"(?:[^"\\]|\\.)*"', line) for line in text.splitlines() if line.startswith("- ")]
        assert {json.loads(row[0]) for row in rows} == set(HOSTILE)  # exact for whoever reads only text
        assert_harmless(text)
        for one in page["sessions"]:
            where = {"session_id": one["session_id"], "project": one["project"]}
            told = await ask("explain_session", **where)
            assert told["session"]["user_id"] == one["session_id"]
            assert_harmless(await ask.text("explain_session", **where))
            assert_harmless(await ask.text("compare_sessions", sessions=[where, where]))
        assert_harmless(await ask.text("project_totals"))
        for text in HOSTILE:
            for tool, arguments in (
                ("explain_session", {"session_id": f"{text[:400]}!"}),
                ("find_sessions", {"cursor": text}),
                ("find_sessions", {text: text, "sort": text}),
                ("compare_sessions", {"sessions": [{"session_id": text}]}),
                (text, {}),
            ):
                said = await ask.refusal(tool, **arguments)
                assert not STEERING.search(said)
                assert text not in said


def assert_harmless(text: str) -> None:
    """It begins with the word that it is data, and every line is one of ours."""
    assert text.startswith(DATA)
    assert not STEERING.search(text)
    starts = (
        "- ",
        "  ",
        "now: ",
        "session ",
        "more",
        "cost is ",
        "busy for ",
        "against ",
        "models ",
        "traces ",
        "failed ",
    )
    assert [line for line in text.splitlines()[1:] if not line.startswith(starts) and not line[0].isdigit()] == []


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("explain_session", {"session_id": "none"}, "Call find_sessions"),
        ("explain_session", {}, "session_id: field required"),
        ("find_sessions", {"cursor": "nonsense"}, "leave it out to begin with the first page"),
        ("find_sessions", {"limit": 1000}, "limit: input should be less than or equal to 50"),
        ("find_sessions", {"sort_by": "cost"}, "sort_by: extra inputs are not permitted"),
        ("find_sessions", {"since": "today"}, "since: "),
        ("compare_sessions", {"sessions": [{"session_id": "s-1"}]}, "at least 2"),
        ("delete_session", {}, "there are find_sessions, explain_session, compare_sessions, project_totals"),
        ("explain_session", {"session_id": "both"}, 'give `project` as well, one of: "demo", "other"'),
    ],
)
async def test_what_can_t_be_answered_says_what_to_do(
    redis_server: RedisServer, stores: Stores, tool: str, arguments: dict[str, Any], words: str
) -> None:
    both = [SessionPut(SessionRef(project, "both"), [whole_put(at)]) for at, project in enumerate(("demo", "other"))]
    await fill(stores, both, now_ms=T0_MS)
    async with asking(redis_server) as ask:
        assert words in await ask.refusal(tool, **arguments)


async def test_a_redis_that_is_away_is_told_and_is_there_again(redis_server: RedisServer, stores: Stores) -> None:
    await fill(stores, list(puts(5)), now_ms=T0_MS)
    server = make_server(Client(redis_server.url), TraceLinks(None), EVERYTHING)
    async with Sdk(server) as client:
        ask = Assistant(client)
        redis_server.stop()
        try:
            for tool, arguments in (("find_sessions", {}), ("explain_session", {"session_id": "s-1"})):
                assert "Redis is away" in await ask.refusal(tool, **arguments)
        finally:
            redis_server.start()
        assert await ask("find_sessions") is not None
