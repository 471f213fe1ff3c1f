"""What the traffic says it sent is what its exported spans amount to, and it holds what a demo should show."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from aggregator.core.model import SessionRef
from aggregator.embedded.ledger import Figures, differences
from aggregator.embedded.otlp_http import OtlpHttpReceiver
from aggregator.embedded.traffic import Traffic
from tests.e2e.waiting import until
from tests.oracle import ExpectedSession, Records, expected_sessions, flat_price, spans_by_trace


class Bodies(list[bytes]):
    """Stands for the broker."""

    async def __call__(self, body: bytes) -> None:
        self.append(body)


async def recorded(*, seed: int, seconds: float, sessions: int = 1) -> tuple[Traffic, Records]:
    """Traffic for so long, and until there are so many sessions.

    Through the real exporter and the real receiver, five times as fast as in the demo.
    """
    bodies = Bodies()
    async with OtlpHttpReceiver(bodies, port=0) as receiver, Traffic(receiver.endpoint, seed=seed, speed=5) as traffic:
        stop = asyncio.Event()

        async def enough() -> bool:
            return len(traffic.ledger.sessions) >= sessions

        running = asyncio.create_task(traffic.run(stop))
        await asyncio.sleep(seconds)
        await until(f"there are {sessions} sessions", enough)
        stop.set()
        await running
    return traffic, [(TracesData.FromString(body), round(time.time() * 1000)) for body in bodies]


def figures(session: ExpectedSession) -> Figures:
    fields = session.hash_fields
    names = ("trace_count", "span_count", "error_count", "prompt_tokens", "completion_tokens", "embedding_tokens")
    return Figures(*(int(fields[name]) for name in names))


@pytest.mark.parametrize("seed", [1, 2])
async def test_the_ledger_is_what_the_spans_amount_to(seed: int) -> None:
    traffic, records = await recorded(seed=seed, seconds=2.5)
    expected = expected_sessions(records, price=flat_price)
    seen = {SessionRef(*ref): figures(session) for ref, session in expected.items()}
    assert seen == traffic.ledger.sessions
    users = {SessionRef(*ref): session.hash_fields["user_id"] for ref, session in expected.items()}
    assert users == traffic.ledger.users


async def test_traffic_holds_what_the_demo_promises() -> None:
    traffic, records = await recorded(seed=3, seconds=4, sessions=8)
    expected = expected_sessions(records, price=flat_price)
    traces = [trace for session in expected.values() for trace in session.traces.values()]
    spans = [span for found in spans_by_trace(records).values() for span in found]
    sent_spans = sum(
        len(scope.spans)
        for message, _ in records
        for resource in message.resource_spans
        for scope in resource.scope_spans
    )
    assert len(expected) > 6
    assert {ref[0] for ref in expected} == {"shop", "helpdesk"}
    assert len({session.hash_fields["user_id"] for session in expected.values()}) > 3
    assert (
        len({model for session in expected.values() for model in session.models_hash}) > 12
    )  # three of its fields each
    assert {span.span_class for span in spans} == {"llm", "embedding", "agent", "tool", "chain", "other"}
    assert any(trace.error_count for trace in traces)
    assert sent_spans > len(spans), "some batches must be sent twice"
    written = sum(int(session.hash_fields["llm_span_prompt_tokens"]) for session in expected.values())
    assert written > traffic.ledger.total().prompt_tokens, "some usage must be repeated by frameworks"
    assert max(Counter(span.trace_id for span in spans).values()) > 5


async def test_turns_under_way_are_finished_when_traffic_stops() -> None:
    traffic, records = await recorded(seed=4, seconds=0.7)
    assert traffic.ledger.sessions
    missing_parents = [
        span
        for found in spans_by_trace(records).values()
        for span in found
        if span.parent_id and span.parent_id not in {other.span_id for other in found}
    ]
    assert missing_parents == []


def test_differences_name_the_session_and_the_figure() -> None:
    one, two = SessionRef("p", "one"), SessionRef("p", "two")
    sent = {one: Figures(traces=1, spans=4, prompt_tokens=7), two: Figures(traces=2)}
    assert differences(sent, sent | {SessionRef("p", "foreign"): Figures()}) == []
    assert differences(sent, {one: Figures(traces=1, spans=5, prompt_tokens=7)}) == [
        "p/one: spans 4 sent, 5 seen",
        "p/two: missing",
    ]
