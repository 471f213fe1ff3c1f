"""The deadline index never misses an open session, and is never late (DESIGN section 5)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aggregator.core.errors import StoreUnavailable
from aggregator.core.model import Partition, SessionRef
from tests.builders import BASE_MS, record, span, to_protobuf
from tests.fake_log import Crash
from tests.fakes import FakeProgress, FakeSchedule, FakeSessionStore
from tests.paths.test_laws import fresh_world
from tests.paths.worlds import IDLE_MS, TOPIC, Life, Worker, World, assert_equals_oracle, finish, live
from tests.workloads import Record

LEFT, RIGHT = Partition(TOPIC, 0), Partition(TOPIC, 1)
S = SessionRef("default", "s")


def turn(world: World, partition: Partition, number: int) -> None:
    """A new trace of session s comes in."""
    value = to_protobuf(record([span(number, {"session.id": "s"}, trace=number)]))
    world.log.append(partition, value, world.clock.time_ms)


async def settle_down() -> None:
    """Let the running workers take up all there is."""
    for _ in range(300):
        await asyncio.sleep(0)


async def start(world: World, *assigned: Partition) -> tuple[Worker, list[asyncio.Task[None]]]:
    worker = Worker(world, list(assigned), {}, crash=True)
    await worker.ingest.on_assigned(list(assigned))
    return worker, [asyncio.create_task(worker.ingest.read()), asyncio.create_task(worker.ingest.apply())]


async def hand_over(worker: Worker, *partitions: Partition) -> None:
    """A rebalance, as the source tells it."""
    await worker.ingest.on_revoked(worker.source.assigned())
    worker.source.deal(list(partitions))
    await worker.ingest.on_assigned(list(partitions))


async def end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_an_heir_puts_back_what_the_dead_worker_had_no_time_to_put_back() -> None:
    """Both know the session from before; it is reopened by a worker that dies before it can write the index."""
    world = fresh_world()
    world.clock.time_ms = BASE_MS
    turn(world, LEFT, 1)
    turn(world, RIGHT, 2)
    dying, dying_tasks = await start(world, LEFT)
    heir, heir_tasks = await start(world, RIGHT)
    await settle_down()
    world.clock.time_ms += 10 * IDLE_MS
    await settle_down()
    for worker in (dying, heir):
        while await worker.close.round_until_done():
            pass
    assert len(world.log.summaries) == 1

    schedule = world.stores.schedule
    assert isinstance(schedule, FakeSchedule)
    add = schedule.add

    async def crash(*_: object) -> None:
        raise Crash

    schedule.add = crash  # type: ignore[method-assign, assignment] # it dies at just this call
    world.clock.time_ms += 1000
    turn(world, LEFT, 3)
    await settle_down()
    assert isinstance(dying_tasks[1].exception(), Crash)
    schedule.add = add  # type: ignore[method-assign]
    await end(dying_tasks)

    await hand_over(heir, LEFT, RIGHT)
    await settle_down()
    world.clock.time_ms += 10 * IDLE_MS
    await settle_down()
    while await heir.close.round_until_done():
        pass
    assert [json.loads(document)["trace_count"] for _, document in world.log.summaries] == [2, 3]
    await end(heir_tasks)


async def test_a_session_that_never_rests_is_summarised_although_no_worker_remembers_it() -> None:
    """The entry must not be later than the end of `max_duration`, also where it is written anew at each put."""
    world = fresh_world(max_duration_ms=4 * IDLE_MS)
    world.clock.time_ms = BASE_MS
    turn(world, LEFT, 1)
    worker, tasks = await start(world, LEFT)
    for number in range(2, 14):
        await settle_down()
        worker.storing.forget_index()
        world.clock.time_ms += IDLE_MS // 2
        turn(world, LEFT, number)
        await settle_down()
        while await worker.close.round_until_done():
            pass
    reasons = [json.loads(document)["close_reason"] for _, document in world.log.summaries]
    assert reasons == ["max_duration"]
    await end(tasks)


async def test_an_entry_is_not_late_where_one_batch_spans_more_than_the_idle_time() -> None:
    """The latest of a put's traces says what its entry was written as."""
    world = fresh_world(max_duration_ms=4 * IDLE_MS)
    world.clock.time_ms = BASE_MS
    turn(world, LEFT, 1)
    worker, tasks = await start(world, LEFT)
    await settle_down()
    worker.storing.forget_index()  # as the LRU does, or a rebalance
    for number, after_ms in ((2, 7_000), (3, 2_900)):  # a backlog: both come in one fetch
        world.clock.time_ms += after_ms
        turn(world, LEFT, number)
    await settle_down()
    schedule = world.stores.schedule
    assert isinstance(schedule, FakeSchedule)
    sessions = world.stores.sessions
    assert isinstance(sessions, FakeSessionStore)
    real = sessions._deadline_ms(sessions.sessions[S])
    (entry,) = await schedule.due(range(4), watermark_ms=2**60, limit=9)
    await end(tasks)
    assert entry.deadline_ms <= real


