"""`make audit` finds what the database knows, and says where it could not ask."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from aggregator.embedded.process import free_port

ROOT = Path(__file__).parents[1]
KNOWN = {
    "id": "PYSEC-2026-1",
    "modified": "2026-01-01T00:00:00Z",
    "published": "2026-01-01T00:00:00Z",
    "summary": "a hole",
    "affected": [
        {
            "package": {"name": "redis", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "999"}]}],
        }
    ],
}


@asynccontextmanager
async def database(broken: set[str]) -> AsyncIterator[tuple[str, set[str]]]:
    """One that knows of these packages, by OSV's interface; and the packages that it is asked for."""
    asked: set[str] = set()

    async def batch(request: web.Request) -> web.Response:
        names = [query["package"]["name"] for query in (await request.json())["queries"]]
        asked.update(names)
        known = {"vulns": [{"id": KNOWN["id"], "modified": KNOWN["modified"]}]}
        return web.json_response({"results": [known if name in broken else {} for name in names]})

    async def one(_: web.Request) -> web.Response:
        return web.json_response(KNOWN)

    application = web.Application()
    application.router.add_post("/v1/querybatch", batch)
    application.router.add_get("/v1/vulns/{id}", one)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port := free_port())
    await site.start()
    yield f"http://127.0.0.1:{port}/", asked
    await runner.cleanup()


async def audit(url: str, **environ: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *("make", "-C", str(ROOT), "--no-print-directory", "--assume-old=.venv/.installed", "audit"),
        f"ARGS=--service-url={url}",
        env=os.environ | environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_what_the_database_knows_fails_it() -> None:
    async with database({"redis"}) as (url, asked):
        code, said = await audit(url)
    assert code != 0
    assert "PYSEC-2026-1: a hole" in said
    assert {"aiokafka", "redis", "pydantic", "starlette", "pyarrow"} <= asked
    async with database(set()) as (url, _):
        assert (await audit(url))[0] == 0


async def test_a_database_that_is_away_is_no_success_in_silence() -> None:
    url = f"http://127.0.0.1:{free_port()}/"
    code, said = await audit(url, UV_HTTP_RETRIES="0")
    assert code == 0
    assert said.startswith("NOT AUDITED")
    assert len(said.splitlines()) == 1
    code, said = await audit(url, UV_HTTP_RETRIES="0", REQUIRE_AUDIT="1")
    assert code != 0
    assert "NOT AUDITED" not in said
