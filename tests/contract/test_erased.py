"""What stands in the way of what comes late for a session that was erased."""

from __future__ import annotations

from aggregator.adapters.redis.erasing import RedisErasing
from aggregator.adapters.redis.index import RedisSessionIndex
from aggregator.core.model import SessionRef
from aggregator.core.state import ERASED_STAMP
from aggregator.ports import PutOutcome, PutReply, SessionPut, StoredTrace, Transition
from tests.contract.builders import T0_MS, gone, ref, trace_id, trace_put
from tests.contract.conftest import RETENTION_MS, Stores
from tests.contract.test_traces import NOTHING, held, write
from tests.fakes import FakeSessionStore

ERASED = StoredTrace(ERASED_STAMP, b"")


async def erase(stores: Stores, who: SessionRef) -> None:
    if isinstance(stores.sessions, FakeSessionStore):
        stores.sessions.erase(who)
        return
    assert stores.connections is not None
    index = RedisSessionIndex(stores.connections, stores.keys, retention_ms=RETENTION_MS)
    await RedisErasing(stores.connections, stores.keys, index).erase([who], hold_ms=RETENTION_MS, now_ms=T0_MS)


async def test_nothing_of_an_erased_session_is_stored(stores: Stores) -> None:
    """Neither of a trace that it had nor of a new one, nor the tombstone of one that leaves it."""
    mine, other = ref("mine"), ref("other")
    await stores.sessions.put([SessionPut(mine, [trace_put(1)]), SessionPut(other, [trace_put(2)])])
    await erase(stores, mine)
    late = [trace_put(1, 9 * 2**32), trace_put(3), gone(4, 5)]
    replies = await stores.sessions.put([SessionPut(mine, late), SessionPut(other, [trace_put(2, 9 * 2**32)])])
    assert replies == [PutReply([PutOutcome.ERASED] * 3, [0] * 3, Transition.NONE, 0), None]
    assert stores.session_hash(mine) == {}
    assert stores.model_fields(mine) == {}
    assert stores.session_hash(other)["trace_count"] == "1"


async def test_a_session_that_never_was_can_be_kept_away(stores: Stores) -> None:
    await erase(stores, ref())
    (reply,) = await stores.sessions.put([SessionPut(ref(), [gone(1, 5)])])
    assert reply is not None
    assert reply.outcomes == [PutOutcome.ERASED]
    assert stores.session_hash(ref()) == {}


async def test_a_trace_that_was_erased_stays_so_whatever_is_expected_of_it(stores: Stores) -> None:
    await stores.traces.store([write(1, NOTHING, held(5))])
    assert await stores.traces.store([write(1, held(5), ERASED)]) == [None]
    for expected in (NOTHING, held(5), held(6)):
        assert await stores.traces.store([write(1, expected, held(7))]) == [ERASED]
    assert await stores.traces.store([write(1, NOTHING, ERASED)]) == [None]
    assert await stores.traces.load([trace_id(1)]) == [NOTHING]


async def test_entries_of_the_deadline_index_are_removed(stores: Stores) -> None:
    await stores.schedule.add([(ref("a"), T0_MS), (ref("b"), T0_MS)])
    await stores.schedule.remove([ref("a"), ref("c")])
    due = await stores.schedule.due(range(8), watermark_ms=T0_MS, limit=9)
    assert [entry.ref for entry in due] == [ref("b")]
    await stores.schedule.remove([ref("b")])
