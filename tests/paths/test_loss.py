"""Redis loses all it holds between the two levels of a batch, and the log goes on meanwhile."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from itertools import count

import pytest

from aggregator.core.model import Partition, SessionRef
from aggregator.core.state import stamped_version
from tests.builders import BASE_MS, Value, record, span
from tests.fakes import FakeProgress, FakeSessionStore, FakeTraceStore
from tests.paths.test_laws import fresh_world
from tests.paths.worlds import TOPIC, Life, World, assert_equals_oracle, finish, live
from tests.workloads import Record

Lose = Callable[[], Awaitable[None]]

WEAK = Record(record([span(1, {"gen_ai.conversation.id": "weak"})]), 0, BASE_MS)
STRONG = Record(record([span(2, {"session.id": "strong"})]), 0, BASE_MS + 10)


def version(number: int, partition: int, *others: int) -> Record:
    """A record with that version of span 1, and these others."""
    usage: dict[str, Value] = {
        "openinference.span.kind": "LLM",
        "llm.token_count.prompt": number,
        "session.id": "s",
    }
    spans = [span(1, usage, end=float(number)), *(span(other, {}) for other in others)]
    return Record(record(spans), partition, BASE_MS)


async def lost_at(step: int, crash: dict[int, str] | None = None) -> set[SessionRef]:
    """Read the weak claim, lose everything at that call, and read both claims in one batch; who shows the trace?

    `crash` are calls later than `step` at which the worker crashes.
    """
    world = fresh_world()
    lose = world.stores.lose

    async def lose_while_the_log_goes_on() -> None:
        await lose()
        world.write([STRONG], 1)

    world.stores = dataclasses.replace(world.stores, lose=lose_while_the_log_goes_on)
    world.write([WEAK], 1)
    await live(world, Life(assigned=[[0]], plans=[{step: "lose"} | (crash or {})], crash=True))
    if len(world.log.partitions) == 1 and sum(map(len, world.log.partitions.values())) == 1:
        return set()  # the life was over before that call
    await finish(world, 1)
    assert_equals_oracle(world, [WEAK, STRONG], lost=True)
    sessions = world.stores.sessions
    assert isinstance(sessions, FakeSessionStore)
    return {
        ref
        for ref, session in sessions.sessions.items()
        if any(trace.counts.trace_count for trace in session.traces.values())
    }


async def test_a_session_that_was_put_after_the_loss_is_left_when_the_trace_moves() -> None:
    steps = 0
    while shown := await lost_at(steps):
        assert shown == {SessionRef("default", "strong")}, f"lost at call {steps}"
        steps += 1
    assert steps > 10


@pytest.mark.parametrize("fault", ["before", "after"])
async def test_so_it_is_when_the_worker_crashes_before_it_has_noticed_the_loss(fault: str) -> None:
    """The trace's state is gone with what it knew; a session that was put after the loss must be told nevertheless."""
    for gap in (1, 2):
        steps = 0
        while shown := await lost_at(steps, {steps + gap: fault}):
            assert shown == {SessionRef("default", "strong")}, f"lost at call {steps}, crash {fault} {steps + gap}"
            steps += 1
        assert steps > 10


async def test_spans_stored_by_another_worker_after_a_loss_are_not_overwritten() -> None:
    """A node of a Cluster loses a trace, and `agg:progress`, on another node, does not tell.

    One worker remembers two spans of it, another then stores two of its own: the versions are equal.
    """

    def claimed(*numbers: int, partition: int) -> Record:
        return Record(record([span(number, {"session.id": "s"}) for number in numbers]), partition, BASE_MS)

    async def spans_left(step: int) -> int:
        world = fresh_world()
        traces = world.stores.traces
        assert isinstance(traces, FakeTraceStore)

        async def lose_while_another_worker_stores() -> None:
            traces.states.clear()
            world.write([claimed(3, 4, partition=1)], 2)
            await live(world, Life(assigned=[[1]], plans=[{}], crash=False))
            world.write([claimed(5, partition=0)], 2)

        world.stores = dataclasses.replace(world.stores, lose=lose_while_another_worker_stores)
        world.write([claimed(1, 2, partition=0)], 2)
        await live(world, Life(assigned=[[0]], plans=[{step: "lose"}], crash=False))
        if world.log.committed[Partition(TOPIC, 0)] < 2:
            return 0  # the life was over before that call, or at it
        (stored,) = traces.states.values()
        return stamped_version(stored.stamp) >> 32

    steps = 0
    while found := await spans_left(steps):
        assert found == 5, f"lost at call {steps}"
        steps += 1
    assert steps > 10


async def test_a_version_that_was_put_after_the_loss_is_followed_by_a_higher_one() -> None:
    """A span comes in three versions; the third is read first after a loss, into which the second is still put."""
    early, late = [version(1, 0, 2, 3), version(2, 0)], version(3, 1)
    for step in count():
        world = fresh_world()
        lose = world.stores.lose

        async def lose_while_the_log_goes_on(world: World = world, lose: Lose = lose) -> None:
            await lose()
            world.write([late], 2)
            await live(world, Life(assigned=[[1]], plans=[{}], crash=False))

        world.stores = dataclasses.replace(world.stores, lose=lose_while_the_log_goes_on)
        world.max_batch_records = 1
        world.write(early, 1)
        await live(world, Life(assigned=[[0]], plans=[{step: "lose"}], crash=False))
        if len(world.log.partitions) == 1:  # the life was over before that call
            break
        await finish(world, 2)
        assert_equals_oracle(world, [*early, late], lost=True)
    assert step > 10


async def test_the_newest_version_of_a_span_is_shown_in_whatever_order_versions_are_read_after_a_loss() -> None:
    """A node of a Cluster loses the trace, and `agg:progress`; the session, on another, shows its second version.

    The third is read first then, and counts no replacement, while the second was one.
    """
    early, late = [version(1, 0), version(2, 0)], version(3, 1)
    world = fresh_world()
    world.max_batch_records = 1
    world.write(early, 1)
    await live(world, Life(assigned=[[0]], plans=[{}], crash=False))
    traces, progress = world.stores.traces, world.stores.progress
    assert isinstance(traces, FakeTraceStore)
    assert isinstance(progress, FakeProgress)
    traces.states.clear()
    progress.offsets.clear()
    world.write([late], 2)
    await live(world, Life(assigned=[[1]], plans=[{}], crash=False))
    await finish(world, 2)
    assert_equals_oracle(world, [*early, late], lost=True)
