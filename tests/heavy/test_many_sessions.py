"""With 100,000 sessions: lists are still sorts of all rollups, and a page takes less than 100 ms."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

import pytest

from aggregator.client import Client, Page, Query, Sort, StatusFilter
from aggregator.core.model import SessionRef
from tests.client.sessions import T0, expected
from tests.client.test_lists import joined, pages_of
from tests.heavy.conftest import KEYS, MANY, Many

PAGE_S: Final = 0.1

WHOLE: Final = [
    Query(project="demo", user="ada", sort=Sort.TOKENS),
    Query(project="größe", status=StatusFilter.OPEN, sort=Sort.ERRORS),
    Query(project="demo", since=T0 + timedelta(hours=2), until=T0 + timedelta(hours=3), sort=Sort.COST),
    Query(search="s-999"),
]
LEADING: Final = [
    *(Query(project="demo", sort=sort) for sort in Sort),
    Query(sort=Sort.COST),
    Query(ascending=True, sort=Sort.DURATION),
    Query(project="demo", status=StatusFilter.CLOSED),
    Query(project="demo", since=T0 + timedelta(hours=20), sort=Sort.COST),
]


def name_of(query: Query) -> str:
    return query.model_dump_json(exclude_defaults=True)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("query", WHOLE, ids=name_of)
async def test_all_pages_are_a_sort_of_all_rollups(many: Many, query: Query) -> None:
    assert len(many.hashes) == MANY
    async with Client(many.url) as client:
        assert joined(await pages_of(client, query, 500)) == expected(many.hashes, query, KEYS)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("query", LEADING, ids=name_of)
async def test_the_order_is_a_sort_of_all_rollups(many: Many, query: Query) -> None:
    """Of lists as long as these the order is compared whole, and three pages as they are shown."""
    wanted = expected(many.hashes, query, KEYS)
    async with Client(many.url) as client:
        if query.status is None and query.since is None:
            assert [entry.ref for entry in await client._pages._order(query)] == wanted
        shown, cursor = list[SessionRef](), None
        for _ in range(3):
            page = await client.list(query, cursor=cursor, limit=500)
            shown += [session.ref for session in page.sessions]
            cursor = page.next
    assert shown == wanted[: len(shown)]
    assert len(shown) > 500


@pytest.mark.timeout(600)
@pytest.mark.parametrize("query", [*WHOLE, *LEADING], ids=name_of)
async def test_pages_are_quick(many: Many, query: Query) -> None:
    """By the CPU time of this process, which a busy machine does not stretch as much."""
    async with Client(many.url) as client:
        page, first_s = await median(lambda: client.list(query, limit=50))
        print(f"first page {first_s * 1000:.1f} ms")
        if page.next is not None:
            page, second_s = await median(lambda: client.list(query, cursor=page.next, limit=50))
            print(f"second page {second_s * 1000:.1f} ms")
            assert second_s < PAGE_S
    assert first_s < PAGE_S


async def median(call: Callable[[], Awaitable[Page]]) -> tuple[Page, float]:
    times = []
    for _ in range(5):
        began_s = time.process_time()
        page = await call()
        times.append(time.process_time() - began_s)
    return page, sorted(times)[2]


@pytest.mark.timeout(600)
async def test_totals_of_many(many: Many) -> None:
    async with Client(many.url) as client:
        began_s = time.process_time()
        totals = await client.totals("demo")
        print(f"totals {time.process_time() - began_s:.2f} s")
    own = [many.hashes[ref] for ref in expected(many.hashes, Query(project="demo"), KEYS)]
    assert totals.sessions == len(own)
    assert totals.tokens == sum(int(fields["total_tokens"]) for fields in own)
