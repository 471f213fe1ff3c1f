"""Values in Redis that were tampered with: set aside, counted and named, and nothing else of the call is held up."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from aggregator.adapters.redis import corrupt as corrupt_module
from aggregator.adapters.redis.connections import Connections, connect
from aggregator.adapters.redis.corrupt import CorruptKeys
from aggregator.adapters.redis.keys import Keys
from aggregator.adapters.redis.progress import RedisProgress
from aggregator.adapters.redis.schedule import RedisSchedule
from aggregator.adapters.redis.sessions import RedisSessions
from aggregator.adapters.redis.traces import NOTHING, RedisTraces
from aggregator.core.errors import CorruptState, FatalError
from aggregator.core.model import Partition
from aggregator.core.state import stamp_of
from aggregator.core.summary import summary
from aggregator.ports import Applied, ClaimOutcome, SessionPut, StoredTrace, TraceWrite, Transition
from aggregator.telemetry import CorruptKind
from tests import ran_on
from tests.contract.builders import T0_MS, ref, trace_id, trace_put
from tests.redis_servers import Cluster, RunningServers, assert_every_key_lives_or_expires, redis_servers_available

KEYS: Final = Keys(closing_shards=4)
S, OTHER = ref("s-1"), ref("s-2")
TTL_MS: Final = 50_000
DUE_MS: Final = T0_MS + 10


@dataclass(kw_only=True)
class Redis:
    """The stores on one real server, a client past them, and what was counted."""

    traces: RedisTraces
    sessions: RedisSessions
    schedule: RedisSchedule
    progress: RedisProgress
    client: Any
    counted: Counter[CorruptKind] = field(default_factory=Counter)

    def kept(self, key: str) -> None:
        """What was at `key` is kept aside, and expires."""
        assert 0 < self.client.pttl(KEYS.corrupt(key)) <= TTL_MS


def stores(connections: Connections, client: Any) -> Redis:
    counted: Counter[CorruptKind] = Counter()

    def count(kind: CorruptKind) -> None:
        counted[kind] += 1

    corrupt = CorruptKeys(connections, KEYS, ttl_ms=TTL_MS, count=count)
    return Redis(
        traces=RedisTraces(connections, KEYS, corrupt),
        sessions=RedisSessions(
            connections,
            KEYS,
            idle_timeout_ms=10,
            max_duration_ms=1000,
            retention_ms=100_000,
            max_session_traces=1000,
            trace_life_ms=100_000,
            corrupt=corrupt,
        ),
        schedule=RedisSchedule(connections, KEYS, corrupt),
        progress=RedisProgress(connections, KEYS, corrupt),
        client=client,
        counted=counted,
    )


@pytest.fixture(params=[*sorted(redis_servers_available()), "cluster"])
async def store(request: pytest.FixtureRequest, running_servers: RunningServers) -> AsyncIterator[Redis]:
    clustered = request.param == "cluster"
    place = running_servers.cluster() if clustered else running_servers.server(request.param)
    ran_on.note("redis_cluster" if clustered else "redis_server", place, request)
    connections = connect(place.url, cluster=clustered)
    with place.client() as client:
        yield stores(connections, client)
        await connections.close()
        assert_every_key_lives_or_expires(client)


def write(number: int, state: bytes = b"state", expected: bytes = b"") -> TraceWrite:
    return TraceWrite(trace_id(number), expected, stamp_of(1 << 32, state), state, 60_000)


Tamper = Callable[[Any, str], object]
TRACES: Final[dict[str, Tamper]] = {
    "no blank": lambda client, key: client.set(key, "nonsense", px=60_000),
    "a blank": lambda client, key: client.set(key, " ", px=60_000),
    "no stamp": lambda client, key: client.set(key, "non sense", px=60_000),
    "a stamp beyond all numbers": lambda client, key: client.set(key, "9" * 400 + ".0.00000000 state", px=60_000),
    "cut short": lambda client, key: client.set(key, client.get(key)[:-2], px=60_000),
    "a byte changed": lambda client, key: client.setrange(key, 14, "X"),
    "a hash": lambda client, key: (client.delete(key), client.hset(key, "s", "x"), client.pexpire(key, 60_000)),
}


@pytest.mark.parametrize("tamper", TRACES.values(), ids=TRACES)
@pytest.mark.parametrize("kept", [False, True], ids=["for the first time", "again"])
async def test_a_broken_trace_state_is_set_aside_alone(store: Redis, tamper: Tamper, kept: bool) -> None:
    key = KEYS.trace(trace_id(1))
    if kept:  # from the last time
        store.client.set(KEYS.corrupt(key), "older", px=60_000)
    assert await store.traces.store([write(1), write(2)]) == [None, None]
    tamper(store.client, key)
    found = await store.traces.store([write(1, b"more"), write(2, b"more", write(2).stamp), write(3)])
    assert found in ([None, None, None], [NOTHING, None, None])
    if found[0] is not None:
        assert await store.traces.store([write(1, b"more")]) == [None]
    assert await store.traces.load([trace_id(1), trace_id(2)]) == [
        StoredTrace(write(1, b"more").stamp, b"more"),
        StoredTrace(write(2, b"more").stamp, b"more"),
    ]
    assert store.counted == {CorruptKind.TRACE: 1}
    store.kept(key)


@pytest.mark.parametrize("tamper", TRACES.values(), ids=TRACES)
async def test_a_broken_trace_state_is_no_state_to_whoever_reads_it(store: Redis, tamper: Tamper) -> None:
    assert await store.traces.store([write(1), write(2)]) == [None, None]
    tamper(store.client, KEYS.trace(trace_id(1)))
    assert await store.traces.load([trace_id(1), trace_id(2)]) == [NOTHING, StoredTrace(write(2).stamp, b"state")]
    assert store.counted == {CorruptKind.TRACE: 1}


async def test_what_another_worker_has_mended_meanwhile_is_left_alone(store: Redis) -> None:
    """Two workers meet a broken session; the second one must not set aside what the first has put since."""
    keys = KEYS.session(S)
    store.client.set(keys.session, "broken")
    calls = store.sessions._connections
    original = calls.call
    held: list[int] = []

    async def late(*arguments: Any, **options: Any) -> Any:
        replies = await original(*arguments, **options)
        if not held:
            held.append(1)
            await store.sessions.put([SessionPut(S, [trace_put(1)])])  # the other worker, in between
        return replies

    calls.call = late  # type: ignore[method-assign]
    await store.sessions.put([SessionPut(S, [trace_put(2)])])
    assert store.client.hget(keys.session, "trace_count") == b"2"
    assert store.counted == {CorruptKind.SESSION: 1}


def hash_field(part: int, name: str, value: str) -> Tamper:
    return lambda client, session: client.hset(KEYS.session(S)[part], name, value)


def without(part: int) -> Tamper:
    def tamper(client: Any, session: str) -> None:
        client.delete(KEYS.session(S)[part])
        client.set(KEYS.session(S)[part], "a text")

    return tamper


def entry_changed(change: Callable[[str], str]) -> Tamper:
    def tamper(client: Any, session: str) -> None:
        for trace, entry in client.hgetall(KEYS.session(S).traces).items():
            client.hset(KEYS.session(S).traces, trace, change(entry.decode()))

    return tamper


# Those that a put of another trace has no reason to read it need not notice.
AT_ONCE: Final[dict[str, Tamper]] = {
    "state of no JSON": hash_field(0, "_s", "nonsense"),
    "state of another shape": hash_field(0, "_s", "7"),
    "state of words": hash_field(0, "_s", '["a","b","c","d","e","f","g","h","i","j"]'),
    "a count that is no number": hash_field(0, "span_count", "many"),
    "the session is a text": without(0),
    "the traces are a text": without(1),
    "the models are a text": without(2),
}
WHEN_READ: Final[dict[str, Tamper]] = {
    **AT_ONCE,
    "an entry of no JSON": entry_changed(lambda entry: entry[: len(entry) // 2]),
    "an entry nested without end": entry_changed(lambda entry: "[" * 100_000),
    "an entry of another shape": entry_changed(lambda entry: "{}"),
    "an entry of words": entry_changed(lambda entry: entry.replace('"_":[', '"_":["x",', 1)),
    "an entry without tokens": entry_changed(lambda entry: entry.replace("tokens", "tikens")),
    "a model that is no number": hash_field(2, "gpt-4o:calls", "one"),
    "a model of bytes": lambda client, session: client.hset(KEYS.session(S).models, b"\xff:calls", 1),
    "a model's unknown figure": hash_field(2, "gpt-4o:weight", "1"),
}


@pytest.mark.parametrize("tamper", AT_ONCE.values(), ids=AT_ONCE)
async def test_a_broken_session_is_set_aside_by_the_put_that_meets_it(store: Redis, tamper: Tamper) -> None:
    await store.sessions.put([SessionPut(S, [trace_put(1)]), SessionPut(OTHER, [trace_put(3)])])
    tamper(store.client, KEYS.session(S).session)
    models = {"gpt-4o": [1, 100, 20, 0, 0, 5]}
    first, other = await store.sessions.put(
        [SessionPut(S, [trace_put(2, models=models)]), SessionPut(OTHER, [trace_put(4)])]
    )
    assert first is not None
    assert first.transition is Transition.OPENED
    assert other is None
    assert store.client.hget(KEYS.session(S).session, "trace_count") == b"1"
    assert store.client.hget(KEYS.session(OTHER).session, "trace_count") == b"2"
    assert store.counted == {CorruptKind.SESSION: 1}
    claims = await store.sessions.claim([S, OTHER], watermark_ms=DUE_MS)
    assert [claim.outcome for claim in claims] == [ClaimOutcome.CLAIMED] * 2
    # As after a replay: what the broken session knew is put again.
    await store.sessions.put([SessionPut(S, [trace_put(1)])])
    assert store.client.hget(KEYS.session(S).session, "trace_count") == b"2"


async def test_all_pieces_of_a_large_put_go_into_the_new_session(store: Redis) -> None:
    traces = [trace_put(number) for number in range(1, 251)]
    await store.sessions.put([SessionPut(S, [trace_put(1)])])
    # Only the piece with the trace of the broken entry meets it; the others have been applied to the broken session.
    store.client.hset(KEYS.session(S).traces, trace_id(1).hex(), "[")
    await store.sessions.put([SessionPut(S, [*traces[1:], trace_put(1, 9 * 2**32)])])
    assert store.client.hget(KEYS.session(S).session, "trace_count") == b"250"
    assert store.counted == {CorruptKind.SESSION: 1}


@pytest.mark.parametrize("tamper", WHEN_READ.values(), ids=WHEN_READ)
async def test_a_broken_session_is_set_aside_by_the_claim_and_the_others_close(store: Redis, tamper: Tamper) -> None:
    await store.sessions.put([SessionPut(S, [trace_put(1)]), SessionPut(OTHER, [trace_put(3)])])
    tamper(store.client, KEYS.session(S).session)
    broken, sound = await store.sessions.claim([S, OTHER], watermark_ms=DUE_MS)
    assert broken.outcome is ClaimOutcome.GONE
    assert sound.rollup is not None
    assert summary(sound.rollup)
    assert await store.sessions.settle([(S, 1), (OTHER, 1)]) == [False, True]
    assert store.counted == {CorruptKind.SESSION: 1}
    for key in KEYS.session(S):
        assert not store.client.exists(key)
        store.kept(key)
    (reply,) = await store.sessions.put([SessionPut(S, [trace_put(1)])])
    assert reply is not None
    assert reply.transition is Transition.OPENED


async def test_a_session_that_breaks_between_claim_and_settle_holds_nothing_up(store: Redis) -> None:
    await store.sessions.put([SessionPut(S, [trace_put(1)]), SessionPut(OTHER, [trace_put(3)])])
    await store.sessions.claim([S, OTHER], watermark_ms=DUE_MS)
    store.client.hset(KEYS.session(S).session, "_s", "nonsense")
    assert await store.sessions.settle([(S, 1), (OTHER, 1)]) == [False, True]
    assert store.counted == {CorruptKind.SESSION: 1}


async def test_an_entry_of_the_index_that_names_no_session_is_removed(store: Redis) -> None:
    shard = KEYS.shard(S)
    await store.schedule.add([(S, 5)])
    store.client.zadd(KEYS.due(shard), {"nonsense": 1, b"\xff/\xff": 2, "a/b/c": 3, "p/forever": "-inf"})
    (entry,) = await store.schedule.due([shard], watermark_ms=9, limit=10)
    assert entry.ref == S
    assert store.client.zrange(KEYS.due(shard), 0, -1) == [KEYS.due_member(S).encode()]
    assert store.counted == {CorruptKind.DUE: 4}


async def test_an_index_of_another_type_is_set_aside_and_the_log_read_again(store: Redis) -> None:
    partition = Partition("t", 0)
    assert await store.progress.write({partition: Applied(None, 7, 1)}) == {}
    shard = KEYS.shard(S)
    for use in (
        lambda: store.schedule.add([(S, 5)]),
        lambda: store.schedule.count([shard]),
        lambda: store.schedule.due([shard], watermark_ms=9, limit=10),
    ):
        store.client.set(KEYS.due(shard), "x")
        await use()
        store.kept(KEYS.due(shard))
        assert store.client.type(KEYS.due(shard)) != b"string"
        assert await store.progress.write({partition: Applied(7, 8, 2)}) == {partition: None}  # lost: read again
        assert await store.progress.write({partition: Applied(None, 7, 1)}) == {}
    assert store.counted == {CorruptKind.DUE: 3}


async def test_broken_progress_is_progress_lost(store: Redis) -> None:
    one, two = Partition("t", 0), Partition("t", 1)
    assert await store.progress.write({one: Applied(None, 7, 10), two: Applied(None, 8, 20)}) == {}
    store.client.hset(KEYS.progress, "t/0", "soon")
    assert await store.progress.write({one: Applied(7, 9, 30), two: Applied(8, 9, 30)}) == {one: None}
    assert await store.progress.read([one, two]) == {one: (None, 10), two: (9, 30)}
    store.client.hset(KEYS.progress, "t/1", "soon")
    assert await store.progress.read([one, two]) == {one: (None, 10), two: (None, 30)}
    assert store.counted == {CorruptKind.PROGRESS: 2}
    store.client.set(KEYS.progress, "x")
    assert await store.progress.write({two: Applied(9, 10, 40)}) == {two: None}
    assert store.counted == {CorruptKind.PROGRESS: 3}
    assert await store.progress.write({two: Applied(None, 10, 40)}) == {}


async def test_what_a_broken_witness_of_the_progress_knew_is_lost(redis_cluster: Cluster) -> None:
    connections = connect(redis_cluster.url, cluster=True)
    one, two = Partition("t", 0), Partition("t", 1)
    tampers: list[Tamper] = [
        lambda client, key: client.hset(key, "t/0", "soon"),
        lambda client, key: client.set(key, "x"),
    ]
    with redis_cluster.client() as client:
        store = stores(connections, client)
        for tamper in tampers:
            client.flushall()
            assert await store.progress.write({one: Applied(None, 7, 10), two: Applied(None, 8, 20)}) == {}
            for number, witness in enumerate(KEYS.witnesses()[:2]):
                tamper(client, witness)
                found = await store.progress.write({one: Applied(7 + number, 9, 30)})
                assert found == {one: None}
                assert (await store.progress.read([one]))[one][0] is None
                assert await store.progress.write({one: Applied(None, 8 + number, 30)}) == {}
        assert store.counted == {CorruptKind.PROGRESS: 4}
    await connections.close()


async def test_broken_watermarks_hold_closing_until_they_are_written_anew(store: Redis) -> None:
    one = Partition("t", 0)
    assert await store.progress.write({one: Applied(None, 7, 10)}) == {}
    store.client.hset(KEYS.watermarks, "t/0", "soon")
    assert await store.progress.watermarks([one]) is None
    assert await store.progress.write({one: Applied(7, 8, 20)}) == {}
    assert await store.progress.watermarks([one]) == 20
    store.client.set(KEYS.watermarks, "x")
    assert await store.progress.write({one: Applied(8, 9, 30)}) == {}
    assert await store.progress.watermarks([one]) is None
    assert await store.progress.write({one: Applied(9, 10, 40)}) == {}
    assert await store.progress.watermarks([one]) == 40
    assert store.counted == {CorruptKind.WATERMARKS: 2}


async def test_too_many_broken_values_stop_the_process(store: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corrupt_module, "MOST_CORRUPT", 3)
    for number in range(5):
        store.client.set(KEYS.trace(trace_id(number)), "nonsense", px=60_000)
    with pytest.raises(FatalError, match=r"4 values in Redis could not be read.*agg:trace:"):
        await store.traces.store([write(number) for number in range(5)])


async def test_what_is_broken_again_and_again_ends_in_a_clear_error(store: Redis) -> None:
    """Something else writes that key all the time: no loop, and the key is named."""

    async def always(_: object) -> list[Any]:
        store.client.set(KEYS.trace(trace_id(1)), "nonsense", px=60_000)
        return [CorruptState("agg:trace:1 is broken")]

    repaired = store.traces._corrupt.repaired
    with pytest.raises(CorruptState, match="agg:trace:1"):
        await repaired(CorruptKind.TRACE, [(KEYS.trace(trace_id(1)),)], always)
