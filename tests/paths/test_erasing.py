"""A session that was erased stays away, whenever that happens and whatever comes afterwards; others notice nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from aggregator.adapters.redis.connections import Connections, connect
from aggregator.adapters.redis.erasing import RedisErasing
from aggregator.adapters.redis.index import RedisSessionIndex
from aggregator.adapters.redis.keys import Keys
from aggregator.adapters.redis.traces import RedisTraces
from aggregator.core.conventions import Conventions
from aggregator.core.decode import decode
from aggregator.core.model import NO_CLAIM, Partition, SessionRef
from aggregator.core.naming import encode_ref, percent_encode
from aggregator.core.state import ERASED_STAMP, decode_state
from tests.builders import BASE_MS, record, span, to_protobuf
from tests.oracle import comparable_hash, comparable_summary, expected_sessions, flat_price
from tests.paths.test_laws import ALL, PARTITIONS, lives
from tests.paths.test_laws_on_servers import KEYS, stores_on
from tests.paths.worlds import (
    IDLE_MS,
    RETENTION_MS,
    TOPIC,
    Life,
    Stores,
    Worker,
    World,
    finish,
    last_summaries,
    live,
    live_through,
    look_at_all,
)
from tests.redis_servers import Cluster, RedisServer, assert_every_key_lives_or_expires, redis_servers_available
from tests.workloads import Record, oracle_input, workloads

HOLD_MS = 3_600_000
S = SessionRef("default", "s")
T = SessionRef("default", "t")
FIRST = Partition(TOPIC, 0)

on_one_server = settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])


def eraser(connections: Connections, keys: Keys = KEYS) -> RedisErasing:
    return RedisErasing(connections, keys, RedisSessionIndex(connections, keys, retention_ms=RETENTION_MS))


def one_more(ref: SessionRef) -> TracesData:
    """A trace that nobody has seen, of the session."""
    project = {} if ref.project == "default" else {"openinference.project.name": ref.project}
    return record([span(77, {"session.id": ref.session_id}, trace=7777)], resource=project)


def mixed_up_with(ref: SessionRef, records: list[Record]) -> set[SessionRef]:
    """The session, and those that claim a trace which it claims as well: whose that is depends on the moment."""
    claims: dict[bytes, set[SessionRef]] = {}
    for one in records:
        for found in decode(to_protobuf(one.message), log_ms=one.log_ms, conventions=Conventions()).spans:
            if found.claim_row != NO_CLAIM:
                claims.setdefault(found.trace_id, set()).add(SessionRef(found.project, found.claim_session_id))
    return {ref}.union(*(some for some in claims.values() if ref in some))


def assert_erased(client: Any, ref: SessionRef, keys: Keys = KEYS) -> None:
    """No key and no entry names the session; of it there is nothing but what expires and does not say whose it is."""
    encoded, member = encode_ref(ref), percent_encode(ref.session_id)
    for key in [key.decode() for key in client.scan_iter(count=1000)]:
        assert f"{{{encoded}}}" not in key, key
        if key.startswith((f"agg:index:{percent_encode(ref.project)}:", f"agg:user:{{{percent_encode(ref.project)}/")):
            assert client.zscore(key, member) is None, key
        elif key.startswith("agg:due:"):
            assert client.zscore(key, encoded) is None, key
        elif key.startswith("agg:indexed:"):
            assert [one for one in client.zrange(key, 0, -1) if one.startswith(f"{encoded}/".encode())] == [], key
        elif key.startswith("agg:trace:"):
            stamp, _, state = client.get(key).partition(b" ")
            assert client.pttl(key) > 0
            if stamp != ERASED_STAMP:
                trace_id = bytes.fromhex(key[len("agg:trace:{") : -1])
                assert decode_state(trace_id, stamp, state).claim != ref, key
    held = keys.erased(keys.session(ref).session)
    assert client.get(held) == b"1"
    assert 0 < client.pttl(held) <= HOLD_MS


@on_one_server
@given(data=st.data())
def test_erased_at_any_moment_it_stays_away_and_others_notice_nothing(redis_url: str, data: st.DataObject) -> None:
    workload = data.draw(workloads(partitions=PARTITIONS))
    expected = {
        SessionRef(*ref): found
        for ref, found in expected_sessions(oracle_input(workload.records), price=flat_price).items()
    }
    if not expected:
        return
    ref = data.draw(st.sampled_from(sorted(expected)))
    step, before = data.draw(st.integers(0, 80)), data.draw(st.lists(lives(), max_size=1))
    crash = data.draw(st.booleans())
    client: Any = redis.Redis.from_url(redis_url)
    client.flushall()

    async def run() -> World:
        connections = connect(redis_url)

        erased = False

        async def erase() -> None:
            nonlocal erased
            await eraser(connections).erase([ref], hold_ms=HOLD_MS, now_ms=world.clock.now_ms())
            erased = True

        world = World(stores=Stores(**{**vars(stores_on(connections, client.flushall)), "lose": erase}))
        try:
            erasing = Life(
                assigned=ALL, plans=[{step: "lose", step + 1: "before"} if crash else {step: "lose"}], crash=crash
            )
            await live_through(world, workload.records, [*before, erasing], PARTITIONS)
            if not erased:  # there were fewer steps than that, or the crash caught it as well
                await erase()
            world.log.append(FIRST, to_protobuf(one_more(ref)), world.clock.time_ms)
            world.write([one._replace(log_ms=world.clock.time_ms) for one in workload.records], PARTITIONS)
            await finish(world, PARTITIONS)
            await look_at_all(world, PARTITIONS)
        finally:
            await connections.close()
        return world

    world = asyncio.run(run())
    assert_erased(client, ref)
    assert_every_key_lives_or_expires(client, indexed=True, settled=True)
    last = last_summaries(world)
    for other in expected.keys() - mixed_up_with(ref, workload.records):
        fields = {name.decode(): value.decode() for name, value in client.hgetall(KEYS.session(other).session).items()}
        shown = {name: value for name, value in fields.items() if not name.startswith("_")}
        assert comparable_hash(shown) == expected[other].hash_fields
        assert comparable_summary(last[other]) == expected[other].summary
    client.close()


def spans_of(world: World, worker: Worker) -> dict[str, float]:
    """What became of the spans, by outcome."""
    samples = [one for family in worker.metrics.registry.collect() for one in family.samples]
    return {one.labels["outcome"]: one.value for one in samples if one.name == "aggregator_spans_total" and one.value}


def write(world: World, number: int, *, trace: int, session: str | None = None) -> None:
    attributes = {"user.id": "ada"} | ({} if session is None else {"session.id": session})
    world.log.append(FIRST, to_protobuf(record([span(number, attributes, trace=trace)])), world.clock.time_ms)


@pytest.mark.parametrize("place", ["server", "cluster"])
async def test_late_spans_are_dropped_and_counted(place: str, request: pytest.FixtureRequest) -> None:
    """Of a known trace with and without the session's id, of a new one, and by a worker that remembers the trace."""
    server: RedisServer | Cluster = (
        request.getfixturevalue("redis_cluster")
        if place == "cluster"
        else request.getfixturevalue("running_servers").server(next(iter(redis_servers_available())))
    )
    client: Any = server.client()
    connections = connect(server.url, cluster=place == "cluster")
    world = World(stores=stores_on(connections, client.flushall))
    world.clock.time_ms = BASE_MS
    worker = Worker(world, [FIRST], {}, crash=False)
    write(world, 1, trace=1, session="s")
    write(world, 2, trace=2, session="t")
    tasks = await started(worker)
    await caught_up(world)
    await worker.indexing.round()
    assert client.exists(KEYS.session(S).session)
    (done,) = await eraser(connections).erase([S], hold_ms=HOLD_MS, now_ms=BASE_MS)
    assert (done.found, done.closing, done.traces) == (True, False, 1)
    assert_erased(client, S)

    write(world, 3, trace=1, session="s")
    write(world, 4, trace=1)
    write(world, 5, trace=2, session="t")
    write(world, 6, trace=3)  # whose it is it says later
    await caught_up(world)
    write(world, 7, trace=3, session="s")
    write(world, 8, trace=4, session="s")
    write(world, 9, trace=4)
    await caught_up(world)
    write(world, 10, trace=4)
    await caught_up(world)
    write(world, 11, trace=5, session="s")  # now that the session is no longer known to be in the deadline index
    await caught_up(world)
    await worker.indexing.round()
    assert spans_of(world, worker) == {"merged": 4, "erased": 7}
    while await worker.close.round_until_done():  # finds nothing there
        pass
    assert_erased(client, S)
    assert client.hget(KEYS.session(T).session, "span_count") == b"2"
    assert_every_key_lives_or_expires(client)
    for trace in range(1, 6):
        stored = client.get(KEYS.trace(trace.to_bytes(16, "big")))
        assert (stored == b"erased ") == (trace != 2)
    await ended(worker, tasks)
    await connections.close()
    client.close()


