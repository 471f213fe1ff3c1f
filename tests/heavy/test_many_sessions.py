"""With 100,000 sessions: lists are still sorts of all rollups, and a page takes less than 100 ms."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Final

import pytest

from aggregator.client import Client, Query, Sort, StatusFilter
from tests.client.sessions import T0, expected
from tests.client.test_lists import joined, pages_of
from tests.heavy.conftest import KEYS, MANY, Many

PAGE_S: Final = 0.1

LISTS: Final = [
    *(Query(project="demo", sort=sort) for sort in Sort),
    Query(sort=Sort.COST),
    Query(ascending=True, sort=Sort.DURATION),
    Query(project="demo", user="ada", sort=Sort.TOKENS),
    Query(project="größe", status=StatusFilter.OPEN, sort=Sort.ERRORS),
    Query(project="demo", status=StatusFilter.CLOSED),
    Query(project="demo", since=T0 + timedelta(hours=20), sort=Sort.COST),
    Query(project="demo", since=T0 + timedelta(hours=2), until=T0 + timedelta(hours=3), sort=Sort.COST),
    Query(search="s-999"),
]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("query", LISTS, ids=lambda query: query.model_dump_json(exclude_defaults=True))
async def test_a_list_is_a_sort_of_all_rollups_and_its_pages_are_quick(many: Many, query: Query) -> None:
    assert len(many.hashes) == MANY
    async with Client(many.url) as client:
        assert joined(await pages_of(client, query, 500)) == expected(many.hashes, query, KEYS)
        times = []
        for _ in range(5):
            began_s = time.process_time()
            page = await client.list(query, limit=50)
            times.append(time.process_time() - began_s)
        second = time.process_time()
        await client.list(query, cursor=page.next, limit=50)
        second = time.process_time() - second
    print(f"first page {sorted(times)[2] * 1000:.1f} ms, second {second * 1000:.1f} ms")
    assert sorted(times)[2] < PAGE_S


@pytest.mark.timeout(600)
async def test_totals_of_many(many: Many) -> None:
    async with Client(many.url) as client:
        began_s = time.process_time()
        totals = await client.totals("demo")
        print(f"totals {time.process_time() - began_s:.2f} s")
    own = [many.hashes[ref] for ref in expected(many.hashes, Query(project="demo"), KEYS)]
    assert totals.sessions == len(own)
    assert totals.tokens == sum(int(fields["total_tokens"]) for fields in own)
