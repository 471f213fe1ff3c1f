"""Whole workers over real Redis of which some keys were broken: they go on, and reading the log again mends all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregator.adapters.redis.connections import connect
from tests.paths.test_laws import PARTITIONS
from tests.paths.test_laws_on_servers import KEYS, assert_hashes_equal_oracle, stores_on
from tests.paths.worlds import Life, World, assert_equals_oracle, finish, live
from tests.redis_servers import assert_every_key_lives_or_expires
from tests.workloads import Workload, workloads

EVERYTHING: Final = Life(assigned=[list(range(PARTITIONS))], plans=[{}], crash=False)


def retyped(client: Any, key: str) -> None:
    """Another type, with the life that the key had."""
    ttl_ms = client.pttl(key)
    client.delete(key)
    client.lpush(key, "x")
    if ttl_ms > 0:
        client.pexpire(key, ttl_ms)


def garbled(client: Any, key: str) -> None:
    """The same type with an inside that means nothing."""
    match client.type(key):
        case "string":
            client.setrange(key, client.strlen(key), "x")
        case "hash":
            for field in client.hkeys(key):
                client.hset(key, field, '"x')
        case "zset":
            client.zadd(key, {"x": 1})
        case other:
            raise AssertionError(other)


BREAKS: Final[list[Callable[[Any, str], None]]] = [retyped, garbled]


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    workload=workloads(partitions=PARTITIONS),
    broken=st.lists(st.tuples(st.integers(0, 1000), st.sampled_from(BREAKS)), min_size=1, max_size=5),
    rest=st.booleans(),
)
def test_broken_keys_stop_nobody_and_a_replay_mends_them(
    redis_url: str, workload: Workload, broken: list[tuple[int, Callable[[Any, str], None]]], rest: bool
) -> None:
    async def run() -> World:
        connections = connect(redis_url)
        world = World(stores=stores_on(connections, client.flushall))
        try:
            half = len(workload.records) // 2
            world.write(workload.records[:half], PARTITIONS)
            await live(world, EVERYTHING)
            keys = sorted(key for key in client.scan_iter() if client.type(key) != "list")
            for place, break_key in broken:
                if keys:
                    break_key(client, keys.pop(place % len(keys)))
            if rest:  # all sessions are due before anything else comes
                await finish(world, PARTITIONS)
            world.write(workload.records[half:], PARTITIONS)
            await finish(world, PARTITIONS)
            client.delete(KEYS.progress)  # what the runbook says
            await finish(world, PARTITIONS)
        finally:
            await connections.close()
        return world

    client = redis.Redis.from_url(redis_url, decode_responses=True)
    client.flushall()
    world = asyncio.run(run())
    assert_equals_oracle(world, workload.records, lost=True)
    assert_hashes_equal_oracle(client, workload.records)
    with redis.Redis.from_url(redis_url) as plain:
        assert_every_key_lives_or_expires(plain, indexed=True, settled=True)
    client.close()
