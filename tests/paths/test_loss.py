"""Redis loses all it holds between the two levels of a batch, and the log goes on meanwhile."""

from __future__ import annotations

import dataclasses

from aggregator.core.model import SessionRef
from tests.builders import BASE_MS, record, span
from tests.fakes import FakeSessionStore
from tests.paths.test_laws import fresh_world
from tests.paths.worlds import Life, assert_equals_oracle, finish, live
from tests.workloads import Record

WEAK = Record(record([span(1, {"gen_ai.conversation.id": "weak"})]), 0, BASE_MS)
STRONG = Record(record([span(2, {"session.id": "strong"})]), 0, BASE_MS + 10)


async def lost_at(step: int) -> set[SessionRef]:
    """Read the weak claim, lose everything at that call, and read both claims in one batch; who shows the trace?"""
    world = fresh_world()
    lose = world.stores.lose

    async def lose_while_the_log_goes_on() -> None:
        await lose()
        world.write([STRONG], 1)

    world.stores = dataclasses.replace(world.stores, lose=lose_while_the_log_goes_on)
    world.write([WEAK], 1)
    await live(world, Life(assigned=[[0]], plans=[{step: "lose"}], crash=False))
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
