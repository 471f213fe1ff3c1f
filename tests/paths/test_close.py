"""Who closes what, and that nothing closes before its time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aggregator.close import shards_of
from aggregator.core.model import Partition

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
