"""The laws of DESIGN section 2 on whole workers: any order, split and duplicates, a crash at any step."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.core.model import SessionRef
from aggregator.core.pricing import Pricer
from tests.core.trees import FlatPricer
from tests.fake_index import FakeSessionIndex, expected_scores
from tests.fakes import FakeProgress, FakeSchedule, FakeSessionStore, FakeTraceStore, hash_fields
from tests.oracle import expected_sessions, flat_price
from tests.paths.worlds import (
    IDLE_MS,
    RETENTION_MS,
    SHARDS,
    Life,
    Stores,
    World,
    assert_equals_oracle,
    finish,
    live,
    live_through,
    look_at_all,
)
from tests.workloads import Record, Workload, layouts, oracle_input, workloads

PARTITIONS = 4
ALL = [list(range(PARTITIONS))]

seldom = settings(max_examples=40)  # an example is some hundred batches


def fresh_world(
    *, max_duration_ms: int = 10**12, max_session_traces: int = 1000, pricer: Pricer | None = None
) -> World:
    traces, schedule, progress = FakeTraceStore(), FakeSchedule(closing_shards=SHARDS), FakeProgress()
    sessions = FakeSessionStore(
        idle_timeout_ms=IDLE_MS,
        max_duration_ms=max_duration_ms,
        max_session_traces=max_session_traces,
        trace_life_ms=RETENTION_MS,
    )

    index = FakeSessionIndex(sessions, schedule)

    async def lose() -> None:
        index.listed.clear()
        index.users.clear()
        for content in (traces.states, sessions.sessions, schedule.entries, progress.offsets, progress.marks):
            content.clear()
        sessions.tombstones.clear()

    return World(
        stores=Stores(traces=traces, sessions=sessions, schedule=schedule, progress=progress, index=index, lose=lose),
        pricer=pricer or FlatPricer(),
    )


def assignments() -> st.SearchStrategy[list[list[int]]]:
    """One to three workers over the partitions; some partitions in two hands, as between a zombie and its heir."""
    parts = st.lists(st.integers(0, PARTITIONS - 1), unique=True, max_size=PARTITIONS)
    return st.lists(parts, min_size=1, max_size=3)


def plans() -> st.SearchStrategy[dict[int, str]]:
    """Which calls of one worker fail, and how."""
    return st.dictionaries(st.integers(0, 40), st.sampled_from(["before", "after", "middle"]), max_size=4)


def skews() -> st.SearchStrategy[int]:
    """How far a worker's clock is off, in milliseconds: mostly not at all."""
    return st.just(0) | st.integers(-86_400_000, 86_400_000)


@st.composite
def lives(draw: st.DrawFn) -> Life:
    assigned = draw(assignments())
    return Life(
        assigned=assigned,
        plans=[draw(plans()) for _ in assigned],
        crash=draw(st.booleans()),
        rest_ms=draw(st.sampled_from([0, 0, 2 * IDLE_MS])),
        skews_ms=[draw(skews()) for _ in assigned],
    )


async def run(records: Sequence[Record], history: Sequence[Life]) -> World:
    world = fresh_world()
    await live_through(world, records, history, PARTITIONS)
    await look_at_all(world, PARTITIONS)
    assert_indexes_show_sessions(world)
    return world


def assert_indexes_show_sessions(world: World) -> None:
    """Every session that has traces is in the indexes as it stands, under its user, and nothing else is."""
    index, sessions = world.stores.index, world.stores.sessions
    assert isinstance(index, FakeSessionIndex)
    assert isinstance(sessions, FakeSessionStore)
    hashes = {ref: hash_fields(ref, session) for ref, session in sessions.sessions.items()}
    expected = {ref: scores for ref, fields in hashes.items() if (scores := expected_scores(fields)) is not None}
    assert index.listed == expected
    assert set(index.users) == {(ref, hashes[ref].get("user_id", "")) for ref in expected}


@seldom
@given(workloads(partitions=PARTITIONS), st.lists(lives(), max_size=3))
def test_whatever_breaks_the_last_summaries_are_the_oracles(workload: Workload, history: list[Life]) -> None:
    world = asyncio.run(run(workload.records, history))
    assert_equals_oracle(world, workload.records)


@seldom
@given(workloads(partitions=PARTITIONS), st.lists(st.tuples(skews(), skews()), min_size=1, max_size=3))
def test_a_wrong_clock_neither_closes_nor_holds_anything(workload: Workload, off_ms: list[tuple[int, int]]) -> None:
    """Each summary is published when it would be if all clocks were right, with the same times in it."""
    halves = [[0, 1], [2, 3]]

    def published(history: list[Life]) -> list[tuple[SessionRef, bytes]]:
        return asyncio.run(run(workload.records, history)).log.summaries

    right = [Life(assigned=halves, plans=[{}, {}], crash=False) for _ in off_ms]
    wrong = [Life(assigned=halves, plans=[{}, {}], crash=False, skews_ms=pair) for pair in off_ms]
    assert published(wrong) == published(right)


@settings(max_examples=3)
@given(workloads(partitions=PARTITIONS), st.data())
def test_each_single_step_may_be_the_last(workload: Workload, data: st.DataObject) -> None:
    """One crash at call n, for every n until a run gets by without."""
    fault = data.draw(st.sampled_from(["before", "after", "middle"]))

    async def crashed_at(step: int) -> bool:
        world = fresh_world()
        world.write(workload.records, PARTITIONS)
        ended = await live(world, Life(assigned=ALL, plans=[{step: fault}], crash=True))
        await finish(world, PARTITIONS)
        assert_equals_oracle(world, workload.records)
        return not ended

    step = 0
    while asyncio.run(crashed_at(step)):
        step += 1
    assert step > 8, "a run makes more calls than that: where have the faults gone?"


@seldom
@given(workloads(partitions=PARTITIONS), st.integers(0, 60), st.lists(lives(), max_size=2))
def test_a_store_that_loses_everything_is_filled_again(workload: Workload, step: int, before: list[Life]) -> None:
    """Whenever the stores are emptied, the log is read again, and what consumers keep in the end is whole."""
    losing = Life(assigned=ALL, plans=[{step: "lose"}], crash=False)
    closing = Life(assigned=ALL, plans=[{}], crash=False, rest_ms=2 * IDLE_MS)
    world = asyncio.run(run(workload.records, [*before, closing, losing]))
    assert_equals_oracle(world, workload.records, lost=True)
    sessions = world.stores.sessions
    assert isinstance(sessions, FakeSessionStore)
    shown = {
        ref for ref, session in sessions.sessions.items() if any(t.counts.trace_count for t in session.traces.values())
    }
    assert shown == {SessionRef(*ref) for ref in expected_sessions(oracle_input(workload.records), price=flat_price)}


@seldom
@given(workloads(partitions=PARTITIONS), st.data())
def test_any_layout_of_the_same_spans_ends_the_same(workload: Workload, data: st.DataObject) -> None:
    other = data.draw(layouts(workload.spans, partitions=PARTITIONS))
    world = asyncio.run(run([*workload.records, *other], []))
    assert_equals_oracle(world, workload.records)
