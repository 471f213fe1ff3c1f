"""The indexes of sessions: what `write`, `due` and `look` leave in them."""

from __future__ import annotations

import pytest

from aggregator.adapters.redis.index import LOOK_EVERY_MS, RedisSessionIndex
from aggregator.adapters.redis.reindex import reindex
from aggregator.core.model import SessionRef
from aggregator.ports import IndexOrder, LookedAt, SessionPut
from tests.contract.builders import T0_MS, T0_US, gone, ref, trace_put
from tests.contract.conftest import Stores
from tests.fake_index import FakeSessionIndex, Listed
from tests.indexes import assert_indexes_show_sessions
from tests.redis_servers import redis_servers_available

ALL = range(8)
on_servers = pytest.mark.parametrize("stores", [*sorted(redis_servers_available()), "cluster"], indirect=True)
V = 2**32
ODD = SessionRef("odd/{p}", "odd {%}\n😀")


async def put(stores: Stores, who: SessionRef, number: int = 1, version: int = V, *, user: str = "ada") -> None:
    """A trace of eight spans, one of them wrong."""
    counts = {"span_count": 8, "error_count": 1, "prompt_tokens": 100, "completion_tokens": 20, "cost_rest_nano": 7}
    users = [(T0_US, "ab" * 8, user)] if user else []
    await stores.sessions.put([SessionPut(who, [trace_put(number, version, counts=counts, users=users)])])


def listed(stores: Stores, who: SessionRef) -> Listed:
    """What the indexes show of one session."""
    if isinstance(stores.index, FakeSessionIndex):
        return stores.index.listed.get(who, {})
    member = stores.keys.due_member(who).partition("/")[2]
    found = {order: stores.client.zscore(stores.keys.index(who.project, order), member) for order in IndexOrder}
    return {order: score for order, score in found.items() if score is not None and order is not IndexOrder.CHANGED}


def is_under(stores: Stores, who: SessionRef, user: str) -> bool:
    if isinstance(stores.index, FakeSessionIndex):
        return (who, user) in stores.index.users
    member = stores.keys.due_member(who).partition("/")[2]
    return stores.client.zscore(stores.keys.user(who.project, user), member) is not None


def changed_ms(stores: Stores, who: SessionRef) -> float:
    if isinstance(stores.index, FakeSessionIndex):
        return stores.index.changed_ms[who]
    member = stores.keys.due_member(who).partition("/")[2]
    return float(stores.client.zscore(stores.keys.index(who.project, IndexOrder.CHANGED), member))


def assert_whole(stores: Stores) -> None:
    """Law 6 and, where there are keys, that the indexes are what the hashes say."""
    stores.assert_lives_or_expires()
    if stores.client is not None:
        assert_indexes_show_sessions(stores.client, stores.keys)


async def test_a_session_is_shown_with_its_figures(stores: Stores) -> None:
    await put(stores, ODD)
    await put(stores, ref("b"), user="")
    await stores.index.write([ODD, ref("b"), ref("never was")], now_ms=T0_MS + 5)
    assert (
        listed(stores, ODD)
        == listed(stores, ref("b"))
        == {
            IndexOrder.RECENT: T0_MS + 2000,
            IndexOrder.DURATION: 2000.0,
            IndexOrder.TOKENS: 120,
            IndexOrder.COST: 7,
            IndexOrder.ERRORS: 1,
            IndexOrder.TRACES: 1,
        }
    )
    assert is_under(stores, ODD, "ada")
    assert not is_under(stores, ref("b"), "ada")
    assert listed(stores, ref("never was")) == {}
    assert changed_ms(stores, ODD) == T0_MS + 5
    assert_whole(stores)


async def test_times_that_are_not_known_are_replaced(stores: Stores) -> None:
    await stores.sessions.put([SessionPut(ref(), [trace_put(started_us=0, ended_us=0, changed_ms=T0_MS + 9)])])
    await stores.index.write([ref()], now_ms=T0_MS)
    assert listed(stores, ref())[IndexOrder.RECENT] == T0_MS + 9
    assert listed(stores, ref())[IndexOrder.DURATION] == 0


