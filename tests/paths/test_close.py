"""Who closes what, and that nothing closes before its time."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from aggregator.close import shards_of
from aggregator.core.errors import SummaryTooLarge
from aggregator.core.model import Partition, SessionRef
from tests.builders import record, span
from tests.fake_log import FakeSink
from tests.paths.test_laws import fresh_world
from tests.paths.worlds import finish, last_summaries
from tests.workloads import laid_out

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


class Picky(FakeSink):
    """Takes no summary of more than one trace, as a topic with a small max.message.bytes."""

    async def publish(self, summaries: Sequence[tuple[SessionRef, bytes]]) -> None:
        taken = [(ref, document) for ref, document in summaries if len(json.loads(document)["traces"]) < 2]
        await super().publish(taken)
        if refused := [ref for ref, document in summaries if (ref, document) not in taken]:
            raise SummaryTooLarge(refused, "too large")
