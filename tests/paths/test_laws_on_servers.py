"""The same laws with the state in real servers, where scripts, packing and keys take part; law 6 on every one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregator.adapters.redis.connections import Connections, connect
from aggregator.adapters.redis.index import RedisSessionIndex
from aggregator.adapters.redis.keys import Keys
from aggregator.adapters.redis.progress import RedisProgress
from aggregator.adapters.redis.schedule import RedisSchedule
from aggregator.adapters.redis.sessions import RedisSessions
from aggregator.adapters.redis.traces import RedisTraces
from aggregator.core.model import SessionRef
from tests.indexes import assert_indexes_show_sessions
from tests.oracle import comparable_hash, expected_sessions, flat_price
from tests.paths.test_laws import ALL, PARTITIONS, lives
from tests.paths.worlds import (
    IDLE_MS,
    RETENTION_MS,
    SHARDS,
    Life,
    Stores,
    World,
    assert_equals_oracle,
    live_through,
    look_at_all,
)
from tests.redis_servers import assert_every_key_lives_or_expires
from tests.workloads import Record, Workload, oracle_input, workloads

KEYS = Keys(closing_shards=SHARDS)

# The fixture is one running server for all examples: each begins by emptying it.
on_one_server = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


def stores_on(connections: Connections, empty: Callable[[], object]) -> Stores:
    """All stores on the servers that `empty` empties."""

    async def lose() -> None:
        empty()

    return Stores(
        traces=RedisTraces(connections, KEYS),
        sessions=RedisSessions(
            connections,
            KEYS,
            idle_timeout_ms=IDLE_MS,
            max_duration_ms=10**12,
            retention_ms=RETENTION_MS,
            max_session_traces=1000,
            trace_life_ms=RETENTION_MS,
        ),
        schedule=RedisSchedule(connections, KEYS),
        progress=RedisProgress(connections, KEYS),
        index=RedisSessionIndex(connections, KEYS, retention_ms=RETENTION_MS),
        lose=lose,
    )


async def run(
    url: str, *, cluster: bool, empty: Callable[[], object], workload: Workload, history: list[Life]
) -> World:
    connections = connect(url, cluster=cluster)

    world = World(stores=stores_on(connections, empty))
    try:
        await live_through(world, workload.records, history, PARTITIONS)
        await look_at_all(world, PARTITIONS)
    finally:
        await connections.close()
    return world


def assert_hashes_equal_oracle(client: Any, records: Sequence[Record]) -> None:
    """The session and model hashes say what the oracle says, field by field, and no other session has a trace."""
    found = expected_sessions(oracle_input(records), price=flat_price)
    keys_of_all = {KEYS.session(SessionRef(*ref)).session for ref in found}
    for key in client.scan_iter("agg:session:{*}"):
        assert key in keys_of_all or client.hget(key, "trace_count") == "0"
    for ref, expected in found.items():
        keys = KEYS.session(SessionRef(*ref))
        fields: dict[str, str] = client.hgetall(keys.session)
        shown = {name: value for name, value in fields.items() if not name.startswith("_")}
        assert comparable_hash(shown) == expected.hash_fields
        models = {name: int(value) for name, value in client.hgetall(keys.models).items()}
        assert {name: value for name, value in expected.models_hash.items() if value or name in models} == models


@on_one_server
@given(workload=workloads(partitions=PARTITIONS), history=st.lists(lives(), max_size=2))
def test_whatever_breaks_keys_and_summaries_are_the_oracles(
    redis_url: str, workload: Workload, history: list[Life]
) -> None:
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    client.flushall()
    world = asyncio.run(run(redis_url, cluster=False, empty=client.flushall, workload=workload, history=history))
    assert_equals_oracle(world, workload.records)
    assert_hashes_equal_oracle(client, workload.records)
    with redis.Redis.from_url(redis_url) as plain:
        assert_every_key_lives_or_expires(plain, indexed=True, settled=True)
        assert_indexes_show_sessions(plain, KEYS)
    client.close()


@on_one_server
@given(workload=workloads(partitions=PARTITIONS), step=st.integers(0, 60))
def test_a_server_that_loses_everything_is_filled_again(redis_url: str, workload: Workload, step: int) -> None:
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    client.flushall()
    closing = Life(assigned=ALL, plans=[{}], crash=False, rest_ms=2 * IDLE_MS)
    losing = Life(assigned=ALL, plans=[{step: "lose"}], crash=False)
    world = asyncio.run(
        run(redis_url, cluster=False, empty=client.flushall, workload=workload, history=[closing, losing])
    )
    assert_equals_oracle(world, workload.records, lost=True)
    assert_hashes_equal_oracle(client, workload.records)
    with redis.Redis.from_url(redis_url) as plain:
        assert_every_key_lives_or_expires(plain, indexed=True, settled=True)
        assert_indexes_show_sessions(plain, KEYS)
    client.close()
