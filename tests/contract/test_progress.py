"""Next offsets and watermarks."""

from __future__ import annotations

from aggregator.core.model import Partition
from aggregator.ports import Applied
from tests.contract.builders import T0_MS
from tests.contract.conftest import Stores

A, B, C = Partition("otlp_spans", 0), Partition("otlp_spans", 1), Partition("other/topic", 0)


async def test_writes_where_what_we_believe_stands(stores: Stores) -> None:
    progress = stores.progress
    assert await progress.read([A, B]) == {A: (None, None), B: (None, None)}
    assert await progress.write({}) == {}
    assert await progress.write({A: Applied(None, 10, T0_MS), B: Applied(None, 20, None)}) == {}
    assert await progress.read([A, B, C]) == {A: (10, T0_MS), B: (20, None), C: (None, None)}
    left = await progress.write({A: Applied(10, 15, T0_MS + 5), B: Applied(19, 25, T0_MS), C: Applied(3, 4, T0_MS)})
    assert left == {B: 20, C: None}
    assert await progress.read([A, B, C]) == {A: (15, T0_MS + 5), B: (20, None), C: (None, None)}


async def test_a_repeat_counts_as_written_and_no_watermark_falls(stores: Stores) -> None:
    progress = stores.progress
    await progress.write({A: Applied(None, 10, T0_MS)})
    assert await progress.write({A: Applied(None, 10, T0_MS - 1)}) == {}
    assert await progress.read([A]) == {A: (10, T0_MS)}
    assert await progress.write({A: Applied(10, 10, T0_MS + 1)}) == {}
    assert await progress.read([A]) == {A: (10, T0_MS + 1)}


async def test_the_global_watermark_is_held_back_by_the_last(stores: Stores) -> None:
    assert await stores.progress.watermarks([A, B]) is None
    await stores.progress.write({A: Applied(None, 1, T0_MS + 9)})
    assert await stores.progress.watermarks([A, B]) is None
    assert await stores.progress.watermarks([A]) == T0_MS + 9
    await stores.progress.write({B: Applied(None, 1, T0_MS)})
    assert await stores.progress.watermarks([A, B]) == T0_MS
    assert await stores.progress.watermarks([]) is None
