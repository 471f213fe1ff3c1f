"""The HTTP API and what guards it, in one process with a real Redis."""

from __future__ import annotations

import asyncio
import html
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from pydantic import SecretStr

from aggregator.adapters.redis.connections import connect
from aggregator.client import Client, Query, Session, Sort
from aggregator.client.models import to_ms
from aggregator.client.trace_links import TraceLinks
from aggregator.core.errors import ConfigurationError
from aggregator.core.model import SessionRef
from aggregator.ports import SessionPut
from aggregator.settings import WebSettings
from aggregator.web.access import Access
from aggregator.web.app import make_app
from aggregator.web.guard import Rates
from aggregator.web.openapi import document
from tests.client.conftest import allow_reader
from tests.client.sessions import fill, puts, whole_put
from tests.contract.builders import T0_MS
from tests.contract.conftest import redis_stores
from tests.e2e.waiting import until
from tests.redis_servers import RedisServer, redis_servers_available
from tests.sessions.hostile import HOSTILE
from tests.web.shop import KEYS, add_trace

pytestmark = pytest.mark.parametrize("redis_server", sorted(redis_servers_available())[:1], indirect=True)

EVERYWHERE = "0.0.0.0"  # noqa: S104 - nothing is bound
ALL_TOKEN, DEMO_TOKEN = "a" * 20, "d" * 20