async def started(worker: Worker) -> list[asyncio.Task[None]]:
    await worker.ingest.on_assigned([FIRST])
    return [asyncio.create_task(worker.ingest.read()), asyncio.create_task(worker.ingest.apply())]


async def ended(worker: Worker, tasks: list[asyncio.Task[None]]) -> None:
    worker.ingest.stop()
    await asyncio.gather(*tasks)


async def caught_up(world: World) -> None:
    for _ in range(5_000):
        if world.log.committed.get(FIRST, 0) == len(world.log.partitions[FIRST]):
            return
        await asyncio.sleep(0.001)
    raise TimeoutError


async def test_a_trace_that_has_gone_to_another_session_stays_there(redis_server: RedisServer) -> None:
    """It was the session's, and its entry there is a tombstone."""
    connections = connect(redis_server.url)
    with redis_server.client() as client:
        world = World(stores=stores_on(connections, client.flushall))
        world.clock.time_ms = BASE_MS
        value = to_protobuf(record([span(1, {"gen_ai.conversation.id": "s"}, trace=1)]))
        world.log.append(FIRST, value, BASE_MS)
        await live(world, Life(assigned=[[0]], plans=[{}], crash=False))
        assert client.exists(KEYS.session(S).session)
        write(world, 2, trace=1, session="t")
        await live(world, Life(assigned=[[0]], plans=[{}], crash=False))
        await eraser(connections).erase([S], hold_ms=HOLD_MS, now_ms=BASE_MS)
        write(world, 3, trace=1)
        await live(world, Life(assigned=[[0]], plans=[{}], crash=False))
        assert_erased(client, S)
        write(world, 4, trace=1)
        await live(world, Life(assigned=[[0]], plans=[{}], crash=False))
        assert client.hget(KEYS.session(T).session, "span_count") == b"4"
    await connections.close()


