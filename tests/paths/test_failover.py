"""Redis falls back to what it held some calls ago: its master died, and the replica has missed the last writes.

What is forgotten is always the newest, and the connection breaks; but when the work goes on with what was half done,
`agg:progress` may look as if nothing had happened.
"""

from __future__ import annotations

import copy
import dataclasses

import pytest

from aggregator.core.errors import StoreUnavailable
from tests.builders import BASE_MS, record, span
from tests.fakes import FakeProgress, FakeSchedule, FakeSessionStore, FakeTraceStore
from tests.paths.test_laws import fresh_world
from tests.paths.worlds import Life, World, assert_equals_oracle, finish, live
from tests.workloads import Record


def with_replica(world: World) -> World:
    """The first time that `lose` is called replication stops, the second time the replica takes over."""
    stores = world.stores
    traces, sessions, schedule, progress = stores.traces, stores.sessions, stores.schedule, stores.progress
    assert isinstance(traces, FakeTraceStore)
    assert isinstance(sessions, FakeSessionStore)
    assert isinstance(schedule, FakeSchedule)
    assert isinstance(progress, FakeProgress)
    kept: list[object] = []

    def contents() -> list[dict[object, object]]:
        held = (traces.states, sessions.sessions, sessions.tombstones, schedule.entries, progress.offsets)
        return [*held, progress.marks]  # type: ignore[list-item]

    async def lose() -> None:
        if not kept:
            kept.append(copy.deepcopy(contents()))
            return
        (snapshot,) = kept
        assert isinstance(snapshot, list)
        for content, before in zip(contents(), snapshot, strict=True):
            content.clear()
            content.update(copy.deepcopy(before))
        raise StoreUnavailable("the master is gone")

    world.stores = dataclasses.replace(stores, lose=lose)
    return world


RECORDS = [
    Record(record([span(1, {"session.id": "a"})]), 0, BASE_MS),
    Record(record([span(2, {"session.id": "b"}, trace=2)]), 0, BASE_MS + 10),
]


async def fallen_back(step: int, missed: int) -> World:
    """The replica has missed the calls from `step` on, and takes over so many calls later."""
    world = with_replica(fresh_world())
    world.write(RECORDS, 1)
    plan = {step: "lose", step + missed: "lose"}
    await live(world, Life(assigned=[[0]], plans=[plan], crash=False))
    await finish(world, 1)
    return world


@pytest.mark.parametrize("missed", range(1, 8))
async def test_what_a_replica_has_missed_is_brought_back(missed: int) -> None:
    for step in range(24):
        world = await fallen_back(step, missed)
        try:
            assert_equals_oracle(world, RECORDS, lost=True)
        except AssertionError as error:
            error.add_note(f"the replica has missed {missed} calls from call {step} on")
            raise
