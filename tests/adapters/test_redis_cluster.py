"""A Cluster whose slots move and whose nodes go away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from redis.crc import key_slot

from aggregator.adapters.redis.connections import Connections, connect
from aggregator.adapters.redis.keys import Keys
from aggregator.adapters.redis.progress import RedisProgress
from aggregator.adapters.redis.servers import servers
from aggregator.adapters.redis.sessions import RedisSessions
from aggregator.adapters.redis.traces import RedisTraces
from aggregator.core.errors import StoreUnavailable
from aggregator.core.model import Partition
from aggregator.core.state import stamp_of
from aggregator.ports import Applied, PutOutcome, SessionPut, TraceWrite
from tests.contract.builders import T0_MS, ref, trace_id, trace_put
from tests.redis_servers import Cluster, RedisServer, assert_every_key_lives_or_expires

KEYS = Keys()


@pytest.fixture
async def connections(redis_cluster: Cluster) -> AsyncIterator[Connections]:
    made = connect(redis_cluster.url, cluster=True)
    yield made
    await made.close()


def sessions_on(connections: Connections) -> RedisSessions:
    return RedisSessions(
        connections,
        KEYS,
        idle_timeout_ms=10,
        max_duration_ms=1000,
        retention_ms=60_000,
        max_session_traces=10,
        trace_life_ms=88_200_000,
    )


class Move:
    """One slot on its way from the node that has it to another."""

    def __init__(self, cluster: Cluster, key: str) -> None:
        self.slot = key_slot(key.encode())
        share = -(-16384 // len(cluster.nodes))
        self.source: RedisServer = cluster.nodes[self.slot // share]
        self.target: RedisServer = cluster.nodes[(self.slot // share + 1) % len(cluster.nodes)]
        self.others = [node for node in cluster.nodes if node not in (self.source, self.target)]

    def begin(self) -> None:
        with self.source.client() as source, self.target.client() as target:
            self._setslot(target, "IMPORTING", self._id(source))
            self._setslot(source, "MIGRATING", self._id(target))

    def carry(self, *keys: str) -> None:
        with self.source.client() as source:
            source.execute_command("MIGRATE", "127.0.0.1", self.target.port, "", 0, 5000, "KEYS", *keys)

    def finish(self) -> None:
        with self.target.client() as target:
            winner = self._id(target)
        for node in (self.target, self.source, *self.others):
            with node.client() as client:
                self._setslot(client, "NODE", winner)

    def undo(self) -> None:
        """Give the slot back, empty."""
        for node in (self.source, self.target):
            with node.client() as client:
                self._setslot(client, "STABLE")
                client.flushall()
        with self.source.client() as source:
            home = self._id(source)
        # The source last: a node that still takes the target for the owner would have its word taken for newer.
        for node in (self.target, *self.others, self.source):
            with node.client() as client:
                self._setslot(client, "NODE", home)

    def _setslot(self, client: Any, *what: str) -> None:
        client.execute_command("CLUSTER", "SETSLOT", self.slot, *what)

    @staticmethod
    def _id(client: Any) -> str:
        name = client.execute_command("CLUSTER", "MYID")
        return name.decode() if isinstance(name, bytes) else str(name)


@pytest.fixture
def move(redis_cluster: Cluster) -> Iterator[Move]:
    made = Move(redis_cluster, KEYS.session(ref()).session)
    yield made
    made.undo()


async def test_a_session_follows_its_slot(connections: Connections, redis_cluster: Cluster, move: Move) -> None:
    store, who = sessions_on(connections), ref()
    others = [ref(f"other-{number}") for number in range(30)]
    everyone = [who, *others]
    await store.put([SessionPut(one, [trace_put(1, 1)]) for one in everyone])
    names = KEYS.session(who)
    move.begin()
    # Not moved yet: a session whose three keys are all there is served where it is.
    assert await store.put([SessionPut(who, [trace_put(1, 2)])]) == [None]
    move.carry(names.traces)
    # Split over two nodes: nobody may touch half of it, but the others of the call are served.
    with pytest.raises(StoreUnavailable):
        await store.put([SessionPut(one, [trace_put(1, 3)]) for one in everyone])
    replies = await store.put([SessionPut(one, [trace_put(1, 3)]) for one in others])
    assert [reply and reply.outcomes for reply in replies] == [[PutOutcome.SAME]] * 30
    move.carry(names.session, names.models)
    # All of it is on the new node, which does not own the slot yet: ASK.
    assert await store.put([SessionPut(who, [trace_put(1, 4)])]) == [None]
    move.finish()
    # The new node owns the slot: MOVED.
    replies = await store.put([SessionPut(one, [trace_put(2, 1)]) for one in everyone])
    assert {reply and reply.transition for reply in replies} == {None}
    claims = await store.claim(everyone, watermark_ms=T0_MS + 10)
    assert [claim.rollup.counts.trace_count for claim in claims if claim.rollup] == [2] * 31
    assert await store.settle([(one, 1) for one in everyone]) == [True] * 31
    with redis_cluster.client() as client:
        assert_every_key_lives_or_expires(client)


async def test_plain_commands_follow_a_moved_slot(connections: Connections, redis_cluster: Cluster) -> None:
    traces = RedisTraces(connections, KEYS)
    assert await traces.store([TraceWrite(trace_id(1), b"", stamp_of(7, b"state"), b"state", 60_000)]) == [None]
    key = KEYS.trace(trace_id(1))
    moving = Move(redis_cluster, key)
    try:
        moving.begin()
        moving.carry(key)
        assert (await traces.load([trace_id(1)]))[0].stamp == stamp_of(7, b"state")
        moving.finish()
        assert (await traces.load([trace_id(1)]))[0].stamp == stamp_of(7, b"state")
        assert await traces.store(
            [TraceWrite(trace_id(1), stamp_of(7, b"state"), stamp_of(8, b"new"), b"new", 60_000)]
        ) == [None]
    finally:
        moving.undo()


async def test_a_flushed_script_cache_goes_unnoticed(connections: Connections, redis_cluster: Cluster) -> None:
    traces = RedisTraces(connections, KEYS)
    for start in (0, 100):
        for node in redis_cluster.nodes:
            with node.client() as client:
                client.script_flush()
        writes = [TraceWrite(trace_id(start + number), b"", stamp_of(1, b"s"), b"s", 60_000) for number in range(100)]
        assert await traces.store(writes) == [None] * 100


async def test_every_node_describes_itself(connections: Connections, redis_cluster: Cluster) -> None:
    found = await servers(connections)
    assert {server.address for server in found} == {f"127.0.0.1:{node.port}" for node in redis_cluster.nodes}
    assert all(server.cluster for server in found)
    assert len({server.run_id for server in found}) == 3


async def test_no_node_listens() -> None:
    connections = connect("redis://127.0.0.1:1/0", cluster=True)
    with pytest.raises(StoreUnavailable):
        await RedisTraces(connections, KEYS).load([trace_id(1)])
    await connections.close()


PARTITION = Partition("otlp_spans", 3)


async def test_each_master_tells_when_it_has_forgotten(connections: Connections, redis_cluster: Cluster) -> None:
    for node in redis_cluster.nodes:
        redis_cluster.flush()
        progress = RedisProgress(connections, KEYS)
        assert await progress.read([PARTITION]) == {PARTITION: (None, None)}
        assert await progress.write({PARTITION: Applied(None, 10, None)}) == {}
        assert await progress.write({PARTITION: Applied(10, 15, T0_MS)}) == {}
        with node.client() as client:
            client.flushall()
        assert await progress.write({PARTITION: Applied(15, 20, T0_MS)}) == {PARTITION: None}
        assert (await progress.read([PARTITION]))[PARTITION][0] is None
        assert await progress.write({PARTITION: Applied(None, 3, None)}) == {}
        assert (await progress.read([PARTITION]))[PARTITION][0] == 3


async def test_so_it_does_when_that_happens_while_a_partition_is_started(
    connections: Connections, redis_cluster: Cluster
) -> None:
    """Between reading where it has come and writing where it starts, Kafka is asked: there is time for a loss."""
    for node in redis_cluster.nodes:
        redis_cluster.flush()
        progress = RedisProgress(connections, KEYS)
        await progress.read([PARTITION])
        await progress.write({PARTITION: Applied(None, 10, None)})
        assert await progress.read([PARTITION]) == {PARTITION: (10, None)}
        with node.client() as client:
            client.flushall()
        assert await progress.write({PARTITION: Applied(10, 10, None)}) == {PARTITION: None}
        assert (await progress.read([PARTITION]))[PARTITION][0] is None
        assert await progress.write({PARTITION: Applied(None, 3, None)}) == {}
        assert (await progress.read([PARTITION]))[PARTITION][0] == 3


async def test_a_master_that_fell_back_holds_its_partitions_back(
    connections: Connections, redis_cluster: Cluster
) -> None:
    progress = RedisProgress(connections, KEYS)
    await progress.read([PARTITION])
    await progress.write({PARTITION: Applied(None, 10, None)})
    await progress.write({PARTITION: Applied(10, 15, T0_MS)})
    with redis_cluster.client() as client:
        client.hset(KEYS.witnesses()[5], KEYS.partition_field(PARTITION), 12)
    assert await progress.write({PARTITION: Applied(15, 20, T0_MS)}) == {PARTITION: 12}
    assert (await progress.read([PARTITION]))[PARTITION][0] == 12
    assert await progress.write({PARTITION: Applied(12, 12, None)}) == {}
    assert await progress.write({PARTITION: Applied(12, 18, T0_MS)}) == {}
    assert (await progress.read([PARTITION]))[PARTITION] == (18, T0_MS)


def test_every_sixteenth_of_the_slots_has_a_witness() -> None:
    assert [key_slot(key.encode()) // 1024 for key in KEYS.witnesses()] == list(range(16))
