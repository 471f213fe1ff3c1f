"""Session rollups: put, claim, settle."""

from __future__ import annotations

import pytest

from aggregator.core.model import TIME_LAST, TracePut
from aggregator.ports import Claim, ClaimOutcome, PutOutcome, PutReply, SessionPut, Transition
from tests.contract.builders import HOUR_US, T0_MS, T0_US, gone, plain_rollup, ref, trace_put, whole_reply
from tests.contract.conftest import IDLE_MS, MAX_DURATION_MS, MAX_TRACES, TRACE_LIFE_MS, Stores

APPLIED, SAME, STALE, FOLDED = PutOutcome.APPLIED, PutOutcome.SAME, PutOutcome.STALE, PutOutcome.FOLDED
TOO_LATE = PutOutcome.TOO_LATE
S = ref()


async def put(stores: Stores, *traces: TracePut) -> PutReply:
    one = SessionPut(S, list(traces))
    (reply,) = await stores.sessions.put([one])
    return whole_reply(one, reply, IDLE_MS)


async def claim(stores: Stores, watermark_ms: int) -> Claim:
    (reply,) = await stores.sessions.claim([S], watermark_ms=watermark_ms)
    return reply


async def test_a_new_session_shows_every_field(stores: Stores) -> None:
    usage = {"span_count": 8, "llm_span_count": 3, "prompt_tokens": 100, "completion_tokens": 20, "reported_costs": 1}
    cost = {"cost_whole_usd": 1, "cost_rest_nano": 4_100_000}
    reply = await put(
        stores,
        trace_put(
            1, 7, counts=usage | cost, users=[(T0_US, "0a", "ann")], models={"m:1": [2, 100, 20, 0, 1, 4_100_000]}
        ),
    )
    assert reply == PutReply([APPLIED], [7], Transition.OPENED, T0_MS + IDLE_MS)
    assert stores.session_hash(S) == {
        "project": "demo", "session_id": "s-1", "status": "open", "revision": "0",
        "opened_at": "2026-09-21T14:13:20.000000Z", "started_at": "2026-09-21T14:13:20.000000Z",
        "ended_at": "2026-09-21T14:13:22.000000Z", "duration_ms": "2000.000", "last_activity_ms": str(T0_MS),
        "user_id": "ann", "trace_count": "1", "span_count": "8", "llm_span_count": "3", "error_count": "0",
        "error_trace_count": "0", "prompt_tokens": "100", "completion_tokens": "20", "total_tokens": "120",
        "cache_read_tokens": "0", "cache_write_tokens": "0", "reasoning_tokens": "0", "embedding_tokens": "0",
        "llm_span_prompt_tokens": "0", "llm_span_completion_tokens": "0", "cost_nano_usd": "1004100000",
        "cost_usd": "1.004100000", "cost_source": "reported", "unpriced_calls": "0", "truncated": "0",
    }  # fmt: skip
    assert stores.model_fields(S) == {
        "m:1:calls": 2,
        "m:1:prompt_tokens": 100,
        "m:1:completion_tokens": 20,
        "m:1:embedding_tokens": 0,
        "m:1:cost_nano_usd": 1_004_100_000,
    }


async def test_versions_decide(stores: Stores) -> None:
    await put(stores, trace_put(1, 5))
    before = stores.session_hash(S)
    again = await put(stores, trace_put(1, 5, changed_ms=T0_MS + 9), trace_put(1, 4), trace_put(2, 1))
    assert again == PutReply([SAME, STALE, APPLIED], [5, 5, 1], Transition.NONE, T0_MS + IDLE_MS)
    assert stores.session_hash(S)["trace_count"] == "2"
    assert stores.session_hash(S)["last_activity_ms"] == before["last_activity_ms"]
    smaller = await put(stores, trace_put(1, 6, counts={"span_count": 2}, models={}))
    assert smaller.outcomes == [APPLIED]
    assert stores.session_hash(S)["span_count"] == "10"
    assert stores.session_hash(S)["prompt_tokens"] == "100"
    assert stores.model_fields(S)["gpt-4o:calls"] == 1


