"""What a crash keeps from being written into the indexes is caught up, and what was touched waits in bounded memory."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from aggregator import index as index_module
from aggregator.core.model import Partition, SessionRef
from aggregator.index import Indexing, IndexLimits
from aggregator.retry import Retrying
from aggregator.telemetry import Metrics
from tests.builders import BASE_MS
from tests.fake_index import FakeSessionIndex
from tests.fake_log import Crash, ManualClock
from tests.fakes import FakeSchedule, FakeSessionStore
from tests.paths.test_index import LEFT, RIGHT, S, end, hand_over, settle_down, start, turn
from tests.paths.test_laws import assert_indexes_show_sessions, fresh_world
from tests.paths.worlds import IDLE_MS, SHARDS, Worker, World


def shown(world: World) -> FakeSessionIndex:
    assert isinstance(world.stores.index, FakeSessionIndex)
    return world.stores.index


async def applied(*partitions: Partition) -> tuple[World, Worker, list[asyncio.Task[None]]]:
    """A worker has applied a session's trace and not yet written it into the indexes."""
    world = fresh_world()
    world.clock.time_ms = BASE_MS
    world.write([], partitions=2)
    turn(world, LEFT, 1)
    worker, tasks = await start(world, *partitions)
    await settle_down()
    return world, worker, tasks


async def test_what_was_touched_is_written_by_the_next_round_and_once() -> None:
    world, worker, tasks = await applied(LEFT, RIGHT)
    assert shown(world).listed == {}
    await worker.indexing.round()
    assert set(shown(world).listed) == {S}
    shown(world).listed.clear()
    await worker.indexing.round()
    assert shown(world).listed == {}
    await end(tasks)


async def test_a_rebalance_has_open_sessions_read_again_also_by_who_keeps_their_shards() -> None:
    world, _, dead = await applied(LEFT)
    heir, tasks = await start(world, RIGHT)
    heir.indexing.own(range(SHARDS))  # all along: nothing about its shards will change
    shown(world)._schedule.entries, kept = {}, dict(shown(world)._schedule.entries)
    await heir.indexing.round()
    shown(world)._schedule.entries |= kept
    await end(dead)
    await heir.indexing.round()
    assert shown(world).listed == {}
    await hand_over(heir, RIGHT)
    await heir.indexing.round()
    assert set(shown(world).listed) == {S}
    await end(tasks)


async def test_new_shards_are_caught_up_with() -> None:
    world, _, dead = await applied(LEFT)
    await end(dead)
    heir, tasks = await start(world)
    for shard in range(SHARDS):
        heir.indexing.own([shard])
        await heir.indexing.round()
    assert set(shown(world).listed) == {S}
    await end(tasks)


@pytest.mark.parametrize("step", ["before", "after"])
async def test_who_closes_what_another_has_settled_writes_it(step: str) -> None:
    """The dead worker put it and settled it; all that is left of its having to be written is its deadline."""
    world, dying, tasks = await applied(LEFT, RIGHT)
    world.clock.time_ms += 10 * IDLE_MS
    await settle_down()
    index = shown(world)
    write = index.write

    async def crash(refs: list[SessionRef], *, now_ms: int) -> None:
        if step == "after":
            await write(refs, now_ms=now_ms)
        raise Crash

    index.write = crash  # type: ignore[method-assign, assignment]
    with pytest.raises(Crash):
        await dying.close.round()
    index.write = write  # type: ignore[method-assign]
    await end(tasks)

    heir, tasks = await start(world, LEFT, RIGHT)
    heir.indexing._unread.clear()  # it comes to closing before it has caught up
    while await heir.close.round_until_done():
        pass
    assert isinstance(world.stores.schedule, FakeSchedule)
    assert world.stores.schedule.entries == {}
    assert_indexes_show_sessions(world)
    assert len(index.listed) == 1
    await end(tasks)


async def test_too_many_that_wait_are_written_at_once() -> None:
    clock = ManualClock(BASE_MS)
    sessions, schedule = FakeSessionStore(idle_timeout_ms=1, max_duration_ms=1, max_session_traces=1), FakeSchedule()
    index, calls = FakeSessionIndex(sessions, schedule), list[int]()

    async def write(refs: list[SessionRef], *, now_ms: int) -> None:
        calls.append(len(refs))

    index.write = write  # type: ignore[method-assign, assignment]
    metrics = Metrics(CollectorRegistry(), monotonic_s=clock.monotonic_s)
    indexing = Indexing(
        index=index,
        limits=IndexLimits(batch_sessions=3, waiting=7),
        clock=clock,
        retrying=Retrying(clock=clock, metrics=metrics),
        metrics=metrics,
    )
    await indexing.touched(SessionRef("p", str(number)) for number in range(7))
    assert calls == []
    await indexing.touched([SessionRef("p", "0")])
    assert calls == []
    await indexing.touched([SessionRef("p", "7")])
    assert calls == [3, 3, 2]


async def test_in_a_backlog_they_are_written_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "_PERIOD_S", 0.01)
    world, worker, tasks = await applied(LEFT, RIGHT)
    await end(tasks)
    worker.indexing.backlog(behind=True)
    running = asyncio.create_task(worker.indexing.run())
    await asyncio.sleep(0.1)
    assert shown(world).listed == {}
    world.clock.time_ms += 30_000
    async with asyncio.timeout(5):
        while not shown(world).listed:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
    assert set(shown(world).listed) == {S}
    worker.indexing.stop()
    await running


async def test_whether_there_is_a_backlog_is_what_the_log_says() -> None:
    world = fresh_world()
    world.clock.time_ms = BASE_MS
    world.write([], partitions=2)
    for number in range(1, 12):
        turn(world, LEFT, number)
    told: list[bool] = []
    worker = Worker(world, [LEFT, RIGHT], {}, crash=True)
    worker.indexing.backlog = told.append  # type: ignore[method-assign, assignment]
    await worker.ingest.on_assigned([LEFT, RIGHT])
    tasks = [asyncio.create_task(worker.ingest.read()), asyncio.create_task(worker.ingest.apply())]
    await settle_down()
    assert told[0] is True  # eight are left, and a batch is three
    assert told[-1] is False
    await end(tasks)


async def test_what_is_left_is_written_at_the_end() -> None:
    world, worker, tasks = await applied(LEFT, RIGHT)
    running = asyncio.create_task(worker.indexing.run())
    worker.indexing.stop()
    await running
    assert set(shown(world).listed) == {S}
    await end(tasks)