async def test_a_session_that_all_traces_left_is_shown_no_longer(stores: Stores) -> None:
    await put(stores, ref())
    await stores.index.write([ref()], now_ms=T0_MS)
    await stores.sessions.put([SessionPut(ref(), [gone(1, 2 * V)])])
    await stores.index.write([ref()], now_ms=T0_MS + 1)
    assert listed(stores, ref()) == {}
    for entry in await stores.index.due(ALL, now_ms=T0_MS + LOOK_EVERY_MS, limit=10):
        await stores.index.look([entry], now_ms=T0_MS + LOOK_EVERY_MS)
    assert not is_under(stores, ref(), "ada")
    assert await stores.index.due(ALL, now_ms=T0_MS + 10 * LOOK_EVERY_MS, limit=10) == []
    assert_whole(stores)


async def test_another_user_takes_the_place_of_the_former_one_at_the_next_look(stores: Stores) -> None:
    await put(stores, ref(), user="eve")
    await stores.index.write([ref()], now_ms=T0_MS)
    earlier = [(T0_US - 5, "ab" * 8, "ada")]
    await stores.sessions.put([SessionPut(ref(), [trace_put(2, V, users=earlier)])])
    await stores.index.write([ref()], now_ms=T0_MS + 1)
    assert await stores.index.due(ALL, now_ms=T0_MS + LOOK_EVERY_MS - 1, limit=10) == []
    entries = await stores.index.due(ALL, now_ms=T0_MS + LOOK_EVERY_MS, limit=10)
    assert entries == [LookedAt(ref(), "eve")]
    await stores.index.look(entries, now_ms=T0_MS + LOOK_EVERY_MS)
    assert is_under(stores, ref(), "ada")
    assert not is_under(stores, ref(), "eve")
    assert_whole(stores)


async def test_a_look_mends_the_figures_and_is_no_change(stores: Stores) -> None:
    await put(stores, ref())
    await stores.index.write([ref()], now_ms=T0_MS)
    await put(stores, ref(), number=2)  # and the worker dies before it writes the index
    now_ms = T0_MS + LOOK_EVERY_MS
    entries = await stores.index.due(ALL, now_ms=now_ms, limit=10)
    await stores.index.look(entries, now_ms=now_ms)
    assert listed(stores, ref())[IndexOrder.TRACES] == 2
    assert changed_ms(stores, ref()) == T0_MS
    assert await stores.index.due(ALL, now_ms=now_ms + LOOK_EVERY_MS - 1, limit=10) == []
    assert_whole(stores)


async def test_due_keeps_to_its_shards_and_its_limit(stores: Stores) -> None:
    refs = [ref(f"s-{number}") for number in range(40)]
    for who in refs:
        await put(stores, who)
    await stores.index.write(refs, now_ms=T0_MS)
    found: set[LookedAt] = set()
    for shard in ALL:
        entries = await stores.index.due([shard], now_ms=T0_MS + LOOK_EVERY_MS, limit=100)
        assert {stores.keys.shard(entry.ref) for entry in entries} <= {shard}
        found.update(entries)
    assert found == {LookedAt(who, "ada") for who in refs}
    assert 0 < len(await stores.index.due(ALL, now_ms=T0_MS + LOOK_EVERY_MS, limit=8)) <= 8
    assert await stores.index.due([], now_ms=T0_MS + LOOK_EVERY_MS, limit=8) == []


async def test_open_sessions_are_those_of_the_deadline_index(stores: Stores) -> None:
    await stores.schedule.add([(ref("a"), T0_MS), (ODD, T0_MS)])
    found = [who for shard in ALL for who in await stores.index.open_sessions(shard)]
    assert sorted(found) == sorted([ref("a"), ODD])


