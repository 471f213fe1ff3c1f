"""One session, changes, totals, and what the client says when Redis is not as it should be."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal
from statistics import median_low

import pytest

from aggregator.adapters.redis.calls import Command
from aggregator.client import Client, Query, StatusFilter, StoreRefused, StoreUnavailable
from aggregator.client.models import time_text
from aggregator.core.model import SessionRef
from aggregator.ports import SessionPut
from tests.client.conftest import Place
from tests.client.sessions import T0, expected, puts, whole_put
from tests.contract.builders import T0_MS, T0_US, gone, ref
from tests.indexes import session_hashes
from tests.redis_servers import RedisServer

V = 2**32


async def put(place: Place, who: SessionRef, number: int, *, prompt: int = 100, now_ms: int = T0_MS) -> None:
    counts = {"span_count": 2, "prompt_tokens": prompt, "error_count": number % 2}
    await place.stores.sessions.put([SessionPut(who, [whole_put(number, counts=counts)])])
    await place.stores.index.write([who], now_ms=now_ms)


async def test_a_session_has_its_traces_in_order_and_its_models(place: Place) -> None:
    who = SessionRef("shop/eu", "a {%}\n😀")
    later, models = T0_US + 5_000_000, {"gpt-4o": [1, 100, 20, 0, 2, 5], "a:b": [0, 0, 0, 7, 0, 1]}
    await place.stores.sessions.put(
        [
            SessionPut(
                who,
                [
                    whole_put(3, started_us=later, ended_us=later + 1_500_001, users=[(later, "ab" * 8, "eve")]),
                    whole_put(1, models=models, users=[(T0_US, "ab" * 8, "ada")]),
                    whole_put(2, started_us=0, ended_us=0, models={}),
                    whole_put(4, models={}),
                ],
            )
        ]
    )
    await place.stores.sessions.put([SessionPut(who, [gone(4, 2**40)])])
    session = await place.client.get(*who)
    assert session is not None
    assert (session.project, session.session_id, session.user_id) == ("shop/eu", "a {%}\n😀", "ada")
    assert (session.status, session.revision, session.trace_count) == ("open", 0, 3)
    assert session.started_at == T0
    assert session.duration_ms == 6500.001
    assert session.name == "shop%2Feu/a%20%7B%25%7D%0A%F0%9F%98%80"
    assert [trace.trace_id[-1] for trace in session.traces] == ["1", "3", "2"]
    assert list(session.models) == ["a:b", "gpt-4o"]
    assert session.models["a:b"].embedding == 7
    assert session.models["gpt-4o"].cost_usd == Decimal("2.004100005")
    assert await place.client.get("shop/eu", "no such") is None


async def test_in_json_times_and_costs_are_as_in_summaries(place: Place) -> None:
    await put(place, ref(), 1)
    session = await place.client.get(*ref())
    assert session is not None
    shown = session.model_dump(mode="json")
    assert shown["started_at"] == time_text(T0)
    assert shown["last_activity_at"].endswith("000Z")
    assert shown["cost_usd"] == "0.000000000"


async def test_changes_are_told_from_where_one_left_off(place: Place) -> None:
    start = await place.client.changes()
    assert (start.sessions, start.position) == ([], 0)
    await put(place, ref("a"), 1, now_ms=T0_MS)
    await put(place, ref("b"), 2, now_ms=T0_MS + 10_000)
    now = await place.client.changes()
    assert (now.sessions, now.position) == ([], T0_MS + 10_000)
    await put(place, ref("a"), 3, now_ms=T0_MS + 20_000)
    await put(place, SessionRef("other", "c"), 4, now_ms=T0_MS + 30_000)
    found = await place.client.changes(position=now.position)
    assert [session.session_id for session in found.sessions] == ["b", "a", "c"]  # b is within the overlap
    assert found.position == T0_MS + 30_000
    only = await place.client.changes(Query(project="demo", status=StatusFilter.OPEN), position=now.position)
    assert [session.session_id for session in only.sessions] == ["b", "a"]
    assert (await place.client.changes(Query(user="ada"), position=0)).sessions == []
    assert (await place.client.changes(Query(search="c"), position=0)).sessions[0].project == "other"


async def test_more_changes_of_one_moment_than_are_told_at_a_time_hold_nobody_up(place: Place) -> None:
    """As after a rebalance, when a worker writes what it has taken over."""
    many = list(puts(1200, projects=["demo"]))
    await place.stores.sessions.put(many)
    await place.stores.index.write([one.ref for one in many], now_ms=T0_MS)
    await put(place, ref("later"), 5000, now_ms=T0_MS + 1)
    told, position = set[str](), 0
    for _ in range(4):
        changes = await place.client.changes(position=position)
        told |= {session.session_id for session in changes.sessions}
        position = changes.position
    assert told == {one.ref.session_id for one in many} | {"later"}


async def test_following_shows_a_session_only_when_it_has_something_new(place: Place) -> None:
    await put(place, ref("a"), 1, now_ms=T0_MS)
    following = place.client.follow(Query(project="demo"), position=T0_MS, every_s=0.01)
    assert [session.trace_count for session in (await anext(following)).sessions] == [1]
    assert (await anext(following)).sessions == []
    await put(place, ref("a"), 2, now_ms=T0_MS + 500)
    assert [session.trace_count for session in (await anext(following)).sessions] == [2]
    assert (await anext(following)).sessions == []
    await following.aclose()  # type: ignore[attr-defined]


async def test_totals_are_the_sums_of_all_rollups(filled: Place) -> None:
    hashes = session_hashes(filled.plain)
    for since, until in ((None, None), (T0 + timedelta(hours=5), T0 + timedelta(hours=15))):
        own = [hashes[one] for one in expected(hashes, Query(project="demo", since=since, until=until), filled.keys)]
        totals = await filled.client.totals("demo", since=since, until=until)
        assert totals.sessions == len(own) > 20
        assert totals.tokens == sum(int(fields["total_tokens"]) for fields in own)
        assert totals.cost_usd == sum((Decimal(fields["cost_usd"]) for fields in own), Decimal())
        assert totals.error_count == sum(int(fields["error_count"]) for fields in own)
        assert totals.traces == sum(int(fields["trace_count"]) for fields in own)
        wrong = sum(fields["error_count"] != "0" for fields in own)
        assert (totals.sessions_with_errors, totals.error_rate) == (wrong, wrong / len(own))
        durations = sorted(float(fields.get("duration_ms", "0")) for fields in own)
        assert totals.duration is not None
        assert totals.duration.p50 == durations[(len(own) + 1) // 2 - 1]
        assert totals.duration.max == durations[-1]
        assert totals.median is not None
        assert totals.median.duration_ms == median_low(durations)
        assert totals.median.tokens == median_low(int(fields["total_tokens"]) for fields in own)
        assert totals.median.cost_usd == median_low(Decimal(fields["cost_usd"]) for fields in own)
        assert totals.median.errors == median_low(int(fields["error_count"]) for fields in own)
        assert totals.median.traces == median_low(int(fields["trace_count"]) for fields in own)
        assert sum(bucket.sessions for bucket in totals.durations) == len(own)
        assert sum(bucket.sessions for bucket in totals.over_time) == len(own)
        assert sum(bucket.tokens for bucket in totals.over_time) == totals.tokens
        assert sum((bucket.cost_usd for bucket in totals.over_time), Decimal()) == totals.cost_usd
        assert len(totals.over_time) <= 60


async def test_totals_of_nothing(place: Place) -> None:
    totals = await place.client.totals("nobody's")
    assert (totals.sessions, totals.duration, totals.over_time, totals.error_rate) == (0, None, [], 0.0)
    assert await place.client.projects() == []


async def test_totals_are_made_once_for_all_who_ask(filled: Place) -> None:
    made = await asyncio.gather(*(filled.client.totals("demo") for _ in range(5)))
    assert all(one is made[0] for one in made)


async def test_projects_are_those_that_have_sessions(filled: Place) -> None:
    assert await filled.client.projects() == ["demo", "größe", "shop/eu {1}"]
    filled.plain.zadd(filled.keys.projects, {"left": 1})
    assert await filled.client.projects() == ["demo", "größe", "shop/eu {1}"]


async def test_the_reader_really_may_only_read(filled: Place) -> None:
    listing = filled.client._listing
    with pytest.raises(StoreRefused, match="does not allow user viewer SET on agg:x"):
        await listing._connections.commands([Command("agg:x", ("SET", "agg:x", "1"))])


async def test_a_wrong_password_names_the_setting(place: Place) -> None:
    async with Client(place.url.replace("252F", ""), cluster=place.cluster) as client:
        with pytest.raises(StoreRefused, match=r"does not let user viewer in: .*AGGREGATOR_REDIS__USERNAME"):
            await client.projects()


async def test_a_redis_that_was_restarted_is_found_again(redis_server: RedisServer) -> None:
    async with Client(redis_server.url) as client:
        assert await client.projects() == []
        redis_server.stop()
        with pytest.raises(StoreUnavailable, match=str(redis_server.port)):
            await client.projects()
        redis_server.start()
        assert await client.projects() == []
