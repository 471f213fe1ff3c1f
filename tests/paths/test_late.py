"""Spans of a trace whose state is gone: it had expired, or a store has lost it."""

from __future__ import annotations

import pytest

from aggregator.core.model import Partition, SessionRef
from tests.builders import BASE_MS, record, span
from tests.fakes import FakeSessionStore, FakeTraceStore
from tests.paths.test_laws import fresh_world
from tests.paths.worlds import (
    IDLE_MS,
    RETENTION_MS,
    TOPIC,
    Life,
    World,
    assert_equals_oracle,
    finish,
    last_summaries,
    live,
)
from tests.workloads import Record

S = SessionRef("default", "s")
SOUND = Life(assigned=[[0]], plans=[{}], crash=False)


def claimed(*numbers: int, after_ms: int = 0, trace: int = 1) -> Record:
    spans = [span(number, {"session.id": "s", "llm.token_count.prompt": 100}, trace=trace) for number in numbers]
    return Record(record(spans), 0, BASE_MS + after_ms)


def lose_trace_states(world: World) -> None:
    traces = world.stores.traces
    assert isinstance(traces, FakeTraceStore)
    traces.states.clear()


@pytest.mark.parametrize("batches", [[(3, 4, 5)], [(3,), (4,), (5,)]])
async def test_late_spans_never_replace_what_the_session_shows(batches: list[tuple[int, ...]]) -> None:
    """However many they are: they are fewer than the trace, or their state would not have been begun anew."""
    world = fresh_world()
    on_time = [claimed(1, 2)]
    world.write(on_time, 1)
    await live(world, SOUND)
    lose_trace_states(world)  # as their time to live does
    late_ms = RETENTION_MS + 2 * IDLE_MS
    # Another trace keeps the session.
    other = [claimed(9, after_ms=late_ms, trace=2)]
    world.write(other, 1)
    for numbers in batches:
        world.write([claimed(*numbers, after_ms=late_ms)], 1)
        await live(world, SOUND)
    await finish(world, 1)
    assert_equals_oracle(world, [*on_time, *other])


async def test_what_is_read_again_after_trace_states_were_lost_wins_in_the_end() -> None:
    """A node of a Cluster has lost them and its part of the progress; sessions are on others."""
    world = fresh_world()
    before = [claimed(1, 2), claimed(3, after_ms=10)]
    world.write(before, 1)
    await live(world, SOUND)
    world.clock.time_ms += RETENTION_MS
    lose_trace_states(world)
    del world.stores.progress.offsets[Partition(TOPIC, 0)]  # type: ignore[attr-defined]
    since = [claimed(4, 5, 6, 7, after_ms=RETENTION_MS)]
    world.write(since, 1)
    await finish(world, 1)
    assert last_summaries(world)[S]["span_count"] == 7
    assert_equals_oracle(world, [*before, *since], lost=True)


@pytest.mark.parametrize("fault", ["before", "after"])
async def test_a_crash_between_the_levels_costs_no_new_trace_of_a_session_that_has_folded_some(fault: str) -> None:
    async def crashed_at(step: int) -> bool:
        world = fresh_world(max_session_traces=5)
        old = [claimed(number, after_ms=number, trace=number) for number in range(1, 8)]
        world.write(old, 1)
        await live(world, SOUND)
        sessions = world.stores.sessions
        assert isinstance(sessions, FakeSessionStore)
        assert sessions.sessions[S].folded
        new = [claimed(number, after_ms=100 + number, trace=number) for number in (21, 22)]
        world.write(new, 1)
        ended = await live(world, Life(assigned=[[0]], plans=[{step: fault}], crash=True))
        # With this in its batch the redelivery does not find what it would write itself.
        world.write([claimed(31, after_ms=200, trace=21)], 1)
        await finish(world, 1)
        last = last_summaries(world)[S]
        assert (last["trace_count"], last["span_count"]) == (9, 10), f"crash {fault} call {step}"
        return not ended

    step = 0
    while await crashed_at(step):
        step += 1
    assert step > 8
