"""A topic that holds something else than spans: the worker stops, and so does whoever is started in its place."""

from __future__ import annotations

import pytest

from aggregator.core.errors import TooManyDeadLetters
from aggregator.core.model import Partition
from tests.builders import BASE_MS, record, span, to_protobuf
from tests.paths.test_laws import fresh_world
from tests.paths.worlds import TOPIC, Life, World, live

GOOD = to_protobuf(record([span(1, {"session.id": "s"})]))
BAD = b"no spans at all"
PARTITION = Partition(TOPIC, 0)


async def start(world: World) -> bool:
    """Run a worker; says whether it stopped for that reason."""
    stopped = False
    try:
        await live(world, Life(assigned=[[0]], plans=[{}], crash=False))
    except* TooManyDeadLetters:
        stopped = True
    return stopped


@pytest.mark.parametrize("good", [0, 1, 4])
async def test_a_restart_meets_the_same_records_and_stops_again(good: int) -> None:
    """Else a supervisor that restarts it would empty the topic into the dead letters bit by bit."""
    world = fresh_world()
    world.max_consecutive_dead_letters = 8
    for value in [*[GOOD] * good, *[BAD] * 40, GOOD]:
        world.log.append(PARTITION, value, BASE_MS)
    for _ in range(3):
        assert await start(world)
        assert world.log.committed.get(PARTITION, 0) <= good
        assert {letter[0].offset for letter in world.log.dead_letters} == set(range(good, good + 8))
    world.max_consecutive_dead_letters = 40
    assert not await start(world)
    assert world.log.committed[PARTITION] == good + 41


async def test_a_record_that_can_be_used_ends_the_run() -> None:
    world = fresh_world()
    world.max_consecutive_dead_letters = 8
    for value in [*[BAD] * 8, GOOD, *[BAD] * 8]:
        world.log.append(PARTITION, value, BASE_MS)
    assert not await start(world)
    assert world.log.committed[PARTITION] == 17
