"""`session-aggregator mcp` as a process: who may ask it over HTTP, and how it starts and ends."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from mcp import Client, StdioServerParameters

from aggregator.adapters.redis.connections import connect
from aggregator.assistants.serve import host_and_port
from aggregator.core.errors import ConfigurationError
from aggregator.settings import variables
from tests.assistants.asking import Assistant, mcp_over_http, over_http
from tests.client.sessions import fill, puts
from tests.contract.builders import T0_MS
from tests.contract.conftest import redis_stores
from tests.redis_servers import RedisServer, redis_servers_available
from tests.test_cli import command
from tests.web.shop import KEYS

on_redis = pytest.mark.parametrize("redis_server", sorted(redis_servers_available())[:1], indirect=True)

ALL_TOKEN, DEMO_TOKEN = "a" * 20, "d" * 20
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
ACCEPT = {"accept": "application/json, text/event-stream"}


@on_redis
async def test_a_token_opens_its_projects_and_no_other(redis_server: RedisServer) -> None:
    connections = connect(redis_server.url)
    await fill(redis_stores(connections, None, KEYS), list(puts(60)), now_ms=T0_MS)
    await connections.close()
    tokens = f"{ALL_TOKEN}, {DEMO_TOKEN}=demo|x"
    with mcp_over_http(redis_server.url, "0.0.0.0:0", WEB__TOKENS=tokens) as address:
        address = address.replace("0.0.0.0", "127.0.0.1")  # noqa: S104 - the one that asks
        async with over_http(address, ALL_TOKEN) as ask:
            everything = (await ask("find_sessions", limit=50))["sessions"]
            other = next(one for one in everything if one["project"] != "demo")
            own = next(one for one in everything if one["project"] == "demo")
        async with over_http(address, DEMO_TOKEN, era="legacy") as ask:
            seen = (await ask("find_sessions", limit=50))["sessions"]
            assert {one["project"] for one in seen} == {"demo"}
            assert [one["project"] for one in (await ask("project_totals"))["projects"]] == ["demo"]
            assert (await ask("explain_session", session_id=own["session_id"]))["session"]["project"] == "demo"
            there = {"session_id": other["session_id"], "project": other["project"]}
            mine = {"session_id": own["session_id"], "project": "demo"}
            for tool, arguments in (
                ("explain_session", there),
                ("compare_sessions", {"sessions": [mine, there]}),
                ("find_sessions", {"project": other["project"]}),
                ("project_totals", {"project": other["project"]}),
            ):
                assert "may not see the project" in await ask.refusal(tool, **arguments)
            assert "no such session" in await ask.refusal("explain_session", session_id=other["session_id"])
        async with httpx.AsyncClient() as http:
            for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {ALL_TOKEN}"}):
                answer = await http.post(address, json=LIST, headers=ACCEPT | headers)
                assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            healthy = await http.get(address.replace("/mcp", "/healthz"))
            assert healthy.status_code == 200


@on_redis
async def test_without_tokens_no_page_of_elsewhere_gets_an_answer(redis_server: RedisServer) -> None:
    with mcp_over_http(redis_server.url) as address:
        async with httpx.AsyncClient(headers=ACCEPT) as http:
            assert (await http.post(address, json=LIST)).json()["result"]["tools"]
            for headers in ({"host": "evil.example"}, {"origin": "https://evil.example"}):
                assert (await http.post(address, json=LIST, headers=headers)).status_code == 403
            as_a_form = await http.post(address, content=b"{}", headers={"content-type": "text/plain"})
            assert as_a_form.status_code == 400
            assert (await http.post(address, json=LIST | {"params": {"x": "x" * 300_000}})).status_code == 413


@on_redis
async def test_the_configuration_of_the_guide_works_with_the_handshake_of_most_assistants(
    redis_server: RedisServer,
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "assistants.md").read_text(encoding="utf-8")
    by_pipe, by_http = [
        json.loads(block) for block in re.findall(r"^```json\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    ]
    assert by_http["mcpServers"]["sessions"].keys() == {"type", "url", "headers"}
    shown = by_pipe["mcpServers"]["sessions"]
    assert set(shown["env"]) <= variables().keys()
    environ = shown["env"] | {"AGGREGATOR_REDIS__URL": redis_server.url}
    environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    process = StdioServerParameters(command=shown["command"], args=shown["args"], env=environ)
    async with Client(process, mode="legacy") as client:
        ask = Assistant(client)
        assert (await ask("project_totals"))["projects"] == []
        assert ask.client.server_info is not None
        assert ask.client.server_info.name == "session-aggregator"
        assert "find_sessions" in (ask.client.instructions or "")


async def test_it_ends_with_its_input_and_writes_nothing_of_its_own() -> None:
    code, out, err = await command("mcp", AGGREGATOR_REDIS__URL="redis://127.0.0.1:1/0")
    assert (code, out, err) == (0, "", "")


async def test_from_elsewhere_only_with_tokens_and_a_wrong_address_is_told() -> None:
    code, out, err = await command("mcp", "--http", "0.0.0.0:0")
    assert (code, out) == (2, "")
    assert "--http: 0.0.0.0 can be reached from elsewhere; set AGGREGATOR_WEB__TOKENS" in err
    assert host_and_port("[::1]:8322") == ("::1", 8322)
    for wrong in ("8322", ":8322", "localhost:", "localhost:x", "localhost:65536", "localhost"):
        with pytest.raises(ConfigurationError, match="HOST:PORT"):
            host_and_port(wrong)


async def test_without_the_extra_it_says_which_and_no_other_command_needs_it() -> None:
    for arguments, code, words in (
        (["mcp"], 1, "Assistants need mcp: pip install 'session-aggregator[mcp]'"),
        (["sessions", "--help"], 0, ""),
        (["web", "--help"], 0, ""),
    ):
        program = f"import sys; sys.modules['mcp'] = None; from aggregator.cli import app; app({arguments!r})"
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr.strip()) == (code, words)