@asynccontextmanager
async def asking(redis_url: str, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody who asks the application as `localhost`."""
    settings.setdefault("requests_per_s", 10_000)
    app = make_app(Client(redis_url), WebSettings(**settings))
    transport = httpx.ASGITransport(app=app, client=("127.0.0.1", 1))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        yield client


@pytest.fixture
async def redis_url(redis_server: RedisServer) -> str:
    """Of a user who may only read, with four hundred sessions."""
    connections = connect(redis_server.url)
    await fill(redis_stores(connections, None, KEYS), list(puts(400)), now_ms=T0_MS)
    await connections.close()
    return allow_reader(redis_server)


def assert_problem(answer: httpx.Response, status: int, words: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert words in problem["detail"]
    assert str(status) in document()["paths"]["/api/v1/session"]["get"]["responses"]


async def test_the_verbs_answer_what_the_client_does(redis_url: str) -> None:
    async with asking(redis_url) as ask, Client(redis_url) as client:
        assert (await ask.get("/api/v1/projects")).json() == {"projects": await client.projects()}
        wanted = {"project": "demo", "sort": "cost", "limit": "30"}
        seen, cursor = list[Session](), None
        while True:
            answer = await ask.get("/api/v1/sessions", params=wanted | ({"cursor": cursor} if cursor else {}))
            page = answer.json()
            seen += [Session.model_validate(one) for one in page["sessions"]]
            if (cursor := page["next"]) is None:
                break
        assert seen == [one async for one in client.all(Query(project="demo", sort=Sort.COST))]
        first = await ask.get("/api/v1/session", params={"project": "demo", "id": seen[0].session_id})
        session = await client.get("demo", seen[0].session_id)
        assert session is not None
        assert first.json() == session.model_dump(mode="json")
        totals = await ask.get("/api/v1/totals", params={"project": "demo"})
        assert totals.json()["sessions"] == len(seen)


async def test_what_has_not_changed_is_not_sent_again(redis_url: str) -> None:
    async with asking(redis_url) as ask:
        first = await ask.get("/api/v1/sessions?project=demo&sort=cost&status=closed&limit=200")
        again = await ask.get(str(first.url), headers={"if-none-match": f'"x", W/{first.headers["etag"]}'})
        assert again.status_code == 200 or (again.status_code, again.content) == (304, b"")
        one = await ask.get("/api/v1/projects")
        same = await ask.get("/api/v1/projects", headers={"if-none-match": one.headers["etag"]})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", one.headers["etag"])


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/api/v1/sessions?sort=beauty", 400, "sort: "),
        ("/api/v1/sessions?limit=0", 400, "limit: "),
        ("/api/v1/sessions?limit=1&limit=2", 400, "twice"),
        ("/api/v1/sessions?colour=red", 400, "colour: "),
        ("/api/v1/sessions?since=soon", 400, "since: "),
        ("/api/v1/sessions?since=12345", 400, "RFC 3339"),
        ("/api/v1/sessions?cursor=nonsense", 404, "cursor: "),
        ("/api/v1/session?project=demo", 400, "id: "),
        ("/api/v1/session?project=demo&id=none", 404, "no such session"),
        ("/api/v1/nothing", 404, ""),
        ("/api/v1/changes?position=-1", 400, "position: "),
        ("/api/v1/sessions?search=" + "x" * 41_000, 414, "too long"),
    ],
)
async def test_what_is_wrong_is_told_as_a_problem(redis_url: str, path: str, status: int, words: str) -> None:
    async with asking(redis_url) as ask:
        assert_problem(await ask.get(path), status, words)


async def test_a_redis_that_is_away_is_a_503(redis_server: RedisServer, redis_url: str) -> None:
    async with asking(redis_url) as ask:
        redis_server.stop()
        try:
            assert_problem(await ask.get("/api/v1/sessions"), 503, "Redis is away")
            page = await ask.get("/")
            assert page.status_code == 503
            assert "works again when it is back" in page.text
            assert (await ask.get("/healthz")).status_code == 200
        finally:
            redis_server.start()


async def test_a_token_opens_its_projects_and_no_other(redis_url: str) -> None:
    tokens = SecretStr(f"{ALL_TOKEN}, {DEMO_TOKEN}=demo|x")
    async with asking(redis_url, host=EVERYWHERE, tokens=tokens) as ask:
        assert_problem(await ask.get("/api/v1/projects"), 401, "Bearer")
        for wrong in ("Bearer ", "Bearer wrong", f"Basic {ALL_TOKEN}", f"Bearer {ALL_TOKEN}x"):
            assert (await ask.get("/api/v1/projects", headers={"authorization": wrong})).status_code == 401
        everything = {"authorization": f"Bearer {ALL_TOKEN}"}
        assert len((await ask.get("/api/v1/projects", headers=everything)).json()["projects"]) == 3
        ask.headers["authorization"] = f"Bearer {DEMO_TOKEN}"
        assert (await ask.get("/api/v1/projects")).json() == {"projects": ["demo"]}
        for path in ("/api/v1/sessions?limit=200", "/api/v1/sessions?search=s-&limit=200", "/?limit=200"):
            assert "größe" not in (await ask.get(path)).text.encode().decode("unicode_escape", errors="replace")
        for path in ("/api/v1/sessions", "/api/v1/totals", "/api/v1/changes", "/api/v1/session"):
            assert_problem(
                await ask.get(
                    path, params={"project": "größe", "id": "x"} if path.endswith("session") else {"project": "größe"}
                ),
                403,
                "may not see",
            )
        del ask.headers["authorization"]
        cursor = (await ask.get("/api/v1/sessions?limit=5", headers=everything)).json()["next"]
        scoped = {"authorization": f"Bearer {DEMO_TOKEN}"}
        assert_problem(await ask.get(f"/api/v1/sessions?limit=5&cursor={cursor}", headers=scoped), 404, "another query")


async def test_people_sign_in_with_a_token(redis_url: str) -> None:
    async with asking(redis_url, host=EVERYWHERE, tokens=SecretStr(ALL_TOKEN)) as ask:
        assert (await ask.get("/")).headers["location"] == "/login"
        assert (await ask.post("/login", data={"token": "wrong"})).status_code == 401
        assert (await ask.post("/login", data={"token": "x" * 5000})).status_code == 413
        answer = await ask.post("/login", data={"token": ALL_TOKEN})
        assert answer.headers["location"] == "/"
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert (await ask.get("/")).status_code == 200
        await ask.post("/logout")
        assert (await ask.get("/")).status_code == 303


async def test_a_proxy_names_the_user(redis_url: str) -> None:
    async with asking(redis_url, host=EVERYWHERE, user_header="X-Forwarded-User") as ask:
        assert_problem(await ask.get("/"), 401, "token")
        assert (await ask.get("/", headers={"x-forwarded-user": "ada"})).status_code == 200


def test_strangers_are_kept_out_by_the_settings(redis_server: RedisServer) -> None:
    assert redis_server
    for host in (EVERYWHERE, "::", "10.0.0.1", "example.org"):
        with pytest.raises(ConfigurationError, match="AGGREGATOR_WEB__HOST"):
            Access(WebSettings(host=host))
    for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost"):
        assert Access(WebSettings(host=host)).open
    for tokens in ("short", f"{ALL_TOKEN},short=demo", f"{ALL_TOKEN}=", f"{ALL_TOKEN}=|"):
        with pytest.raises(ConfigurationError, match="AGGREGATOR_WEB__TOKENS") as raised:
            Access(WebSettings(tokens=SecretStr(tokens)))
        assert ALL_TOKEN not in str(raised.value)


async def test_a_name_of_elsewhere_that_leads_here_is_refused(redis_url: str) -> None:
    async with asking(redis_url) as ask:
        for host in ("evil.example", "localhost.evil.example", ""):
            assert_problem(await ask.get("/", headers={"host": host}), 403, "localhost")
        for host in ("localhost:8321", "127.0.0.1", "[::1]:8321"):
            assert (await ask.get("/", headers={"host": host})).status_code == 200


async def test_browsers_are_told_to_be_strict(redis_url: str) -> None:
    async with asking(redis_url) as ask:
        for path in ("/", "/session?project=demo&id=s-1", "/project?project=demo", "/nothing", "/api/v1/projects"):
            answer = await ask.get(path)
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "<script>" not in answer.text
            assert " style=" not in answer.text
            assert " onclick" not in answer.text


async def test_whatever_an_id_holds_is_shown_and_does_nothing(redis_server: RedisServer, redis_url: str) -> None:
    connections = connect(redis_server.url)
    stores = redis_stores(connections, None, KEYS)
    texts = [*HOSTILE, '"><img src=x onerror=alert(1)>', "javascript:alert(1)", "{{7*7}}", "'; DROP TABLE x; --"]
    for number, text in enumerate(texts):
        trace = whole_put(number, name=text, users=[(1, "ab" * 8, text)], models={text: [1, 1, 1, 0, 0, 1]})
        who = SessionRef(text[:500], text)
        await stores.sessions.put([SessionPut(who, [trace])])
        await stores.index.write([who], now_ms=T0_MS)
    async with asking(redis_url, trace_url="https://t.example/{trace_id}?s={session_id}#{user_id}") as ask:
        for text in texts:
            where = {"project": text[:500], "id": text}
            for answer in (
                await ask.get("/session", params=where),
                await ask.get("/", params={"project": text[:500]}),
                await ask.get("/", params={"search": text[:512], "user": text[:512]}),
                await ask.get("/project/totals", params={"project": text[:500]}),
            ):
                assert answer.status_code == 200, text
                seen = re.sub(r'value="[^"]*"', "", answer.text)  # a form must send back what is really meant
                for harm in ("<img", "<script>alert", "\x1b", "\u202e", 'href="javascript', "49<"):
                    assert harm not in seen, text
            shown = await ask.get("/api/v1/session", params=where)
            assert shown.json()["session_id"] == text
            assert shown.text.isascii()
    await connections.close()


@pytest.mark.parametrize(
    "template",
    [
        "jaeger/{trace_id}",
        "javascript:alert({trace_id})",
        "https://{project}.example/",
        "//x/{trace_id}",
        "https://x/{id}",
    ],
)
def test_a_template_that_could_lead_elsewhere_is_refused(redis_server: RedisServer, template: str) -> None:
    assert redis_server
    with pytest.raises(ConfigurationError, match="AGGREGATOR_WEB__TRACE_URL"):
        TraceLinks(template)


def template_of(backend: str) -> str:
    """What README gives for it."""
    found = re.search(rf"^\| {backend} \| `(\S+)` \|$", Path("README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert found, backend
    return found[1]


@pytest.mark.parametrize("backend", ["Jaeger", "Phoenix", "Langfuse", "Arize AX", "Tempo, in Grafana"])
async def test_readme_s_templates_lead_to_the_trace(redis_url: str, backend: str) -> None:
    async with Client(redis_url) as client, asking(redis_url, trace_url=template_of(backend)) as ask:
        page = await client.list(Query(project="demo", sort=Sort.DURATION), limit=1)
        session = await client.get("demo", page.sessions[0].session_id)
        assert session is not None
        trace = session.traces[0]
        assert trace.started_at is not None
        shown = (await ask.get("/session", params={"project": "demo", "id": session.session_id})).text
    links = [html.unescape(link) for link in re.findall(r'href="(https://[^"]*)"', shown)]
    assert len(links) == len(session.traces)
    assert trace.trace_id in links[0]
    assert "{" not in links[0]
    if backend == "Tempo, in Grafana":
        panes = json.loads(parse_qs(urlsplit(links[0]).query)["panes"][0])
        assert panes["t"]["queries"][0]["query"] == trace.trace_id
        assert panes["t"]["range"]["from"] == str(to_ms(trace.started_at))


async def test_changes_are_sent_as_they_come(redis_server: RedisServer, redis_url: str) -> None:
    connections = connect(redis_server.url)
    stores = redis_stores(connections, None, KEYS)
    client = Client(redis_url)
    app = make_app(client, WebSettings(requests_per_s=10_000))
    sent: list[bytes] = []
    gone = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))

    scope = {
        "type": "http", "method": "GET", "path": "/api/v1/changes", "headers": [(b"host", b"localhost")],
        "query_string": b"project=demo", "client": ("127.0.0.1", 1), "server": ("localhost", 80), "scheme": "http",
        "http_version": "1.1", "root_path": "", "raw_path": b"/api/v1/changes",
    }  # fmt: skip
    serving = asyncio.create_task(app(scope, receive, send))

    async def came(what: bytes) -> bool:
        return what in b"".join(sent)

    await until("the stream has begun", lambda: came(b"event: changes"))
    await add_trace(stores, SessionRef("demo", "new"), 77)
    await until("the change has come", lambda: came(b'"session_id":"new"'))
    event = next(part for part in b"".join(sent).split(b"\n\n") if b'"new"' in part).decode()
    fields = dict(line.partition(": ")[::2] for line in event.splitlines())
    assert fields["event"] == "changes"
    assert json.loads(fields["data"])["position"] == int(fields["id"])
    gone.set()
    await serving
    sent.clear()
    gone.clear()
    scope["headers"] = [(b"host", b"localhost"), (b"last-event-id", str(int(fields["id"]) - 1).encode())]
    serving = asyncio.create_task(app(scope, receive, send))
    await until("what came since is sent again", lambda: came(b'"session_id":"new"'))
    gone.set()
    await serving
    await client.close()
    await connections.close()


def test_each_client_has_its_share_of_requests(redis_server: RedisServer) -> None:
    assert redis_server
    now_s = [0.0]
    rates = Rates(2.0, lambda: now_s[0])
    assert [rates.take("a") for _ in range(9)].count(0.0) == 8
    assert rates.take("a") == 0.5
    assert rates.take("b") == 0.0
    now_s[0] = 0.5
    assert rates.take("a") == 0.0
    assert rates.take("a") > 0


async def test_too_many_requests_are_a_429(redis_url: str) -> None:
    async with asking(redis_url, requests_per_s=0.05) as ask:
        answers = [await ask.get("/api/v1/projects") for _ in range(3)]
        assert_problem(answers[2], 429, "Retry-After")
        assert int(answers[2].headers["retry-after"]) >= 1