@pytest.mark.parametrize("version", [4, 5, 6])
async def test_a_state_begun_after_the_one_shown_had_expired_never_replaces_it(stores: Stores, version: int) -> None:
    """Else more late spans than the trace had would take the place of its figures."""
    await put(stores, trace_put(1, 5, changed_ms=T0_MS + 9), gone(2, 5, changed_ms=T0_MS + 9))
    before = stores.session_hash(S), stores.model_fields(S)
    born_ms = T0_MS + 9 + TRACE_LIFE_MS + 1
    late = trace_put(1, version, changed_ms=born_ms, born_ms=born_ms, counts={"span_count": 1}, first=version == 4)
    moved = gone(1, version, changed_ms=born_ms, born_ms=born_ms)
    returned = trace_put(2, version, changed_ms=born_ms, born_ms=born_ms)
    for trace in (late, moved, returned):
        reply = await put(stores, trace)
        assert reply == PutReply([TOO_LATE], [5], Transition.NONE, T0_MS + 9 + IDLE_MS)
    assert (stores.session_hash(S), stores.model_fields(S)) == before


async def test_a_state_rebuilt_while_the_one_shown_could_have_lived_replaces_it(stores: Stores) -> None:
    """A node of a Cluster has lost trace states, and the log is read again."""
    await put(stores, trace_put(1, 5, changed_ms=T0_MS + 9))
    born_ms = T0_MS + 9 + TRACE_LIFE_MS
    assert (await put(stores, trace_put(1, 4, changed_ms=born_ms, born_ms=born_ms))).outcomes == [STALE]
    grown = trace_put(1, 6, changed_ms=born_ms, born_ms=born_ms, counts={"span_count": 9})
    assert (await put(stores, grown)).outcomes == [APPLIED]
    assert stores.session_hash(S)["span_count"] == "9"


async def test_of_as_many_spans_the_greater_contents_are_newer_whatever_was_replaced(stores: Stores) -> None:
    """Where states have been lost, replacements only tell in which order a span's versions were read."""
    shown = 3 * 2**32 + 5  # three spans, five replacements
    await put(stores, trace_put(1, shown, contents=(7, 7, 7)))
    for less in ((6, 9, 9), (7, 6, 9), (7, 7, 6)):
        assert (await put(stores, trace_put(1, shown + 1, contents=less, models={}))).outcomes == [STALE]
    reply = await put(stores, trace_put(1, shown - 1, contents=(7, 7, 7)), trace_put(1, shown, contents=(7, 7, 7)))
    assert reply.outcomes == [STALE, SAME]
    assert (await put(stores, trace_put(1, 2 * 2**32 + 9, contents=(9, 9, 9)))).outcomes == [STALE]
    for counts, more in enumerate([(7, 7, 8), (7, 8, 0), (8, 0, 0)], start=20):
        new = trace_put(1, shown - 1, contents=more, counts={"span_count": counts})
        assert (await put(stores, new)).outcomes == [APPLIED]
        assert stores.session_hash(S)["span_count"] == str(counts)
    assert (await put(stores, trace_put(1, 4 * 2**32, contents=(0, 0, 0)))).outcomes == [APPLIED]
    assert (await put(stores, gone(1, 4 * 2**32, contents=(0, 0, 1)))).outcomes == [APPLIED]
    assert (await put(stores, trace_put(1, 4 * 2**32 + 1, contents=(0, 0, 0)))).outcomes == [STALE]


async def test_two_versions_of_one_trace_in_one_put(stores: Stores) -> None:
    reply = await put(stores, trace_put(1, 5), trace_put(1, 6, counts={"span_count": 9}, models={}), trace_put(1, 5))
    assert reply.outcomes == [APPLIED, APPLIED, STALE]
    assert reply.versions == [5, 6, 6]
    assert stores.session_hash(S)["span_count"] == "9"
    assert stores.session_hash(S)["trace_count"] == "1"
    assert stores.model_fields(S) == {}


async def test_a_move_leaves_an_empty_session_that_is_dropped(stores: Stores) -> None:
    await put(stores, trace_put(1, 5, users=[(T0_US, "0a", "ann")]))
    reply = await put(stores, gone(1, 6, changed_ms=T0_MS + 1))
    assert reply == PutReply([APPLIED], [6], Transition.NONE, T0_MS + 1 + IDLE_MS)
    fields = stores.session_hash(S)
    assert fields["trace_count"] == "0"
    assert fields.keys().isdisjoint({"started_at", "ended_at", "duration_ms", "user_id"})
    assert stores.model_fields(S) == {}
    assert await claim(stores, T0_MS + 1 + IDLE_MS) == Claim(ClaimOutcome.DROPPED, 0, None)
    assert await claim(stores, T0_MS + 1 + IDLE_MS) == Claim(ClaimOutcome.GONE, 0, None)
    stores.assert_lives_or_expires()
    # The tombstone keeps the older put out, also without the session; other traces open it anew.
    assert await put(stores, trace_put(1, 5)) == PutReply([STALE], [6], Transition.NONE, 0)
    assert (await put(stores, trace_put(2, 1))).transition is Transition.OPENED
    assert stores.session_hash(S)["trace_count"] == "1"


