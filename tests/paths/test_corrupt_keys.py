"""Whole workers over real Redis of which some keys were broken: they go on, and reading the log again mends all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregator.adapters.redis.connections import Connections, connect
from tests.paths.test_laws import PARTITIONS
from tests.paths.test_laws_on_servers import KEYS, assert_hashes_equal_oracle, stores_on
from tests.paths.worlds import Life, World, assert_equals_oracle, finish, live
from tests.redis_servers import Cluster, assert_every_key_lives_or_expires
from tests.workloads import Record, Workload, workloads

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


Broken = list[tuple[int, Callable[[Any, str], None]]]

# The fixture is one running server for all examples: each begins by emptying it.
some = settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
broken_keys = st.lists(st.tuples(st.integers(0, 1000), st.sampled_from(BREAKS)), min_size=1, max_size=5)


async def broken_midway(
    connections: Connections, client: Any, records: Sequence[Record], broken: Broken, *, rest: bool
) -> World:
    """Apply half of them, break some keys, apply the rest, and read all again; with `rest` all is due in between."""
    world = World(stores=stores_on(connections, client.flushall))
    half = len(records) // 2
    world.write(records[:half], PARTITIONS)
    await live(world, EVERYTHING)
    keys = sorted(key for key in client.scan_iter() if client.type(key) != "list")
    for place, break_key in broken:
        if keys:
            break_key(client, keys.pop(place % len(keys)))
    if rest:
        await finish(world, PARTITIONS)
    world.write(records[half:], PARTITIONS)
    await finish(world, PARTITIONS)
    for key in list(client.scan_iter(f"{KEYS.progress}*")):  # what the runbook says
        client.delete(key)
    await finish(world, PARTITIONS)
    return world


def assert_mended(
    connections: Connections, client: Any, plain: Any, records: Sequence[Record], broken: Broken, *, rest: bool
) -> None:
    """However keys are broken, in the end all is what the oracle says."""

    async def run() -> World:
        try:
            return await broken_midway(connections, client, records, broken, rest=rest)
        finally:
            await connections.close()

    client.flushall()
    world = asyncio.run(run())
    assert_equals_oracle(world, records, lost=True)
    assert_hashes_equal_oracle(client, records)
    assert_every_key_lives_or_expires(plain, indexed=True, settled=True)


@some
@given(workload=workloads(partitions=PARTITIONS), broken=broken_keys, rest=st.booleans())
def test_broken_keys_stop_nobody_and_a_replay_mends_them(
    redis_url: str, workload: Workload, broken: Broken, rest: bool
) -> None:
    with (
        redis.Redis.from_url(redis_url, decode_responses=True) as client,
        redis.Redis.from_url(redis_url) as plain,
    ):
        assert_mended(connect(redis_url), client, plain, workload.records, broken, rest=rest)


@some
@given(workload=workloads(partitions=PARTITIONS), broken=broken_keys, rest=st.booleans())
def test_so_it_is_on_a_cluster(redis_cluster: Cluster, workload: Workload, broken: Broken, rest: bool) -> None:
    with (
        redis.RedisCluster.from_url(redis_cluster.url, decode_responses=True) as client,
        redis_cluster.client() as plain,
    ):
        connections = connect(redis_cluster.url, cluster=True)
        assert_mended(connections, client, plain, workload.records, broken, rest=rest)