@on_servers
async def test_what_expires_is_looked_at_when_it_is_gone(stores: Stores) -> None:
    """With real keys: a closed session lives for its retention, and its look comes then."""
    await put(stores, ref())
    stores.client.pexpire(stores.keys.session(ref()).session, 60_000)
    for key in stores.keys.session(ref())[1:]:
        stores.client.pexpire(key, 60_000)
    await stores.index.write([ref()], now_ms=T0_MS)
    assert await stores.index.due(ALL, now_ms=T0_MS + 50_000, limit=10) == []
    entries = await stores.index.due(ALL, now_ms=T0_MS + 60_010, limit=10)
    assert entries == [LookedAt(ref(), "ada")]
    stores.client.delete(*stores.keys.session(ref()))
    await stores.index.look(entries, now_ms=T0_MS + 60_010)
    assert not list(stores.client.scan_iter("agg:index:*")) + list(stores.client.scan_iter("agg:user:*"))
    assert_whole(stores)


@on_servers
async def test_reindexing_makes_them_anew_and_takes_out_what_is_wrong(stores: Stores) -> None:
    assert isinstance(stores.index, RedisSessionIndex)
    refs = [ref(f"s-{number}") for number in range(30)] + [ODD]
    for who in refs:
        await put(stores, who)
    await stores.index.write([*refs[:10], ODD], now_ms=T0_MS)
    keys, client = stores.keys, stores.client
    client.zadd(keys.index("demo", IndexOrder.COST), {"s-1": 99, "no%20such": 1})
    client.zadd(keys.user("demo", "ada"), {"no%20such": 1})
    client.zadd(keys.user("demo", "eve"), {"s-2": 1})
    client.pexpire(keys.user("demo", "eve"), 100_000)
    client.delete(keys.index("demo", IndexOrder.TOKENS))
    client.set("agg:session:stray", "")
    assert stores.connections is not None
    assert await reindex(stores.connections, keys, stores.index, now_ms=T0_MS) == len(refs)
    client.delete("agg:session:stray")
    assert_whole(stores)


@on_servers
async def test_a_session_that_comes_back_while_it_is_taken_out_is_put_back(stores: Stores) -> None:
    """Another worker puts it and writes it here between our reading and our removing."""
    assert isinstance(stores.index, RedisSessionIndex)
    index = stores.index
    await put(stores, ref())
    await index.write([ref()], now_ms=T0_MS)
    stores.client.delete(*stores.keys.session(ref()))
    read, other = index._read, RedisSessionIndex(index._connections, stores.keys, retention_ms=1)

    async def read_and_be_overtaken(refs: list[SessionRef]) -> object:
        found = await read(refs)
        if found == [None]:
            await put(stores, ref())
            await other.write([ref()], now_ms=T0_MS + 1)
        return found

    index._read = read_and_be_overtaken  # type: ignore[method-assign, assignment]
    await index.look([LookedAt(ref(), "ada")], now_ms=T0_MS + 2)
    index._read = read  # type: ignore[method-assign]
    assert_whole(stores)


@on_servers
@pytest.mark.parametrize("broken", [{"trace_count": "many"}, {"total_tokens": "nan"}, {"cost_nano_usd": "1e999"}])
async def test_a_hash_that_cannot_be_read_is_in_no_index_and_keeps_no_other_one_out(
    stores: Stores, broken: dict[str, str]
) -> None:
    await put(stores, ref("s-2"))
    await put(stores, ref())
    key = stores.keys.session(ref()).session
    stores.client.hset(key, mapping=broken)
    await stores.index.write([ref(), ref("s-2")], now_ms=T0_MS)
    recent = stores.keys.index("demo", IndexOrder.RECENT)
    assert stores.client.zrange(recent, 0, -1) == [b"s-2"]
    assert not list(stores.client.scan_iter("agg:corrupt:*"))
    stores.client.delete(*stores.keys.session(ref()))


@on_servers
async def test_an_index_of_another_type_is_set_aside_and_made_anew(stores: Stores) -> None:
    await put(stores, ref())
    await stores.index.write([ref()], now_ms=T0_MS)
    for key in (
        stores.keys.index("demo", IndexOrder.RECENT),
        stores.keys.indexed(stores.keys.shard(ref())),
        stores.keys.projects,
    ):
        stores.client.delete(key)
        stores.client.lpush(key, "x")
        await stores.index.write([ref()], now_ms=T0_MS)
        assert stores.client.type(key) == b"zset"
        assert stores.client.pttl(stores.keys.corrupt(key)) > 0
        stores.client.delete(stores.keys.corrupt(key))
    assert_whole(stores)
