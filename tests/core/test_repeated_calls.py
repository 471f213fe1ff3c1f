"""Traces that tell another one's calls again are suspected, and those that only look a little like it are not."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from aggregator.core.repeated_calls import NO_SCOPES, SeenTrace, count_repeated, scopes_mark
from tests.oracle import repeated_call_traces
from tests.oracle_traces import TraceFigures

LANGCHAIN, OPENAI, LITELLM = 1, 2, 3
SECOND = 1_000_000
BASE_US = 1_795_000_000_000_000


def trace(
    started: float, ended: float, scopes: int, prompt: int = 10, completion: int = 5, *, name: str = ""
) -> SeenTrace:
    """A trace from `started` to `ended` seconds."""
    times = (BASE_US + round(started * SECOND), BASE_US + round(ended * SECOND))
    return SeenTrace(*times, name or f"{started}-{ended}-{scopes}", scopes, prompt, completion)


def test_one_call_in_two_traces() -> None:
    assert count_repeated([trace(0, 2, LANGCHAIN), trace(0.1, 1.9, OPENAI)]) == 1
    assert count_repeated([trace(0.1, 1.9, OPENAI), trace(0, 2, LANGCHAIN)]) == 1


def test_several_calls_of_one_trace_in_traces_of_their_own() -> None:
    outer = trace(0, 9, LANGCHAIN, 60, 15)
    calls = [trace(n, n + 0.5, OPENAI, 10 * n, 5) for n in (1, 2, 3)]
    assert count_repeated([outer, *calls]) == 3
    assert count_repeated([outer, *calls[:2]]) == 0
    assert count_repeated([outer, *calls[:2], trace(3, 3.5, LITELLM, 30, 5)]) == 3


def test_each_turn_of_a_session_is_looked_at_by_itself() -> None:
    turns = [one for at in (0, 10, 20) for one in (trace(at, at + 2, LANGCHAIN), trace(at + 0.1, at + 2, OPENAI))]
    assert count_repeated(turns) == 3


def test_three_instrumentations_of_one_call() -> None:
    assert count_repeated([trace(0, 3, LANGCHAIN), trace(0.1, 2.9, LITELLM), trace(0.2, 2.8, OPENAI)]) == 2


def test_another_trace_within_the_time_does_not_hide_it() -> None:
    assert count_repeated([trace(0, 3, LANGCHAIN), trace(0.1, 2.9, OPENAI), trace(0.2, 1, LITELLM, 7, 7)]) == 1


def test_overhang_is_allowed_at_the_end_alone() -> None:
    for ended, found in ((2.05, 1), (2.050001, 0)):
        assert count_repeated([trace(0, 2, LANGCHAIN), trace(1, ended, OPENAI)]) == found
    assert count_repeated([trace(1, 2, LANGCHAIN), trace(0.999999, 1.9, OPENAI)]) == 0


def test_of_two_at_the_same_time_one_is_suspected() -> None:
    assert count_repeated([trace(0, 2, LANGCHAIN), trace(0, 2, OPENAI)]) == 1


def test_equal_calls_one_after_the_other_are_calls_of_their_own() -> None:
    assert count_repeated([trace(0, 1, LANGCHAIN), trace(1, 2, OPENAI), trace(2, 3, LANGCHAIN)]) == 0
    assert count_repeated([trace(0, 0.01, LANGCHAIN), trace(0.01, 0.02, OPENAI), trace(0.03, 0.04, OPENAI)]) == 0


def test_traces_of_the_same_scopes_are_calls_of_their_own() -> None:
    assert count_repeated([trace(0, 3, OPENAI), trace(1, 2, OPENAI)]) == 0
    assert count_repeated([trace(0, 3, OPENAI, 20, 10), trace(1, 2, OPENAI), trace(1.5, 2.5, OPENAI)]) == 0


def test_parallel_traces_that_do_not_nest_are_calls_of_their_own() -> None:
    assert count_repeated([trace(0, 2, LANGCHAIN), trace(1, 3, OPENAI)]) == 0


def test_both_figures_must_be_the_same_and_above_zero() -> None:
    assert count_repeated([trace(0, 2, LANGCHAIN, 10, 5), trace(1, 2, OPENAI, 10, 6)]) == 0
    assert count_repeated([trace(0, 2, LANGCHAIN, 10, 0), trace(1, 2, OPENAI, 10, 0)]) == 0
    assert count_repeated([trace(0, 2, LANGCHAIN, 0, 5), trace(1, 2, OPENAI, 0, 5)]) == 0
    assert count_repeated([trace(0, 2, LANGCHAIN, 0, 0), trace(1, 2, OPENAI, 0, 0)]) == 0


def test_traces_without_times_or_calls_are_left_out() -> None:
    unknown = SeenTrace(0, BASE_US + SECOND, "unknown start", OPENAI, 10, 5)
    endless = SeenTrace(BASE_US + SECOND, 0, "unknown end", OPENAI, 10, 5)
    outer = trace(0, 2, LANGCHAIN)
    assert count_repeated([outer, unknown, endless, trace(0.5, 1, NO_SCOPES)]) == 0
    assert count_repeated([outer, unknown, endless, trace(0.5, 1, NO_SCOPES, 0, 0), trace(0.5, 1, OPENAI)]) == 1
    assert count_repeated([]) == 0


def test_scopes_have_a_mark_that_does_not_depend_on_their_order() -> None:
    assert scopes_mark(["a", "b"]) == scopes_mark(["b", "a"])
    assert len({scopes_mark(scopes) for scopes in (["a"], ["b"], ["a", "b"], [])}) == 4
    assert scopes_mark([]) == NO_SCOPES
    assert all(0 < scopes_mark([str(n)]) < 2**16 for n in range(70_000))


def figures(seen: SeenTrace) -> TraceFigures:
    return TraceFigures(
        trace_id=seen.trace_id.encode(),
        started_us=seen.started_us,
        ended_us=seen.ended_us,
        prompt_tokens=seen.prompt_tokens,
        completion_tokens=seen.completion_tokens,
        scopes={str(seen.scopes)} if seen.scopes else set(),
    )


@st.composite
def sessions(draw: st.DrawFn) -> list[SeenTrace]:
    few = st.sampled_from
    found = []
    for n in range(draw(st.integers(0, 9))):
        started = draw(few((0, 0.01, 1, 2)))
        ended = started + draw(few((0, 0.01, 0.05, 0.06, 1, 2)))
        figures = draw(few(((10, 5), (10, 5), (20, 10), (5, 5), (0, 5), (0, 0))))
        found.append(trace(started, ended, draw(few((NO_SCOPES, 1, 1, 2, 3))), *figures, name=f"{n:02}"))
    return draw(st.permutations(found))


@given(sessions())
def test_it_is_what_the_oracle_counts_in_any_order(traces: list[SeenTrace]) -> None:
    assert count_repeated(traces) == repeated_call_traces([figures(one) for one in traces])


def test_thousands_at_once_take_a_bounded_number_of_steps() -> None:
    rng = random.Random(1)
    parallel = [trace(rng.random(), 100 + n, n % 7 + 1, n + 1, 5, name=str(n)) for n in range(20_000)]
    assert count_repeated(parallel) == 0
    turns = [trace(n, n + 0.9, LANGCHAIN, n + 1) for n in range(5000)]
    turns += [trace(n + 0.1, n + 0.8, OPENAI, n + 1) for n in range(5000)]
    assert count_repeated(turns) == 5000
