"""Any order, any duplicates, any interleaving: a real store shows what the fake sums from scratch."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.adapters.redis.connections import connect
from aggregator.adapters.redis.keys import Keys
from aggregator.core.model import TracePut
from aggregator.ports import ClaimOutcome, SessionPut
from tests.contract.builders import T0_MS, T0_US, gone, plain_rollup, ref, trace_put
from tests.contract.conftest import IDLE_MS, MAX_TRACES, RETENTION_MS, Stores, fake_stores, redis_stores
from tests.redis_servers import RunningServers, redis_servers_available

REFS = [ref("a"), ref("b"), ref("a", "other {%}")]

sizes = st.one_of(st.integers(0, 3), st.integers(0, 10**12))
nanos = st.integers(0, 999_999_999)
names = st.sampled_from(["gpt-4o", "m:1", "é{}", "unknown"])
times = st.one_of(st.just(0), st.integers(T0_US, T0_US + 10**7))
uses = st.lists(
    st.tuples(
        times, st.sampled_from(["0000000000000001", "00000000000000ab"]), st.sampled_from(["ann", "bob", "é 😀"])
    ),
    max_size=3,
    unique_by=lambda use: use[2],
)


@st.composite
def live_puts(draw: st.DrawFn, number: int, version: int) -> TracePut:
    counts = {
        "span_count": draw(sizes),
        "prompt_tokens": draw(sizes),
        "completion_tokens": draw(sizes),
        "reported_costs": draw(st.integers(0, 2)),
        "priced_costs": draw(st.integers(0, 2)),
        "truncated_traces": draw(st.integers(0, 1)),
        "missing_root_traces": draw(st.integers(0, 1)),
        "cost_whole_usd": draw(st.integers(0, 10**6)),
        "cost_rest_nano": draw(nanos),
    }
    usd = st.integers(0, 10**6)
    unpriced = st.tuples(st.integers(0, 3), sizes, sizes, sizes, usd, nanos)
    # What adds a cost adds a call or something to the cost as well.
    priced = st.tuples(st.integers(1, 3), sizes, sizes, sizes, usd, nanos, st.integers(0, 2), st.integers(0, 2))
    figure = st.one_of(unpriced, priced).map(list)
    return trace_put(
        number,
        version,
        changed_ms=T0_MS + draw(st.integers(0, 1000)),
        first=draw(st.booleans()),
        counts=counts,
        started_us=draw(times),
        ended_us=draw(times),
        users=sorted((start or 2**53 - 1, span, user) for start, span, user in draw(uses)),
        services=draw(st.lists(st.sampled_from(["a", "b", "ü"]), unique=True).map(sorted)),
        models=draw(st.dictionaries(names, figure, max_size=3)),
    )


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[int, TracePut]]:
    """Per trace a series of versions, each put into a session or moved away from it."""
    puts = []
    for number in range(draw(st.integers(1, 5))):
        session = draw(st.integers(0, len(REFS) - 1))
        for version in range(1, draw(st.integers(1, 4)) + 1):
            if draw(st.booleans()) and version > 1:
                moved_ms = T0_MS + draw(st.integers(0, 1000))
                puts.append((session, gone(number, version, changed_ms=moved_ms)))
                session = (session + 1) % len(REFS)
            puts.append((session, draw(live_puts(number, version))))
    return puts


actions = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.lists(st.integers(0, 30), min_size=1, max_size=4)),
        st.tuples(st.just("claim"), st.integers(0, 3 * IDLE_MS)),
        st.tuples(st.just("settle"), st.integers(0, 2)),
    ),
    max_size=25,
)


@pytest.mark.parametrize("place", [*sorted(redis_servers_available()), "cluster"])
def test_every_reply_and_every_rollup_is_the_one_summed_from_scratch(
    place: str, running_servers: RunningServers
) -> None:
    """Two makes of store see the same calls: whatever they answer and show is the same, after every call."""

    @settings(max_examples=40 if place == "cluster" else 80)
    @given(history=histories(), steps=actions)
    def run(history: list[tuple[int, TracePut]], steps: list[tuple[str, Any]]) -> None:
        asyncio.run(compare(place, running_servers, history, steps))

    run()


async def compare(
    place: str, running: RunningServers, history: list[tuple[int, TracePut]], steps: list[tuple[str, Any]]
) -> None:
    clustered = place == "cluster"
    server = running.cluster() if clustered else running.server(place)
    connections, client = connect(server.url, cluster=clustered), server.client()
    keys = Keys("p", closing_shards=4)
    try:
        real, fake = redis_stores(connections, client, keys), fake_stores(keys)
        for step in [*steps, ("put", range(len(history))), ("claim", 10**9)]:
            await one_step(step, history, real, fake)
            same_state(real, fake)
            real.assert_lives_or_expires()
    finally:
        client.close()
        await connections.close()


async def one_step(step: tuple[str, Any], history: list[tuple[int, TracePut]], real: Stores, fake: Stores) -> None:
    kind, value = step
    if kind == "put":
        chosen: dict[int, list[TracePut]] = {}
        for index in value:
            session, trace = history[index % len(history)]
            chosen.setdefault(session, []).append(trace)
        puts = [SessionPut(REFS[session], traces) for session, traces in chosen.items()]
        assert await real.sessions.put(puts) == await fake.sessions.put(puts)
    elif kind == "claim":
        ours = await real.sessions.claim(REFS, watermark_ms=T0_MS + value)
        theirs = await fake.sessions.claim(REFS, watermark_ms=T0_MS + value)
        assert [claim[:2] for claim in ours] == [claim[:2] for claim in theirs]
        for mine, other in zip(ours, theirs, strict=True):
            if mine.outcome is ClaimOutcome.CLAIMED:
                assert plain_rollup(mine.rollup) == plain_rollup(other.rollup)
    else:
        refs = [(who, revision) for who in REFS for revision in range(value + 1)]
        assert await real.sessions.settle(refs) == await fake.sessions.settle(refs)


def same_state(real: Stores, fake: Stores) -> None:
    for who in REFS:
        assert real.session_hash(who) == fake.session_hash(who)
        assert {k: v for k, v in real.model_fields(who).items() if v} == {
            k: v for k, v in fake.model_fields(who).items() if v
        }


async def test_folding_agrees_with_the_fake_in_any_order(stores: Stores) -> None:
    """Many traces in a random order, some twice: sums never lose a trace, whichever are folded."""
    chooser = random.Random(7)
    fake = fake_stores(stores.keys)
    puts = [
        trace_put(number, 1, changed_ms=T0_MS + number // 3, users=[(T0_US + number, f"{number:016x}", f"u{number}")])
        for number in range(3 * MAX_TRACES)
    ]
    chooser.shuffle(puts)
    for start in range(0, len(puts), 7):
        part = [SessionPut(REFS[0], puts[start : start + 7]), SessionPut(REFS[0], puts[start : start + 2])]
        assert await stores.sessions.put(part) == await fake.sessions.put(part)
        assert stores.session_hash(REFS[0]) == fake.session_hash(REFS[0])
    ours = await stores.sessions.claim(REFS[:1], watermark_ms=T0_MS + 2 * IDLE_MS)
    theirs = await fake.sessions.claim(REFS[:1], watermark_ms=T0_MS + 2 * IDLE_MS)
    assert plain_rollup(ours[0].rollup) == plain_rollup(theirs[0].rollup)
    assert ours[0].rollup is not None
    assert ours[0].rollup.counts.trace_count == 3 * MAX_TRACES


async def test_closed_sessions_keep_their_retention(stores: Stores) -> None:
    """What settles gets the whole retention, and a reopening takes it away again."""
    who = REFS[0]
    await stores.sessions.put([SessionPut(who, [trace_put(1, 1)])])
    await stores.sessions.claim([who], watermark_ms=T0_MS + IDLE_MS)
    await stores.sessions.settle([(who, 1)])
    if stores.client is not None:
        for key in stores.keys.session(who):
            assert RETENTION_MS - 60_000 < stores.client.pttl(key) <= RETENTION_MS
    await stores.sessions.put([SessionPut(who, [trace_put(1, 2)])])
    stores.assert_lives_or_expires()
