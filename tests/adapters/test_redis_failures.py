"""What becomes of failures of one server: translated once, never half read, mended where that is safe."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import pytest

from aggregator.adapters.redis.connections import Connections, SingleRedis, connect
from aggregator.adapters.redis.keys import Keys
from aggregator.adapters.redis.schedule import RedisSchedule
from aggregator.adapters.redis.servers import Eviction, servers
from aggregator.adapters.redis.sessions import RedisSessions
from aggregator.adapters.redis.traces import RedisTraces
from aggregator.core.errors import ConfigurationError, OtherVersion, StoreRefused, StoreUnavailable
from aggregator.core.state import stamp_of
from aggregator.embedded.process import free_port
from aggregator.ports import ClaimOutcome, PutOutcome, SessionPut, StoredTrace, TraceWrite
from tests.contract.builders import T0_MS, ref, trace_id, trace_put
from tests.redis_servers import RedisServer

KEYS = Keys()
S, OTHER = ref("s-1"), ref("s-2")


def sessions_on(connections: Connections) -> RedisSessions:
    return RedisSessions(
        connections,
        KEYS,
        idle_timeout_ms=10,
        max_duration_ms=1000,
        retention_ms=1000,
        max_session_traces=10,
        trace_life_ms=88_200_000,
    )


def write(number: int, state: bytes = b"state") -> TraceWrite:
    return TraceWrite(trace_id(number), b"", stamp_of(1, state), state, 60_000)


def held(state: bytes = b"state") -> StoredTrace:
    return StoredTrace(stamp_of(1, state), state)


@pytest.fixture
async def connections(redis_server: RedisServer) -> AsyncIterator[Connections]:
    made = connect(redis_server.url)
    yield made
    await made.close()


@asynccontextmanager
async def slow_way(server: RedisServer, bytes_per_s: int) -> AsyncIterator[str]:
    """A URL under which the server takes no more than so much; its answers come as they are."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rate: float) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(len(data) / rate)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        redis_reader, redis_writer = await asyncio.open_connection("127.0.0.1", server.port)
        with closing(writer), closing(redis_writer):
            await asyncio.gather(pump(reader, redis_writer, bytes_per_s), pump(redis_reader, writer, float("inf")))

    way = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with way:
        yield f"redis://127.0.0.1:{way.sockets[0].getsockname()[1]}/0"


async def test_a_batch_may_take_longer_than_the_time_out_of_a_call(redis_server: RedisServer) -> None:
    """As long as some of it gets through all the time; else it would be begun anew for ever."""
    states = [write(number, bytes([number % 256]) * 2000) for number in range(6000)]
    async with slow_way(redis_server, 2_000_000) as url:
        connections = connect(url, socket_timeout_s=2.0)
        began_s = time.monotonic()
        assert await RedisTraces(connections, KEYS).store(states) == [None] * len(states)
        await connections.close()
    assert time.monotonic() - began_s > 4, "it was not slow enough to show anything"


async def test_a_flushed_script_cache_goes_unnoticed(connections: Connections, redis_server: RedisServer) -> None:
    traces = RedisTraces(connections, KEYS)
    for number in range(2):
        with redis_server.client() as client:
            client.script_flush()
        assert await traces.store([write(number * 1000 + index) for index in range(250)]) == [None] * 250


@pytest.mark.parametrize(
    "private",
    ["[1,1,1760000000000,0,0,1,0,1]", "[1,1,1760000000000,0,0,1,0,1,false,false,0]"],
    ids=["0.1.0", "a later one"],
)
async def test_a_session_of_another_version_is_refused_not_misread(
    private: str, connections: Connections, redis_server: RedisServer
) -> None:
    store = sessions_on(connections)
    with redis_server.client() as client:
        client.hset(KEYS.session(S).session, mapping={"_s": private})
    for work in (
        store.put([SessionPut(S, [trace_put(1, 1)])]),
        store.claim([S], watermark_ms=T0_MS),
        store.settle([(S, 1)]),
    ):
        with pytest.raises(OtherVersion, match=r"agg:session:\{demo/s-1\} .*another version.*docs/upgrade.md"):
            await work
    with redis_server.client() as client:
        assert client.hgetall(KEYS.session(S).session) == {b"_s": private.encode()}


