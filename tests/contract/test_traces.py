"""Trace states: compare-and-set of many."""

from __future__ import annotations

from aggregator.ports import StoredTrace, TraceWrite
from tests.contract.builders import trace_id
from tests.contract.conftest import Stores

NOTHING = StoredTrace(0, b"")
TTL_MS = 60_000


def write(number: int, expected: int, version: int, state: bytes = b"state") -> TraceWrite:
    return TraceWrite(trace_id(number), expected, version, state, TTL_MS)


async def test_stores_what_is_expected_and_gives_back_what_stands_there(stores: Stores) -> None:
    big = 9_007_199_254_740_991
    assert await stores.traces.store([]) == []
    assert await stores.traces.store([write(1, 0, 5), write(2, 0, big, b"\x00 \r\n\xff")]) == [None, None]
    assert await stores.traces.store([write(1, 5, 6, b"new"), write(2, 7, 8), write(3, 9, 10)]) == [
        None,
        StoredTrace(big, b"\x00 \r\n\xff"),
        NOTHING,
    ]
    loaded = await stores.traces.load([trace_id(1), trace_id(2), trace_id(3)])
    assert loaded == [StoredTrace(6, b"new"), StoredTrace(big, b"\x00 \r\n\xff"), NOTHING]


async def test_a_repeat_of_the_same_write_is_stored_already(stores: Stores) -> None:
    assert await stores.traces.store([write(1, 0, 5)]) == [None]
    assert await stores.traces.store([write(1, 0, 5)]) == [None]
    assert await stores.traces.store([write(1, 0, 5, b"other")]) == [StoredTrace(5, b"state")]


async def test_a_version_that_begins_like_another_is_another(stores: Stores) -> None:
    assert await stores.traces.store([write(1, 0, 55)]) == [None]
    assert await stores.traces.store([write(1, 5, 6)]) == [StoredTrace(55, b"state")]


async def test_more_than_fits_in_one_call(stores: Stores) -> None:
    writes = [write(number, 0, number + 1, b"%d" % number) for number in range(350)]
    assert await stores.traces.store(writes) == [None] * 350
    loaded = await stores.traces.load([one.trace_id for one in writes])
    assert loaded == [StoredTrace(one.version, one.state) for one in writes]


async def test_a_state_of_several_calls_in_size(stores: Stores) -> None:
    states = [b"x" * 400_000, b"y" * 10, b"z" * 300_000]
    writes = [write(number, 0, 1, state) for number, state in enumerate(states)]
    assert await stores.traces.store(writes) == [None] * 3
    assert [found.state for found in await stores.traces.load([one.trace_id for one in writes])] == states