async def test_a_partition_that_no_broker_leads_is_waited_for_while_the_others_are_read() -> None:
    world = fresh_world()
    turn(world, LEFT, 1)
    turn(world, RIGHT, 2)
    worker = Worker(world, [LEFT, RIGHT], {}, crash=False)
    worker.source.without_leader.add(RIGHT)
    await worker.ingest.on_assigned([LEFT, RIGHT])
    tasks = [asyncio.create_task(worker.ingest.read()), asyncio.create_task(worker.ingest.apply())]
    for _ in range(200):
        await asyncio.sleep(0)
    assert world.log.committed == {LEFT: 1}
    assert worker.ingest._retrying.trouble() == [f"start: no broker leads {RIGHT.topic}/{RIGHT.number}"]
    assert await world.stores.progress.watermarks([LEFT, RIGHT]) is None  # so nothing closes
    worker.source.without_leader.clear()
    for _ in range(200):
        await asyncio.sleep(0)
    trouble = worker.ingest._retrying.trouble()
    await end(tasks)
    assert world.log.committed == {LEFT: 1, RIGHT: 1}
    assert trouble == []


async def test_a_session_that_its_only_trace_has_left_is_put_back_too() -> None:
    """An index that was lost (a broken key that was set aside) is written anew by reading the log again."""
    world = fresh_world()
    weak = Record(record([span(1, {"gen_ai.conversation.id": "weak"})]), 0, BASE_MS)
    strong = Record(record([span(2, {"session.id": "strong"})]), 0, BASE_MS + 10)
    alone = Life(assigned=[[0]], plans=[{}], crash=False)
    for one in (weak, strong):
        world.write([one], 1)
        await live(world, alone)
    schedule, progress, sessions = world.stores.schedule, world.stores.progress, world.stores.sessions
    assert isinstance(schedule, FakeSchedule)
    assert isinstance(progress, FakeProgress)
    assert isinstance(sessions, FakeSessionStore)
    left = SessionRef("default", "weak")
    schedule.entries.clear()
    progress.offsets.clear()
    await live(world, alone)
    assert set(schedule.entries) == set(sessions.sessions) >= {left}
    await finish(world, 1)
    assert left not in sessions.sessions
    assert_equals_oracle(world, [weak, strong], lost=True)


async def test_readiness_recovers_where_partitions_that_could_not_start_are_taken_away() -> None:
    """A worker that stands by is well, whatever it could not do for the partitions that it had."""
    world = fresh_world()
    turn(world, LEFT, 1)
    worker = Worker(world, [LEFT], {}, crash=False)
    fails = True
    read = worker.progress._store.read

    async def away(*arguments: Any) -> Any:
        if fails:
            raise StoreUnavailable("away")
        return await read(*arguments)

    worker.progress._store = type("Away", (), {"read": staticmethod(away), "write": worker.progress._store.write})()
    await worker.ingest.on_assigned([LEFT])
    tasks = [asyncio.create_task(worker.ingest.read()), asyncio.create_task(worker.ingest.apply())]
    for _ in range(20):
        await asyncio.sleep(0)
    assert worker.ingest._retrying.trouble()
    worker.ingest._progress.give_up([LEFT])  # as on_revoked does
    worker.source.deal([])
    fails = False
    for _ in range(40):
        await asyncio.sleep(0)
    trouble = worker.ingest._retrying.trouble()
    await end(tasks)
    assert trouble == []
