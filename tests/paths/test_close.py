"""Who closes what, and that nothing closes before its time."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Sequence
from itertools import count
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from aggregator.adapters.redis.keys import Keys
from aggregator.close import shards_of
from aggregator.core.errors import SummaryTooLarge
from aggregator.core.model import Partition, SessionRef
from aggregator.ports import SessionIndex
from tests.builders import BASE_MS, record, span
from tests.fake_log import FakeSink
from tests.paths.test_laws import fresh_world
from tests.paths.worlds import IDLE_MS, SHARDS, Life, assert_equals_oracle, finish, last_summaries, live
from tests.workloads import Record, laid_out

PARTITIONS = st.builds(Partition, st.sampled_from(["a", "b"]), st.integers(0, 5))


@given(st.lists(PARTITIONS, unique=True, min_size=1), st.integers(1, 70), st.data())
def test_each_shard_has_one_owner(partitions: list[Partition], shards: int, data: st.DataObject) -> None:
    workers = data.draw(st.integers(1, 4))
    owner = {partition: data.draw(st.integers(0, workers - 1)) for partition in partitions}
    owned = [shards_of([p for p in partitions if owner[p] == worker], partitions, shards) for worker in range(workers)]
    assert sorted(shard for shards_ in owned for shard in shards_) == list(range(shards))


def test_shards_are_dealt_over_the_sorted_partitions() -> None:
    partitions = [Partition("b", 0), Partition("a", 1), Partition("a", 0)]
    assert shards_of([Partition("a", 0)], partitions, 7) == [0, 3, 6]
    assert shards_of([Partition("a", 1)], partitions, 7) == [1, 4]
    assert shards_of([Partition("b", 0)], partitions, 7) == [2, 5]
    assert shards_of([], partitions, 7) == []
    assert shards_of([], [], 7) == []


async def test_a_summary_that_the_topic_refuses_is_published_without_its_traces() -> None:
    world = fresh_world()
    records = laid_out(
        [
            record([span(n, {"session.id": session}, trace=n, start=0.0, end=1.0)])
            for n, session in enumerate(("large", "large", "small"), start=1)
        ],
        random.Random(1),
        partitions=1,
    )
    world.write(records, 1)
    world.sink = Picky(world.log)
    await finish(world, 1)
    last = {ref.session_id: summary for ref, summary in last_summaries(world).items()}
    assert (last["small"]["truncated"], len(last["small"]["traces"])) == (False, 1)
    assert (last["large"]["truncated"], last["large"]["traces"], last["large"]["trace_count"]) == (True, [], 2)


async def test_a_session_that_comes_back_with_its_old_deadline_while_its_entry_is_taken_away_closes_again() -> None:
    """A partition was added, whose records are as old as those that the session was closed by."""
    world = fresh_world()
    keys, refs = Keys(closing_shards=SHARDS), (SessionRef("default", f"s{n}") for n in count())
    ref = next(ref for ref in refs if keys.shard(ref) == 0)  # which stays with the worker of the first partition
    first, late = (
        Record(record([span(n, {"session.id": ref.session_id}, trace=n)]), partition, BASE_MS)
        for n, partition in ((1, 0), (2, 1))
    )
    index = world.stores.index

    class Interrupted:
        """Between its summary and the removal of its entry, another worker applies what came."""

        def __getattr__(self, name: str) -> object:
            return getattr(index, name)

        async def write(self, refs: Sequence[SessionRef], *, now_ms: int) -> None:
            await index.write(refs, now_ms=now_ms)
            if world.log.summaries and len(world.log.partitions) == 1:
                world.write([late], 2)
                await live(world, Life(assigned=[[1]], plans=[{}], crash=False))

    world.stores = dataclasses.replace(world.stores, index=cast(SessionIndex, Interrupted()))
    world.write([first], 1)
    world.clock.time_ms += 10 * IDLE_MS
    await live(world, Life(assigned=[[0]], plans=[{}], crash=False))
    assert len(world.log.partitions) == 2
    await finish(world, 2)
    assert_equals_oracle(world, [first, late])


class Picky(FakeSink):
    """Takes no summary of more than one trace, as a topic with a small max.message.bytes."""

    async def publish(self, summaries: Sequence[tuple[SessionRef, bytes]]) -> None:
        taken = [(ref, document) for ref, document in summaries if len(json.loads(document)["traces"]) < 2]
        await super().publish(taken)
        if refused := [ref for ref, document in summaries if (ref, document) not in taken]:
            raise SummaryTooLarge(refused, "too large")