async def test_nobody_listens() -> None:
    port = free_port()
    connections = connect(f"redis://:secret@127.0.0.1:{port}/0")
    with pytest.raises(StoreUnavailable, match=f"127.0.0.1:{port}") as caught:
        await RedisTraces(connections, KEYS).store([write(1)])
    assert "secret" not in str(caught.value)
    await connections.close()


async def test_a_restart_is_survived_and_can_be_noticed(redis_server: RedisServer, connections: Connections) -> None:
    traces = RedisTraces(connections, KEYS)
    assert await traces.store([write(1)]) == [None]
    before = await servers(connections)
    redis_server.stop()
    with pytest.raises(StoreUnavailable):
        await traces.store([write(1)])
    redis_server.start()
    assert await traces.load([trace_id(1)]) == [StoredTrace(b"", b"")]
    assert await traces.store([write(1)]) == [None]
    after = await servers(connections)
    assert before[0].run_id != after[0].run_id
    assert before[0].version == after[0].version


async def test_a_full_server_is_away_until_it_has_room(connections: Connections, redis_server: RedisServer) -> None:
    store, traces, schedule = sessions_on(connections), RedisTraces(connections, KEYS), RedisSchedule(connections, KEYS)
    with redis_server.client() as client:
        client.config_set("maxmemory", "1")
        try:
            for work in (
                store.put([SessionPut(S, [trace_put(1, 1)])]),
                traces.store([write(1)]),
                schedule.add([(S, 5)]),
            ):
                with pytest.raises(StoreUnavailable, match="used memory"):
                    await work
        finally:
            client.config_set("maxmemory", "0")
    (reply,) = await store.put([SessionPut(S, [trace_put(1, 1)])])
    assert reply is not None
    assert reply.outcomes == [PutOutcome.APPLIED]


