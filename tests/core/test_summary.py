"""The documents of DESIGN section 7, to the byte."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.core.model import (
    NO_COST,
    TIME_LAST,
    Counts,
    FirstUse,
    ModelUsage,
    SessionRef,
    SessionRollup,
    TraceRollup,
)
from aggregator.core.put import private_json, tombstone, trace_put
from aggregator.core.summary import cost_source, cost_text, rfc3339, summary
from tests.core.trees import figures_of, llm
from tests.puts import plain_put, read_put
from tests.summaries import check_summary

TRACE = bytes(range(16))


def trace_rollup() -> TraceRollup:
    rollup = TraceRollup()
    rollup.name = 'say "hä"\n'
    rollup.started_us = 1_760_000_000_123_456
    rollup.ended_us = 1_760_000_002_123_457
    rollup.span_count = 8
    rollup.llm_span_count = 3
    rollup.error_count = 1
    rollup.prompt_tokens = 1200
    rollup.completion_tokens = 300
    rollup.cache_read_tokens = 100
    rollup.reasoning_tokens = 20
    rollup.cost_nano = 2_012_300_000
    rollup.reported_costs = 2
    rollup.users = [("u-1", 5, b"\1" * 8), ("u-2", 0, b"\2" * 8)]
    rollup.services = ["chat", "search"]
    rollup.scopes = 777
    usage = rollup.models['gpt-"4o"'] = ModelUsage()
    usage.reported_costs = 2
    usage.calls, usage.prompt_tokens, usage.completion_tokens, usage.cost_nano = 9, 1200, 300, 2_012_300_000
    return rollup


def with_zeros(counts: list[int]) -> list[int]:
    """Counts as they were, from what an entry has of them."""
    return [figure for count in counts for figure in ([0] * -count if count < 0 else [count])]


def test_a_trace_travels_with_its_entry() -> None:
    put = read_put(
        trace_put(
            trace_rollup(),
            trace_id=TRACE,
            version=8 << 32,
            contents=(3, 2, 1),
            changed_ms=77,
            born_ms=77,
            first=True,
            conflicting=True,
            truncated=False,
        )
    )
    assert (put.trace_id, put.version, put.changed_ms, put.first) == (TRACE.hex(), 8 << 32, 77, True)
    assert (put.counts.trace_count, put.counts.span_count, put.counts.conflicting_claim_traces) == (1, 8, 1)
    assert (put.counts.cost_whole_usd, put.counts.cost_rest_nano) == (2, 12_300_000)
    assert put.users == [FirstUse(5, "01" * 8, "u-1"), FirstUse(TIME_LAST, "02" * 8, "u-2")]
    assert put.models == {'gpt-"4o"': [9, 1200, 300, 0, 2, 12_300_000, 2, 0]}
    entry = json.loads(put.entry)
    spans, replacements, started_us, changed, ended, counts, users, services, models, *rest = entry.pop("_")
    assert (spans << 32) + replacements == put.version
    assert (started_us, started_us // 1000 + changed, started_us + ended) == (put.started_us, 77, put.ended_us)
    assert with_zeros(counts) == list(put.counts)
    assert [FirstUse(started_us + start, span_id, user) for start, span_id, user in users] == put.users
    assert (services, models) == (put.services, {'gpt-"4o"': [9, 1200, 300, 0, 2, 12_300_000, 2]})
    assert rest == [777, [3, 2, 1]]
    assert put.entry.startswith('{"_":['), "the scripts find the private part by its place"
    assert entry == {
        "trace_id": TRACE.hex(),
        "name": 'say "hä"\n',
        "started_at": "2025-10-09T08:53:20.123456Z",
        "ended_at": "2025-10-09T08:53:22.123457Z",
        "duration_ms": 2000.001,
        "span_count": 8,
        "error_count": 1,
        "tokens": {
            "prompt": 1200,
            "completion": 300,
            "total": 1500,
            "cache_read": 100,
            "cache_write": 0,
            "reasoning": 20,
            "embedding": 0,
        },
        "cost_usd": "2.012300000",
        "cost_source": "reported",
    }


@pytest.mark.parametrize(("started_us", "ended_us"), [(0, 0), (0, 5), (5, 0)])
def test_what_is_unknown_is_null(started_us: int, ended_us: int) -> None:
    rollup = TraceRollup()
    rollup.started_us, rollup.ended_us = started_us, ended_us
    put = plain_put(rollup)
    entry = json.loads(put.entry)
    assert (entry["started_at"] is None, entry["ended_at"] is None) == (not started_us, not ended_us)
    assert entry["duration_ms"] is None


def test_a_tombstone_is_empty_but_for_its_version() -> None:
    put = read_put(tombstone(TRACE, 8 << 32, (3, 2, 1), 77, 70))
    assert (put.trace_id, put.version, put.changed_ms, put.first) == (TRACE.hex(), 8 << 32, 77, False)
    assert put.counts == Counts()
    assert json.loads(put.entry) == {"_": [8, 0, 0, 77, 0, [-len(Counts())], [], [], {}, 0, [3, 2, 1]]}


@given(st.lists(st.integers(0, 3), min_size=23, max_size=23))
def test_counts_come_back_from_an_entry(figures: list[int]) -> None:
    text = private_json((2 << 32) + 5, (0, 0, 0), 9, Counts._make(figures), (0, 0), [], [], {}, 0)
    spans, replacements, _, changed, _, counts, *_ = json.loads(text)
    assert (spans, replacements, changed) == (2, 5, 9)
    assert with_zeros(counts) == figures


@given(st.integers(0, 253_402_300_799_999_999))
def test_times_are_rfc3339_of_fixed_width(time_us: int) -> None:
    seconds, us = divmod(time_us, 1_000_000)
    expected = datetime.fromtimestamp(seconds, UTC).replace(microsecond=us)
    assert rfc3339(time_us) == expected.strftime("%Y").zfill(4) + expected.strftime("-%m-%dT%H:%M:%S.%fZ")
    assert len(rfc3339(time_us)) == 27


@given(st.lists(st.integers(0, 40_000), min_size=70, max_size=200))
def test_dates_stay_right_when_many_are_used(days: list[int]) -> None:
    for day in days:
        assert rfc3339(day * 86_400_000_000)[:10] == datetime.fromtimestamp(day * 86_400, UTC).strftime("%Y-%m-%d")


@pytest.mark.parametrize(
    ("whole", "rest", "text"),
    [(0, 0, "0.000000000"), (0, 1, "0.000000001"), (3, 12_300_000, "3.012300000"), (1, 2_500_000_000, "3.500000000")],
)
def test_costs_have_nine_places(whole: int, rest: int, text: str) -> None:
    assert cost_text(whole, rest) == text


@pytest.mark.parametrize(
    ("reported", "priced", "source"), [(0, 0, "none"), (1, 0, "reported"), (0, 2, "priced"), (1, 1, "mixed")]
)
def test_where_a_cost_is_from(reported: int, priced: int, source: str) -> None:
    assert cost_source(reported, priced) == source


def session_rollup(**changes: object) -> SessionRollup:
    entry = json.loads(plain_put(trace_rollup()).entry)
    late = entry | {"trace_id": "a" * 32, "started_at": None, "ended_at": None, "duration_ms": None}
    twin = entry | {"trace_id": "0" * 32}
    fields: dict[str, object] = {
        "ref": SessionRef("my project", "s/1"),
        "revision": 2,
        "close_reason": "idle",
        "opened_ms": 1_760_000_000_400,
        "started_us": 1_760_000_000_123_456,
        "ended_us": 1_760_000_061_357_956,
        "counts": Counts(trace_count=3, span_count=24, prompt_tokens=7, completion_tokens=5, cost_rest_nano=12_300_000),
        "users": [FirstUse(1, "01" * 8, "u-1"), FirstUse(2, "02" * 8, "u-0")],
        "services": ["chat"],
        "models": {"b": [1, 2, 3, 4, 0, 5, 1, 0], "a": [9, 1200, 300, 0, 1, 0, 2, 3]},
        "trace_entries": [late, entry, twin],
        "truncated": False,
    }
    return SessionRollup(**(fields | changes))  # type: ignore[arg-type]


def test_a_summary_is_what_consumers_were_promised() -> None:
    document = summary(session_rollup())
    check_summary(document)
    content = json.loads(document)
    assert content["summary_id"] == "my%20project/s%2F1@2"
    assert (content["opened_at"], content["duration_ms"]) == ("2025-10-09T08:53:20.400000Z", 61234.5)
    assert (content["user_id"], content["user_ids"]) == ("u-1", ["u-1", "u-0"])
    assert (content["tokens"]["total"], content["cost_usd"], content["cost_source"]) == (12, "0.012300000", "none")
    assert [trace["trace_id"] for trace in content["traces"]] == ["0" * 32, TRACE.hex(), "a" * 32]
    assert content["models"]["b"] == {
        "calls": 1,
        "prompt": 2,
        "completion": 3,
        "embedding": 4,
        "cost_usd": "0.000000005",
        "cost_source": "reported",
    }
    assert content["models"]["a"]["cost_source"] == "mixed"


def test_a_summary_does_not_depend_on_the_order_in_which_it_was_read() -> None:
    session = session_rollup()
    other = session_rollup(trace_entries=session.trace_entries[::-1], models=dict(reversed(session.models.items())))
    assert summary(session) == summary(other)


def test_a_session_that_knows_nothing_says_null() -> None:
    document = summary(
        session_rollup(started_us=0, ended_us=0, users=[], services=[], models={}, trace_entries=[], counts=Counts())
    )
    check_summary(document)
    content = json.loads(document)
    assert [content[name] for name in ("started_at", "ended_at", "duration_ms", "user_id")] == [None] * 4


def test_without_detail_traces_and_models_are_left_out_and_it_says_so() -> None:
    whole, cut = json.loads(summary(session_rollup())), json.loads(summary(session_rollup(), detail=False))
    check_summary(summary(session_rollup(), detail=False))
    assert cut == whole | {"traces": [], "models": {}, "truncated": True}


def stored_entry(
    number: int, *, scope: str, starts: int = 0, lasts: int = 10, cost: int = NO_COST
) -> dict[str, object]:
    """The entry of a trace of one call of a scope, as it is read back."""
    call = llm(number, None, 10, 5, at=starts, lasts=lasts, scope=scope, cost=cost, model="priced")
    put = plain_put(figures_of([call]), number.to_bytes(16, "big"))
    entry: dict[str, object] = json.loads(put.entry)
    return entry


def test_traces_say_where_their_cost_is_from() -> None:
    both = figures_of([llm(1, None, 10, 5, cost=7), llm(2, None, 10, 5, model="priced")])
    mixed = json.loads(plain_put(both).entry)
    entries = [stored_entry(1, scope="a", cost=7), stored_entry(2, scope="a", starts=1), mixed]
    document = summary(session_rollup(trace_entries=entries))
    check_summary(document)
    traces = {trace["trace_id"]: trace for trace in json.loads(document)["traces"]}
    assert {trace["cost_source"] for trace in traces.values()} == {"reported", "priced", "mixed"}
    assert traces[f"{1:032x}"]["cost_source"] == "reported"
    assert traces[TRACE.hex()]["cost_source"] == "mixed"
    assert all("_" not in trace for trace in traces.values())


def test_traces_that_tell_the_calls_of_another_one_again_are_flagged() -> None:
    def flagged(*entries: dict[str, object], detail: bool = True) -> int:
        document = json.loads(summary(session_rollup(trace_entries=list(entries)), detail=detail))
        found: int = document["flags"]["repeated_call_traces"]
        return found

    outer, inner = stored_entry(1, scope="langchain", lasts=100), stored_entry(2, scope="openai", starts=10)
    assert flagged(outer, inner) == flagged(inner, outer) == flagged(outer, inner, detail=False) == 1
    assert flagged(outer, stored_entry(2, scope="langchain", starts=10)) == 0
    assert flagged(outer, stored_entry(2, scope="openai", starts=100)) == 0
    del cast("list[object]", inner["_"])[9:]  # written before there was a mark
    assert flagged(outer, inner) == 0
