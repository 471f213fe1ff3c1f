"""The demo reads sessions and summaries as they are documented, and shows them on a terminal and elsewhere."""

from __future__ import annotations

import asyncio
import io
import json
from decimal import Decimal

import pytest
from aiokafka import AIOKafkaProducer
from redis.asyncio import Redis
from rich.console import Console

from aggregator.core.model import SessionRef
from aggregator.embedded.broker import EmbeddedBroker
from aggregator.embedded.ledger import Figures
from aggregator.embedded.screen import LineScreen, TableScreen, summary_line
from aggregator.embedded.valkey import EmbeddedValkey
from aggregator.embedded.watch import Shown, Summaries, read_sessions
from tests.builders import Value, record, span
from tests.oracle import ExpectedSession, expected_sessions, flat_price

LOG_MS = 1_790_000_000_000

SHOWN = Shown(
    ref=SessionRef("shop", "s-1"),
    status="open",
    opened_at="2026-11-23T10:00:00.000000Z",
    revision=2,
    duration_ms=61_234.5,
    cost_usd=Decimal("0.012300000"),
    user_id="ada",
    figures=Figures(traces=1, spans=24, errors=1, prompt_tokens=1200, completion_tokens=300),
)


def session() -> ExpectedSession:
    """One session of one LLM call, as the documents say it must come out."""
    attributes: dict[str, Value] = {
        "session.id": "50 %",
        "user.id": "ada",
        "openinference.span.kind": "LLM",
        "llm.model_name": "m",
        "llm.token_count.prompt": 70,
        "llm.token_count.completion": 30,
    }
    message = record([span(1, attributes)], resource={"openinference.project.name": "shop"})
    (found,) = expected_sessions([(message, LOG_MS)], price=flat_price).values()
    return found


async def test_sessions_are_read_from_redis_without_their_other_keys() -> None:
    expected = session()
    async with EmbeddedValkey() as valkey, Redis.from_url(valkey.url, decode_responses=True) as client:
        key = f"agg:session:{{{expected.key}}}"
        own = {"status": "open", "revision": "0", "opened_at": "2026-11-23T10:00:00.000000Z"}
        for field, value in {**expected.hash_fields, **own}.items():
            await client.hset(key, field, value)
        await client.hset(key, "_private", b"\xff")
        await client.hset(f"{key}:traces", mapping={"00": "{}"})
        await client.hset(f"{key}:models", mapping={"m:calls": 1})
        await client.set("agg:watermarks", "no session")
        sessions = await read_sessions(client)
    shown = sessions[SessionRef("shop", "50 %")]
    assert len(sessions) == 1
    assert shown.figures == Figures(traces=1, spans=1, prompt_tokens=70, completion_tokens=30)
    assert (shown.status, shown.user_id, shown.cost_usd) == ("open", "ada", Decimal(expected.hash_fields["cost_usd"]))


async def test_of_several_summaries_the_greatest_revision_stays() -> None:
    summary = session().summary
    documents = [
        {**summary, "opened_at": "2026-11-23T10:00:00.000000Z", "revision": revision, "span_count": revision}
        for revision in (2, 1)
    ]
    async with EmbeddedBroker(topics={"summaries": 1}) as broker:
        producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers)
        await producer.start()
        for document in documents:
            await producer.send_and_wait("summaries", json.dumps(document).encode())
        await producer.stop()
        async with Summaries(broker.bootstrap_servers, "summaries") as summaries:
            seen: list[Shown] = []
            while len(seen) < 2:
                seen += await summaries.poll()
                await asyncio.sleep(0.02)
            assert await summaries.poll() == []
    assert [shown.revision for shown in seen] == [2, 1]
    latest = summaries.latest[SessionRef("shop", "50 %")]
    assert (latest.revision, latest.figures.spans, latest.user_id) == (2, 2, "ada")


def test_a_summary_is_one_line() -> None:
    assert summary_line(SHOWN) == (
        "closed  shop/s-1 (revision 2): 61.2 s, 1 trace, 24 spans, 1,500 tokens, $0.0123, 1 error, user ada"
    )
    bare = SHOWN._replace(revision=1, duration_ms=None, user_id="")
    assert summary_line(bare) == "closed  shop/s-1: ?, 1 trace, 24 spans, 1,500 tokens, $0.0123, 1 error"


def test_without_a_terminal_open_sessions_are_summed_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    now_s = [100.0]
    other = SHOWN._replace(ref=SessionRef("shop", "s-2"))
    with LineScreen(monotonic_s=lambda: now_s[0]) as screen:
        for now_s[0] in (100.5, 104.9, 105.0, 105.5):
            screen.sessions([SHOWN, other])
        screen.summary(SHOWN)
    open_line, closed_line = capsys.readouterr().out.splitlines()
    assert open_line == "open    2 sessions: 2 traces, 48 spans, 3,000 tokens, $0.0246, 2 errors"
    assert closed_line == summary_line(SHOWN)


def test_on_a_terminal_there_is_a_table_of_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")  # rich obeys it, whatever the console is told
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120, height=14, color_system=None)
    many = [SHOWN._replace(ref=SessionRef("shop", f"[s]-{n}"), opened_at=f"2026-11-23T10:00:0{n}Z") for n in range(9)]
    with TableScreen(console) as screen:
        screen.sessions(many)
        table = out.getvalue()
        screen.summary(SHOWN)
        screen.say("[bold]as it is[/bold]")
    assert "open sessions: 9 (3 not shown)" in table
    rows = [line for line in table.splitlines() if "│ shop" in line]
    assert [row.split("│")[2].strip() for row in rows] == [f"[s]-{n}" for n in range(3, 9)]
    cells = [cell.strip() for cell in rows[0].split("│")[1:-1]]
    assert cells == ["shop", "[s]-3", "ada", "open", "61.2 s", "1", "1,500", "$0.0123", "1"]
    assert summary_line(SHOWN) in out.getvalue()
    assert "[bold]as it is[/bold]" in out.getvalue()
