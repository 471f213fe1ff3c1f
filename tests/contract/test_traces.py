"""Trace states: compare-and-set of many."""

from __future__ import annotations

from aggregator.core.state import stamp_of
from aggregator.ports import StoredTrace, TraceWrite
from tests.contract.builders import trace_id
from tests.contract.conftest import Stores

NOTHING = StoredTrace(b"", b"")
TTL_MS = 60_000


def held(version: int, state: bytes = b"state") -> StoredTrace:
    """A state under its stamp."""
    return StoredTrace(stamp_of(version, state), state)


def write(number: int, expected: StoredTrace, new: StoredTrace) -> TraceWrite:
    return TraceWrite(trace_id(number), expected.stamp, new.stamp, new.state, TTL_MS)


async def test_stores_what_is_expected_and_gives_back_what_stands_there(stores: Stores) -> None:
    big = held(9_007_199_254_740_991, b"\x00 \r\n\xff")
    assert await stores.traces.store([]) == []
    assert await stores.traces.store([write(1, NOTHING, held(5)), write(2, NOTHING, big)]) == [None, None]
    assert await stores.traces.store(
        [write(1, held(5), held(6, b"new")), write(2, held(7), held(8)), write(3, held(9), held(10))]
    ) == [None, big, NOTHING]
    loaded = await stores.traces.load([trace_id(1), trace_id(2), trace_id(3)])
    assert loaded == [held(6, b"new"), big, NOTHING]


async def test_nothing_is_expected_and_something_is_there(stores: Stores) -> None:
    assert await stores.traces.store([write(1, NOTHING, held(5))]) == [None]
    assert await stores.traces.store([write(1, NOTHING, held(6))]) == [held(5)]


async def test_a_repeat_of_the_same_write_is_stored_already(stores: Stores) -> None:
    assert await stores.traces.store([write(1, NOTHING, held(5))]) == [None]
    assert await stores.traces.store([write(1, NOTHING, held(5))]) == [None]
    assert await stores.traces.store([write(1, NOTHING, held(5, b"other"))]) == [held(5)]


async def test_an_equal_version_with_another_content_is_a_conflict(stores: Stores) -> None:
    """Two workers get there by different spans where Redis has lost states: neither may overwrite the other's."""
    ours, theirs = held(2 << 32, b"ours"), held(2 << 32, b"theirs")
    assert await stores.traces.store([write(1, NOTHING, theirs)]) == [None]
    assert await stores.traces.store([write(1, ours, held(3 << 32))]) == [theirs]
    assert await stores.traces.load([trace_id(1)]) == [theirs]


async def test_a_stamp_that_begins_like_another_is_another(stores: Stores) -> None:
    assert await stores.traces.store([write(1, NOTHING, held(5))]) == [None]
    shorter = StoredTrace(held(5).stamp[:-1], b"")
    assert await stores.traces.store([write(1, shorter, held(6))]) == [held(5)]


async def test_more_than_fits_in_one_call(stores: Stores) -> None:
    states = [held(number + 1, b"%d" % number) for number in range(350)]
    assert await stores.traces.store([write(number, NOTHING, one) for number, one in enumerate(states)]) == [None] * 350
    assert await stores.traces.load([trace_id(number) for number in range(350)]) == states


async def test_a_state_of_several_calls_in_size(stores: Stores) -> None:
    states = [held(1, b"x" * 400_000), held(1, b"y" * 10), held(1, b"z" * 300_000)]
    assert await stores.traces.store([write(number, NOTHING, one) for number, one in enumerate(states)]) == [None] * 3
    assert await stores.traces.load([trace_id(number) for number in range(3)]) == states