async def test_a_tombstone_creates_no_session_and_no_activity(stores: Stores) -> None:
    assert await put(stores, gone(1, 6)) == PutReply([APPLIED], [6], Transition.NONE, 0)
    assert stores.session_hash(S) == {}
    stores.assert_lives_or_expires()
    assert await put(stores, gone(1, 6)) == PutReply([SAME], [6], Transition.NONE, 0)
    opened = await put(stores, trace_put(1, 5), trace_put(2, 1))
    assert opened == PutReply([STALE, APPLIED], [6, 1], Transition.OPENED, T0_MS + IDLE_MS)
    stores.assert_lives_or_expires()
    later = await put(stores, gone(3, 1, changed_ms=T0_MS + 99))
    assert later == PutReply([APPLIED], [1], Transition.NONE, T0_MS + IDLE_MS)
    # A newer version of a moved trace (it came back) replaces the tombstone.
    assert (await put(stores, trace_put(1, 7))).outcomes == [APPLIED]
    assert stores.session_hash(S)["trace_count"] == "2"


async def test_a_session_that_showed_something_says_that_it_is_empty(stores: Stores) -> None:
    await put(stores, trace_put(1, 5))
    await claim(stores, T0_MS + IDLE_MS)
    assert await stores.sessions.settle([(S, 1)]) == [True]
    stores.assert_lives_or_expires()
    assert (await put(stores, gone(1, 6, changed_ms=T0_MS + IDLE_MS))).transition is Transition.REOPENED
    stores.assert_lives_or_expires()
    again = await claim(stores, T0_MS + 2 * IDLE_MS)
    assert again.outcome is ClaimOutcome.CLAIMED
    assert again.rollup is not None
    assert again.rollup.revision == 2
    assert again.rollup.trace_entries == []
    assert again.rollup.counts.trace_count == 0


async def test_claim_waits_for_the_deadline_and_repeats_itself(stores: Stores) -> None:
    await put(stores, trace_put(1, 5, users=[(0, "0b", "bob"), (0, "0c", "cid")], services=["b", "a"]))
    deadline = T0_MS + IDLE_MS
    assert await claim(stores, deadline - 1) == Claim(ClaimOutcome.NOT_DUE, deadline, None)
    first = await claim(stores, deadline)
    assert (first.outcome, first.deadline_ms) == (ClaimOutcome.CLAIMED, deadline)
    rollup = plain_rollup(first.rollup)
    assert rollup["revision"] == 1
    assert rollup["close_reason"] == "idle"
    assert rollup["opened_ms"] == T0_MS
    assert rollup["users"] == [(TIME_LAST, "0b", "bob"), (TIME_LAST, "0c", "cid")]
    assert rollup["services"] == ["a", "b"]
    assert rollup["models"] == {"gpt-4o": [1, 100, 20, 0, 0, 4_100_000, 0, 0]}
    (entry,) = rollup["trace_entries"]
    assert (entry["trace_id"], entry["name"], entry["_"][:2]) == (f"{1:032x}", "turn", [0, 5])
    assert stores.session_hash(S)["status"] == "closing"
    assert stores.session_hash(S)["revision"] == "1"
    later = await claim(stores, deadline + MAX_DURATION_MS)
    assert plain_rollup(later.rollup) == rollup
    # A tombstone for a trace that was never here leaves the claim as it is.
    assert (await put(stores, gone(9, 1))).transition is Transition.NONE
    assert plain_rollup((await claim(stores, deadline)).rollup) == rollup


