"""The deadline index."""

from __future__ import annotations

from aggregator.ports import DueEntry
from tests.contract.builders import T0_MS, ref
from tests.contract.conftest import Stores

ALL = range(8)


async def test_due_is_what_the_watermark_has_reached(stores: Stores) -> None:
    early, late, odd = ref("early"), ref("late"), ref("odd {%}\n😀")
    await stores.schedule.add([])
    await stores.schedule.add([(early, T0_MS), (late, T0_MS + 5), (odd, T0_MS + 1)])
    assert await stores.schedule.count(ALL) == 3
    assert await stores.schedule.due(ALL, watermark_ms=T0_MS - 1, limit=10) == []
    found = await stores.schedule.due(ALL, watermark_ms=T0_MS + 1, limit=10)
    shard = stores.keys.shard
    assert found == [DueEntry(shard(early), early, T0_MS), DueEntry(shard(odd), odd, T0_MS + 1)]
    assert await stores.schedule.due([], watermark_ms=T0_MS, limit=10) == []
    assert await stores.schedule.due(ALL, watermark_ms=T0_MS, limit=0) == []
    others = [number for number in ALL if number != shard(early)]
    assert await stores.schedule.due(others, watermark_ms=T0_MS, limit=10) == []


async def test_the_limit_holds_over_all_shards_and_takes_the_earliest(stores: Stores) -> None:
    deadlines = {ref(f"s-{number}"): T0_MS + number for number in range(100)}
    await stores.schedule.add(list(deadlines.items()))
    found = await stores.schedule.due(ALL, watermark_ms=T0_MS + 1000, limit=40)
    assert len(found) == 40
    by_shard: dict[int, list[float]] = {}
    for entry in found:
        by_shard.setdefault(entry.shard, []).append(entry.deadline_ms)
    for shard, taken in by_shard.items():
        whole = sorted(ms for who, ms in deadlines.items() if stores.keys.shard(who) == shard)
        assert taken == whole[: len(taken)]
    assert len(await stores.schedule.due(ALL, watermark_ms=T0_MS + 1000, limit=1000)) == 100


async def test_one_full_shard_fills_the_limit(stores: Stores) -> None:
    shard = stores.keys.shard(ref("s-0"))
    same = [who for who in (ref(f"s-{number}") for number in range(400)) if stores.keys.shard(who) == shard][:20]
    await stores.schedule.add([(who, T0_MS + index) for index, who in enumerate(same)])
    found = await stores.schedule.due(ALL, watermark_ms=T0_MS + 100, limit=16)
    assert [entry.ref for entry in found] == same[:16]


async def test_move_spares_what_has_changed(stores: Stores) -> None:
    a, b, c = ref("a"), ref("b"), ref("c")
    await stores.schedule.add([(a, T0_MS), (b, T0_MS), (c, T0_MS)])
    entries = {entry.ref: entry for entry in await stores.schedule.due(ALL, watermark_ms=T0_MS, limit=10)}
    await stores.schedule.add([(c, T0_MS + 7)])
    await stores.schedule.move([(entries[a], T0_MS + 9), (entries[b], None), (entries[c], None)])
    await stores.schedule.move([(entries[a], None), (entries[b], T0_MS)])
    left = await stores.schedule.due(ALL, watermark_ms=T0_MS + 100, limit=10)
    assert {entry.ref: entry.deadline_ms for entry in left} == {a: T0_MS + 9, c: T0_MS + 7}


async def test_what_is_held_is_still_due_and_at_a_time_that_no_deadline_is(stores: Stores) -> None:
    deadlines = {ref(f"s-{number}"): T0_MS + number for number in range(300)}
    await stores.schedule.add(list(deadlines.items()))
    before = deadlines
    for _ in range(3):  # a worker dies, and another holds what it held
        held = await stores.schedule.hold(await stores.schedule.due(ALL, watermark_ms=T0_MS + 300, limit=300))
        assert held == list(await stores.schedule.due(ALL, watermark_ms=T0_MS + 300, limit=300))
        now = {entry.ref: entry.deadline_ms for entry in held}
        assert all(0 < before[who] - at_ms < 2 and at_ms % 1 for who, at_ms in now.items())
        assert len(now) == 300
        before = now
    await stores.schedule.move([(entry, None) for entry in held])
    assert await stores.schedule.count(ALL) == 0
    assert await stores.schedule.hold([]) == []


async def test_of_two_who_read_an_entry_one_holds_it(stores: Stores) -> None:
    a, b = ref("a"), ref("b")
    await stores.schedule.add([(a, T0_MS), (b, T0_MS)])
    read = await stores.schedule.due(ALL, watermark_ms=T0_MS, limit=10)
    (first,) = await stores.schedule.hold([entry for entry in read if entry.ref == a])
    assert [entry.ref for entry in await stores.schedule.hold(read)] == [b]
    again = await stores.schedule.hold([first])
    await stores.schedule.move([(first, None)])
    assert await stores.schedule.count(ALL) == 2
    await stores.schedule.move([(again[0], T0_MS + 1)])
    assert [entry.ref for entry in await stores.schedule.due(ALL, watermark_ms=T0_MS, limit=10)] == [b]


async def test_a_deadline_that_is_set_again_is_held_by_nobody(stores: Stores) -> None:
    """Also the same one; and it may be the one that was read before it was held."""
    a = ref("a")
    await stores.schedule.add([(a, T0_MS)])
    read = await stores.schedule.due(ALL, watermark_ms=T0_MS, limit=10)
    held = await stores.schedule.hold(read)
    await stores.schedule.add([(a, T0_MS)])
    await stores.schedule.move([(held[0], None)])
    assert await stores.schedule.due(ALL, watermark_ms=T0_MS, limit=10) == read
