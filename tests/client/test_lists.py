"""Every list is a sort of all rollups, and its pages neither miss nor repeat a session while figures move."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest

from aggregator.client import BadCursor, Client, Query, Sort, StatusFilter
from aggregator.client import pages as pages_module
from aggregator.client.walks import Walk, Walks
from aggregator.core.model import SessionRef
from aggregator.ports import SessionPut
from tests.client.conftest import Place
from tests.client.sessions import T0, expected, fill, puts, whole_put
from tests.contract.builders import HOUR_US, T0_MS, T0_US, gone, ref, trace_put
from tests.indexes import Hashes, session_hashes

QUERIES = [
    Query(project=project, user=user, status=status, since=since, until=until, search=search, sort=sort, ascending=up)
    for sort, (project, user, status, since, until, search, up) in itertools.product(
        Sort,
        [
            (None, None, None, None, None, None, False),
            ("demo", None, None, None, None, None, True),
            ("shop/eu {1}", None, StatusFilter.OPEN, None, None, None, False),
            ("größe", None, StatusFilter.CLOSED, None, None, None, False),
            ("demo", "a d/a%", None, None, None, None, False),
            (None, "ada", StatusFilter.OPEN, T0 + timedelta(hours=3), T0 + timedelta(hours=20), None, False),
            ("demo", None, None, T0 + timedelta(hours=10, microseconds=500), None, None, False),
            (None, None, None, None, T0 + timedelta(hours=10), None, True),
            (None, None, None, None, None, "s 1", False),
            ("demo", None, StatusFilter.CLOSED, None, None, "a", True),
            ("nobody's", None, None, None, None, None, False),
        ],
    )
]


async def pages_of(client: Client, query: Query, limit: int) -> list[list[SessionRef]]:
    pages, cursor = [], None
    while True:
        page = await client.list(query, cursor=cursor, limit=limit)
        pages.append([session.ref for session in page.sessions])
        if (cursor := page.next) is None:
            return pages


def joined(pages: list[list[SessionRef]]) -> list[SessionRef]:
    return [session for page in pages for session in page]


async def assert_lists_are_sorts(client: Client, hashes: Hashes, place: Place, limit: int) -> None:
    for query in QUERIES:
        wanted = expected(hashes, query, place.keys)
        assert joined(await pages_of(client, query, limit)) == wanted, query
        first = await client.list(query, limit=limit)
        assert first.matching in (None, len(wanted)), query


@pytest.mark.parametrize("limit", [31, 500])
async def test_each_list_is_a_sort_of_all_rollups(filled: Place, limit: int) -> None:
    await assert_lists_are_sorts(filled.client, session_hashes(filled.plain), filled, limit)


async def test_also_where_too_many_match_to_be_sorted_here(filled: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages_module, "_FEW", 5)
    monkeypatch.setattr(pages_module, "_MOST_READ", 30)
    monkeypatch.setattr(pages_module, "_READ_AT_ONCE", 9)
    hashes = session_hashes(filled.plain)
    await assert_lists_are_sorts(filled.client, hashes, filled, 20)


async def test_how_many_match_is_told_where_the_index_knows(filled: Place) -> None:
    hashes = session_hashes(filled.plain)
    for query in (
        Query(),
        Query(project="demo"),
        Query(user="ada"),
        Query(user="ada", sort=Sort.COST),
        Query(since=T0),
    ):
        assert (await filled.client.list(query, limit=1)).matching == len(expected(hashes, query, filled.keys))
    assert (await filled.client.list(Query(status=StatusFilter.CLOSED), limit=1)).matching is None


async def test_pages_hold_each_session_once_while_figures_move(filled: Place) -> None:
    """Between any two pages sessions overtake those shown, fall behind them, come and go."""
    query = Query(project="demo", sort=Sort.TOKENS)
    there = expected(session_hashes(filled.plain), query, filled.keys)
    seen, cursor, number = list[SessionRef](), None, 0
    while True:
        page = await filled.client.list(query, cursor=cursor, limit=10)
        seen += [session.ref for session in page.sessions]
        if (cursor := page.next) is None:
            break
        number += 1
        movers = [there[-number], there[number * 7 % len(there)], ref(f"new-{number}")]
        tokens = {"span_count": 1, "prompt_tokens": 10**6 + number}
        await filled.stores.sessions.put(
            [SessionPut(who, [trace_put(90_000 + number * 10 + at, counts=tokens)]) for at, who in enumerate(movers)]
        )
        await filled.stores.index.write(movers, now_ms=T0_MS + number)
    assert sorted(one for one in seen if not one.session_id.startswith("new-")) == sorted(there)
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize("sort", Sort)
@pytest.mark.parametrize("ascending", [False, True])
async def test_a_page_is_in_order_also_while_the_indexes_are_behind(place: Place, sort: Sort, ascending: bool) -> None:
    made = list(puts(40, projects=["demo"]))
    await fill(place.stores, made, now_ms=T0_MS)
    for number, one in enumerate(made[::3]):
        start_us = T0_US + 60 * HOUR_US + number * 1_000_000
        counts = {"prompt_tokens": 10**6 + number, "error_count": 50 + number, "cost_whole_usd": 90 + number}
        more = whole_put(9000 + number, started_us=start_us, ended_us=start_us + 1000, counts=counts)
        await place.stores.sessions.put([SessionPut(one.ref, [more])])
    shown = (await place.client.list(Query(sort=sort, ascending=ascending), limit=40)).sessions
    assert len(shown) == 40
    figures = [sort.figure(session) for session in shown]
    assert figures == sorted(figures, reverse=not ascending)


async def test_a_page_that_was_shown_can_be_shown_again(filled: Place) -> None:
    query = Query(sort=Sort.COST)
    second = (await filled.client.list(query, limit=30)).next
    shown = await filled.client.list(query, cursor=second, limit=30)
    await filled.client.list(query, cursor=shown.next, limit=30)
    again = await filled.client.list(query, cursor=second, limit=30)
    assert again.sessions == shown.sessions


async def test_another_process_goes_on_behind_the_last_session_shown(filled: Place) -> None:
    for query in (Query(sort=Sort.ERRORS), Query(sort=Sort.ERRORS, ascending=True, user="ada")):
        wanted = expected(session_hashes(filled.plain), query, filled.keys)
        page = await filled.client.list(query, limit=30)
        seen = [session.ref for session in page.sessions]
        while page.next is not None:
            async with Client(filled.url, cluster=filled.cluster, closing_shards=8) as other:
                page = await other.list(query, cursor=page.next, limit=30)
            seen += [session.ref for session in page.sessions]
        assert seen == wanted


async def test_a_cursor_of_another_make_or_query_is_refused(filled: Place) -> None:
    cursor = (await filled.client.list(Query(), limit=1)).next
    assert cursor is not None
    for wrong in ("", "x", "AAAA", cursor[:-3], "W10", "ü", "W1sxXSwxLDEsMSwxLDFd"):
        with pytest.raises(BadCursor, match="first page"):
            await filled.client.list(Query(), cursor=wrong)
    with pytest.raises(BadCursor, match="another query"):
        await filled.client.list(Query(sort=Sort.COST), cursor=cursor)
    with pytest.raises(ValueError, match="limit is 0"):
        await filled.client.list(limit=0)


async def test_sessions_that_are_gone_or_empty_are_not_shown(place: Place) -> None:
    refs, ada = [ref(f"s-{number}") for number in range(5)], [(T0_US, "ab" * 8, "ada")]
    await place.stores.sessions.put([SessionPut(who, [trace_put(1, users=ada)]) for who in refs])
    await place.stores.index.write(refs, now_ms=T0_MS)
    place.plain.delete(place.keys.session(refs[2]).session)
    await place.stores.sessions.put([SessionPut(refs[3], [gone(1, 2**40)])])
    listed = await place.client.list(Query(user="ada"))
    assert [session.ref for session in listed.sessions] == [refs[4], refs[1], refs[0]]
    assert await place.client.read(refs) == [*reversed(listed.sessions[1:]), None, None, listed.sessions[0]]


def test_the_walk_that_was_used_least_recently_is_forgotten_first() -> None:
    walks = Walks(most_entries=10)
    first, second = walks.begin(Walk([], whole=False)), walks.begin(Walk([None] * 6, whole=True))  # type: ignore[list-item]
    assert walks.get(second) is not None
    assert walks.get(first) is not None
    walks.put(first, Walk([None] * 6, whole=True))  # type: ignore[list-item]
    assert walks.get(second) is None
    assert walks.get(first) is not None