async def test_a_replica_is_away(connections: Connections, redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.script_flush()  # so that something has been answered on the connection before it is refused
        client.replicaof("127.0.0.1", free_port())
        try:
            with pytest.raises(StoreUnavailable):
                await RedisTraces(connections, KEYS).store([write(1)])
        finally:
            client.replicaof("NO", "ONE")
    assert await RedisTraces(connections, KEYS).store([write(1)]) == [None]


async def test_a_busy_server_times_out_and_its_late_answer_reaches_nobody(redis_server: RedisServer) -> None:
    connections = connect(redis_server.url, socket_timeout_s=1.0)
    traces = RedisTraces(connections, KEYS)
    assert await traces.store([write(1)]) == [None]
    with redis_server.client() as client:
        client.execute_command("CLIENT", "PAUSE", 3000)
        with pytest.raises(StoreUnavailable):
            await traces.store([write(1, b"other")])
        client.execute_command("CLIENT", "UNPAUSE")
    assert await traces.load([trace_id(1), trace_id(2)]) == [held(), StoredTrace(b"", b"")]
    await connections.close()


async def test_a_cancelled_call_leaves_no_answer_behind(connections: Connections, redis_server: RedisServer) -> None:
    traces = RedisTraces(connections, KEYS)
    await traces.store([write(1), write(2, b"two")])
    with redis_server.client() as client:
        client.execute_command("CLIENT", "PAUSE", 2000, "ALL")
        task = asyncio.create_task(traces.load([trace_id(1)] * 50))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        client.execute_command("CLIENT", "UNPAUSE")
    assert await traces.load([trace_id(2)]) == [held(b"two")]


async def test_many_tasks_share_the_way(connections: Connections) -> None:
    traces = RedisTraces(connections, KEYS)
    done = await asyncio.gather(*(traces.store([write(number, b"%d" % number)]) for number in range(40)))
    assert done == [[None]] * 40
    loaded = await asyncio.gather(*(traces.load([trace_id(number)]) for number in range(40)))
    assert [found[0].state for found in loaded] == [b"%d" % number for number in range(40)]


async def test_a_wrong_password_names_server_user_and_settings(redis_server: RedisServer) -> None:
    connections = connect(f"redis://nobody:wrong@127.0.0.1:{redis_server.port}/0")
    said = rf"127.0.0.1:{redis_server.port} does not let user nobody in: .*AGGREGATOR_REDIS__URL"
    with pytest.raises(StoreRefused, match=said) as caught:
        await servers(connections)
    assert "wrong" not in str(caught.value).replace("WRONGPASS", "")
    await connections.close()


def test_an_unreadable_url_is_a_matter_of_settings_and_not_quoted() -> None:
    for cluster in (False, True):
        with pytest.raises(ConfigurationError) as caught:
            connect("http://user:secret@host:6379", cluster=cluster)
        assert "secret" not in str(caught.value)


async def test_a_command_that_the_acl_lacks_is_named_and_waited_for(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.execute_command("ACL", "SETUSER", "weak", "on", ">pw", "+@all", "-evalsha", "~*")
    connections = connect(f"redis://weak:pw@127.0.0.1:{redis_server.port}/0")
    with pytest.raises(StoreRefused, match=r"does not allow user weak EVALSHA of trace_store\.lua: .*evalsha"):
        await RedisTraces(connections, KEYS).store([write(1)])
    await connections.close()


@pytest.mark.parametrize(
    ("policy", "limit", "eviction"),
    [
        ("noeviction", "100mb", Eviction.NOTHING),
        ("allkeys-lru", "0", Eviction.NOTHING),
        ("allkeys-lru", "100mb", Eviction.ANYTHING),
        ("volatile-ttl", "100mb", Eviction.EXPIRING),
    ],
)
async def test_what_a_server_says_of_itself(
    connections: Connections, redis_server: RedisServer, policy: str, limit: str, eviction: Eviction
) -> None:
    assert isinstance(connections, SingleRedis)
    with redis_server.client() as client:
        try:
            client.config_set("maxmemory", limit)
            client.config_set("maxmemory-policy", policy)
            (server,) = await servers(connections)
        finally:
            client.config_set("maxmemory", "0")
            client.config_set("maxmemory-policy", "noeviction")
    assert server.address == f"127.0.0.1:{redis_server.port}"
    assert server.software == ("valkey" if "valkey" in redis_server.program else "redis")
    assert int(server.version.split(".")[0]) >= 7
    assert (server.cluster, server.role, server.maxmemory_policy) == (False, "master", policy)
    assert server.eviction is eviction


async def test_leftovers_of_an_evicted_session_do_not_count(
    connections: Connections, redis_server: RedisServer
) -> None:
    """A server that evicts may take the hash and leave the rest; the session then starts anew with what comes."""
    store = sessions_on(connections)
    await store.put([SessionPut(S, [trace_put(1, 1), trace_put(2, 1)])])
    with redis_server.client() as client:
        client.delete(KEYS.session(S).session)
    await store.put([SessionPut(S, [trace_put(1, 1)])])
    (claim,) = await store.claim([S], watermark_ms=T0_MS + 10)
    assert claim.outcome is ClaimOutcome.CLAIMED
    assert claim.rollup is not None
    assert claim.rollup.counts.trace_count == 1
    assert len(claim.rollup.trace_entries) == 1
    assert claim.rollup.models == {"gpt-4o": [1, 100, 20, 0, 0, 4_100_000, 0, 0]}


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("unable to perform operation on <TCPTransport closed=True reading=False>; the handler is closed"),
        TypeError("'NoneType' object is not callable"),
        AttributeError("'NoneType' object has no attribute '_add_writer'"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("fresh", [True, False])
async def test_a_transport_that_was_closed_meanwhile_is_a_lost_connection(
    connections: Connections, error: Exception, fresh: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What event loops say then is no OSError, and redis-py lets it through."""
    traces = RedisTraces(connections, KEYS)
    if not fresh:
        assert await traces.store([write(1)]) == [None]

    def closed(*_: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(asyncio.StreamWriter, "writelines", closed)
        with pytest.raises(StoreUnavailable, match="connection was closed"):
            await traces.store([write(2)])
    assert await traces.store([write(2)]) == [None]


async def test_another_mistake_is_not_taken_for_a_lost_connection(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistaken(*_: object) -> None:
        raise TypeError("unhashable type")

    monkeypatch.setattr(asyncio.StreamWriter, "writelines", mistaken)
    with pytest.raises(TypeError, match="unhashable"):
        await RedisTraces(connections, KEYS).store([write(1)])


async def test_a_connection_that_was_made_anew_in_silence_is_told_once(
    connections: Connections, redis_server: RedisServer
) -> None:
    """Another server may answer on it, one that has missed what was stored before."""
    traces = RedisTraces(connections, KEYS)
    assert await traces.store([write(1)]) == [None]
    with redis_server.client() as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await asyncio.sleep(0.1)  # the end of the connection has arrived
    with pytest.raises(StoreUnavailable):
        await traces.store([write(2)])
    assert await traces.store([write(2)]) == [None]