async def test_settle_closes_the_revision_it_names(stores: Stores) -> None:
    await put(stores, trace_put(1, 5))
    assert await stores.sessions.settle([(S, 0), (S, 1), (ref("none"), 1)]) == [False, False, False]
    await claim(stores, T0_MS + IDLE_MS)
    assert await stores.sessions.settle([(S, 2)]) == [False]
    assert await stores.sessions.settle([(S, 1), (S, 1)]) == [True, True]
    assert stores.session_hash(S)["status"] == "closed"
    stores.assert_lives_or_expires()
    assert await claim(stores, T0_MS + IDLE_MS) == Claim(ClaimOutcome.CLOSED, 0, None)
    # A duplicate leaves it closed; so does a tombstone for a trace it never showed.
    assert await put(stores, trace_put(1, 5)) == PutReply([SAME], [5], Transition.NONE, 0)
    assert await put(stores, gone(2, 1)) == PutReply([APPLIED], [1], Transition.NONE, 0)
    stores.assert_lives_or_expires()


async def test_a_put_between_claim_and_settle_reopens(stores: Stores) -> None:
    await put(stores, trace_put(1, 5))
    await claim(stores, T0_MS + IDLE_MS)
    late_ms = T0_MS + IDLE_MS + 5
    reply = await put(stores, trace_put(2, 5, changed_ms=late_ms))
    assert reply == PutReply([APPLIED], [5], Transition.REOPENED, late_ms + IDLE_MS)
    assert await stores.sessions.settle([(S, 1)]) == [False]
    assert stores.session_hash(S)["status"] == "open"
    second = await claim(stores, late_ms + IDLE_MS)
    assert second.rollup is not None
    assert second.rollup.revision == 2
    assert second.rollup.counts.trace_count == 2
    assert second.rollup.opened_ms == T0_MS


async def test_max_duration_counts_from_the_last_opening(stores: Stores) -> None:
    await put(stores, trace_put(1, 5))
    busy_ms = T0_MS + MAX_DURATION_MS - 10
    assert (await put(stores, trace_put(1, 6, changed_ms=busy_ms))).deadline_ms == T0_MS + MAX_DURATION_MS
    due = await claim(stores, T0_MS + MAX_DURATION_MS)
    assert due.rollup is not None
    assert due.rollup.close_reason == "max_duration"
    # Once the idle time has passed as well, a repeated claim still gives the reason it gave.
    repeat = await claim(stores, busy_ms + IDLE_MS)
    assert repeat.rollup is not None
    assert repeat.rollup.close_reason == "max_duration"
    reply = await put(stores, trace_put(1, 7, changed_ms=busy_ms + 20))
    assert reply == PutReply([APPLIED], [7], Transition.REOPENED, busy_ms + 20 + IDLE_MS)
    idle = await claim(stores, busy_ms + 20 + IDLE_MS)
    assert idle.rollup is not None
    assert idle.rollup.close_reason == "idle"


async def test_bounds_and_user_follow_a_trace_that_shrinks_or_leaves(stores: Stores) -> None:
    early = trace_put(
        1, 5, started_us=T0_US - HOUR_US, ended_us=T0_US + HOUR_US, users=[(T0_US - HOUR_US, "0a", "ann")]
    )
    await put(stores, early, trace_put(2, 5, users=[(T0_US, "0b", "bob")]), trace_put(3, 5, started_us=0, ended_us=0))
    assert stores.session_hash(S)["duration_ms"] == "7200000.000"
    assert stores.session_hash(S)["user_id"] == "ann"
    await put(
        stores, trace_put(1, 6, started_us=T0_US + 1, ended_us=T0_US + 2_000_001, users=[(T0_US + 1, "0a", "ann")])
    )
    assert stores.session_hash(S)["started_at"] == "2026-09-21T14:13:20.000000Z"
    assert stores.session_hash(S)["duration_ms"] == "2000.001"
    assert stores.session_hash(S)["user_id"] == "bob"
    await put(stores, gone(2, 6))
    assert stores.session_hash(S)["duration_ms"] == "2000.000"
    assert stores.session_hash(S)["user_id"] == "ann"
    await put(stores, gone(1, 7))
    assert stores.session_hash(S).keys().isdisjoint({"started_at", "ended_at", "duration_ms", "user_id"})