async def test_the_states_of_folded_traces_are_found(redis_server: RedisServer) -> None:
    connections = connect(redis_server.url)
    with redis_server.client() as client:
        stores = stores_on(connections, client.flushall)
        assert hasattr(stores.sessions, "_put_head")
        stores.sessions._put_head = (IDLE_MS, 10**12, RETENTION_MS, 2, RETENTION_MS)
        world = World(stores=stores)
        world.clock.time_ms = BASE_MS
        for number in range(1, 9):
            write(world, number, trace=number, session="s")
            world.clock.time_ms += 1
        write(world, 9, trace=9, session="t")
        await live(world, Life(assigned=[[0]], plans=[{}], crash=False))
        assert client.hget(KEYS.session(S).session, "truncated") == b"1"
        assert client.hlen(KEYS.session(S).traces) == 2
        (done,) = await eraser(connections).erase([S], hold_ms=HOLD_MS, now_ms=BASE_MS)
        assert done.found
        assert_erased(client, S)
        traces = RedisTraces(connections, KEYS)
        states = await traces.load([number.to_bytes(16, "big") for number in range(1, 10)])
        assert [bool(state.state) for state in states] == [False] * 8 + [True]
    await connections.close()


async def test_what_a_crash_leaves_is_erased_by_a_repeat(redis_server: RedisServer) -> None:
    """The command dies after its script, before any trace state is touched."""
    connections = connect(redis_server.url)
    with redis_server.client() as client:
        world = World(stores=stores_on(connections, client.flushall))
        world.clock.time_ms = BASE_MS
        write(world, 1, trace=1, session="s")
        await live(world, Life(assigned=[[0]], plans=[{}], crash=False))
        broken = eraser(connections)

        async def dies(*_: object) -> None:
            raise InterruptedError

        broken._erase_states = dies  # type: ignore[method-assign, assignment]
        with pytest.raises(InterruptedError):
            await broken.erase([S], hold_ms=HOLD_MS, now_ms=BASE_MS)
        assert_every_key_lives_or_expires(client)
        (done,) = await eraser(connections).erase([S], hold_ms=HOLD_MS, now_ms=BASE_MS)
        assert (done.found, done.traces) == (False, 1)
        assert_erased(client, S)
    await connections.close()


async def test_broken_and_set_aside_keys_of_the_session_go_as_well(redis_server: RedisServer) -> None:
    connections = connect(redis_server.url)
    keys = KEYS.session(S)
    with redis_server.client() as client:
        client.set(keys.session, "no hash")
        client.set(keys.traces, "no hash")
        for name in keys:
            client.set(KEYS.corrupt(name), "what was there", px=HOLD_MS)
        await eraser(connections).erase([S], hold_ms=HOLD_MS, now_ms=BASE_MS)
        assert_erased(client, S)
    await connections.close()


def test_the_key_that_says_so_lies_in_the_sessions_slot_and_does_not_name_it() -> None:
    from redis.crc import key_slot

    for number in range(300):
        ref = SessionRef("p", f"session-{number}")
        session = KEYS.session(ref).session
        assert key_slot(KEYS.erased(session).encode()) == key_slot(session.encode())
        assert f"session-{number}" not in KEYS.erased(session)