async def test_figures_near_the_caps_stay_exact(stores: Stores) -> None:
    tokens, usd = 10**12, 10**6
    for number in range(1, 13):
        counts = {"prompt_tokens": tokens, "completion_tokens": tokens - 1, "priced_costs": 1}
        cost = {"cost_whole_usd": usd * 999, "cost_rest_nano": 999_999_999}
        figures = {"big": [1, tokens, tokens - 1, 0, usd * 999, 999_999_999], "small": [1, 1, 1, 1, 0, 1]}
        await put(stores, trace_put(number, number, counts=counts | cost, models=figures))
    fields = stores.session_hash(S)
    assert fields["total_tokens"] == str(12 * (2 * tokens - 1))
    assert fields["cost_nano_usd"] == str(12 * (usd * 999 * 10**9 + 999_999_999))
    assert fields["cost_usd"] == "11988000011.999999988"
    assert stores.model_fields(S)["big:cost_nano_usd"] == int(fields["cost_nano_usd"])
    await put(stores, *[gone(number, 99) for number in range(2, 13)])
    assert stores.session_hash(S)["cost_usd"] == "999000000.999999999"
    assert stores.model_fields(S)["big:prompt_tokens"] == tokens


async def test_the_costs_of_a_model_are_counted_by_their_source_where_there_are_any(stores: Stores) -> None:
    def costs(number: int, version: int, *reported_and_priced: int) -> TracePut:
        return trace_put(number, version, models={"m": [1, 1, 0, 0, 0, 5, *reported_and_priced]})

    def shown() -> dict[str, int]:
        return {name: value for name, value in stores.model_fields(S).items() if name.endswith("_costs")}

    await put(stores, costs(1, 1))
    assert shown() == {}
    await put(stores, costs(1, 2, 3), costs(2, 1, 0, 2))
    assert shown() == {"m:reported_costs": 3, "m:priced_costs": 2}
    await put(stores, costs(1, 3, 1), costs(3, 1, 1, 1))
    assert shown() == {"m:reported_costs": 2, "m:priced_costs": 3}
    await put(stores, gone(2, 9), costs(3, 2, 1))
    assert shown() == {"m:reported_costs": 2}
    (claimed,) = await stores.sessions.claim([S], watermark_ms=T0_MS + IDLE_MS)
    assert claimed.rollup is not None
    assert claimed.rollup.models == {"m": [2, 2, 0, 0, 0, 10, 2, 0]}
    await put(stores, gone(1, 9), gone(3, 9))
    assert stores.model_fields(S) == {}


async def test_cost_source_follows_its_counts(stores: Stores) -> None:
    await put(stores, trace_put(1, 1, counts={"reported_costs": 1}))
    assert stores.session_hash(S)["cost_source"] == "reported"
    await put(stores, trace_put(2, 1, counts={"priced_costs": 2}))
    assert stores.session_hash(S)["cost_source"] == "mixed"
    await put(stores, gone(1, 2))
    assert stores.session_hash(S)["cost_source"] == "priced"
    await put(stores, gone(2, 2))
    assert stores.session_hash(S)["cost_source"] == "none"


async def test_what_was_begun_after_the_last_change_of_those_folded_is_none_of_them(stores: Stores) -> None:
    """A redelivery after a crash between the levels: the trace is this session's already, but was never put."""
    for number in range(MAX_TRACES + 1):
        await put(stores, trace_put(number, 1, changed_ms=T0_MS + number))
    redelivered = [trace_put(98, 1, changed_ms=T0_MS + 99, born_ms=T0_MS + born, first=False) for born in (1, 2)]
    assert [(await put(stores, trace)).outcomes for trace in redelivered] == [[FOLDED], [APPLIED]]
    assert stores.session_hash(S)["trace_count"] == str(MAX_TRACES + 2)


async def test_too_many_traces_are_folded_for_good(stores: Stores) -> None:
    for number in range(MAX_TRACES + 1):
        started = T0_US - number * HOUR_US
        user = [(T0_US + number, f"{number:02x}", f"u{number:02}")]
        await put(stores, trace_put(number, 1, changed_ms=T0_MS + number, started_us=started, users=user))
    fields = stores.session_hash(S)
    assert (fields["trace_count"], fields["truncated"], fields["user_id"]) == (str(MAX_TRACES + 1), "1", "u00")
    # Trace 0 and 1 are folded: not added again; what is new in the session still is.
    reply = await put(stores, trace_put(0, 2, first=False), trace_put(99, 1, changed_ms=T0_MS + 99))
    assert reply.outcomes == [FOLDED, APPLIED]
    assert reply.versions == [0, 1]
    assert stores.session_hash(S)["trace_count"] == str(MAX_TRACES + 2)
    # The earliest start leaves; the folded traces' end and user stay.
    await put(stores, gone(MAX_TRACES, 2, changed_ms=T0_MS + 100))
    claimed = await claim(stores, T0_MS + 100 + IDLE_MS)
    assert claimed.rollup is not None
    assert claimed.rollup.truncated
    assert claimed.rollup.started_us == T0_US - (MAX_TRACES - 1) * HOUR_US
    assert [use.user_id for use in claimed.rollup.users] == [f"u{number:02}" for number in range(16)]
    assert len(claimed.rollup.trace_entries) == MAX_TRACES - 1
    assert claimed.rollup.counts.trace_count == MAX_TRACES + 1


async def test_a_truncated_trace_marks_its_session_while_it_is_there(stores: Stores) -> None:
    await put(stores, trace_put(1, 1, counts={"truncated_traces": 1}))
    assert stores.session_hash(S)["truncated"] == "1"
    await put(stores, gone(1, 2))
    assert stores.session_hash(S)["truncated"] == "0"


@pytest.mark.parametrize(
    "hostile",
    [" ", "{}", "a{b}c", "%", "%7B", "é\n\r\0", "a/b", "😀" * 9, '"],"trace_id":"', "x" * 512, "%F0%", "]]]["],
    ids=ascii,
)
async def test_hostile_names(stores: Stores, hostile: str) -> None:
    who = ref(hostile, hostile)
    usage = {hostile: [1, 2, 3, 4, 5, 6], "m": [1, 0, 0, 0, 0, 0]}
    first = trace_put(1, 1, users=[(T0_US, "0a", hostile)], services=[hostile], models=usage, name=hostile)
    second = trace_put(1, 2, users=[(T0_US, "0a", hostile)], services=[hostile], models=usage, name=hostile)
    for trace in (first, second):
        one = SessionPut(who, [trace])
        (reply,) = await stores.sessions.put([one])
        assert whole_reply(one, reply, IDLE_MS).outcomes == [APPLIED]
    fields = stores.session_hash(who)
    assert (fields["project"], fields["session_id"], fields["user_id"]) == (hostile, hostile, hostile)
    assert stores.model_fields(who)[f"{hostile}:cost_nano_usd"] == 5_000_000_006
    (claimed,) = await stores.sessions.claim([who], watermark_ms=T0_MS + IDLE_MS)
    assert claimed.rollup is not None
    assert claimed.rollup.models == {name: [*figures, 0, 0] for name, figures in usage.items()}
    assert claimed.rollup.services == [hostile]
    assert claimed.rollup.trace_entries[0]["name"] == hostile


async def test_many_sessions_and_many_traces_in_one_call(stores: Stores) -> None:
    refs = [ref(f"s-{number}") for number in range(130)]
    assert await stores.sessions.put([]) == []
    assert await stores.sessions.put([SessionPut(S, [])]) == [PutReply([], [], Transition.NONE, 0)]
    puts = [SessionPut(who, [trace_put(number, 1) for number in range(3)]) for who in refs]
    replies = await stores.sessions.put(puts)
    assert [reply and reply.transition for reply in replies] == [Transition.OPENED] * 130
    claims = await stores.sessions.claim(refs, watermark_ms=T0_MS + IDLE_MS)
    assert [found.rollup.ref for found in claims if found.rollup] == refs
    assert await stores.sessions.settle([(who, 1) for who in refs]) == [True] * 130


async def test_a_put_of_more_traces_than_one_item_takes(stores: Stores) -> None:
    traces = [trace_put(number, 1, changed_ms=T0_MS + number) for number in range(MAX_TRACES)]
    await put(stores, *traces)
    again = [trace_put(number % MAX_TRACES, 1) for number in range(250)]
    reply = await put(stores, *again)
    assert reply == PutReply([SAME] * 250, [1] * 250, Transition.NONE, T0_MS + MAX_TRACES - 1 + IDLE_MS)


async def test_more_models_than_one_command_takes(stores: Stores) -> None:
    """Some hundred of them by name, model-1 among these, and the others together."""
    models = {f"model-{number}": [1, number, 2, 0, 0, 5] for number in range(1500)}
    await put(stores, trace_put(models=models))
    assert sum(value for name, value in stores.model_fields(ref()).items() if name.endswith(":calls")) == 1500
    fewer = {"model-1": [1, 1, 2, 0, 0, 5]}
    await put(stores, trace_put(version=9 * 2**32, models=fewer))
    fields = stores.model_fields(ref())
    assert {name for name in fields if fields[name]} == {
        "model-1:calls",
        "model-1:prompt_tokens",
        "model-1:completion_tokens",
        "model-1:cost_nano_usd",
    }
