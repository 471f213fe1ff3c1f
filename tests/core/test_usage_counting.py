"""Which spans of a trace count, sentence by sentence (DESIGN section 4)."""

from __future__ import annotations

import pytest

from aggregator.core.model import AGENT, CHAIN, OTHER, TOOL, Span
from aggregator.core.twins import COMPLETION_MARGIN
from tests.core.trees import Tokens, agent, chain, embedding, figures_of, llm, span, tokens_of, tool


def counted(*spans: Span) -> tuple[int, int]:
    trace = figures_of(spans)
    return (trace.prompt_tokens, trace.completion_tokens)


class TestNested:
    def test_a_span_without_any_figure_above_zero_has_no_usage(self) -> None:
        trace = figures_of([llm(1), embedding(2)])
        assert (tokens_of(trace), trace.models) == (Tokens(), {})

    def test_an_llm_span_with_usage_counts(self) -> None:
        assert counted(llm(1, None, 10, 5), llm(2, None, 20, 7)) == (30, 12)

    @pytest.mark.parametrize("inner", [(10, 5), (10, 6), (11, 5)])
    def test_one_with_the_same_prompt_or_completion_as_one_below_repeats_it(self, inner: tuple[int, int]) -> None:
        trace = figures_of([llm(1, None, 10, 5), llm(2, 1, *inner)])
        assert (trace.prompt_tokens, trace.completion_tokens) == inner
        assert not trace.nested_llm

    def test_of_several_nested_ones_that_describe_one_call_only_the_innermost_counts(self) -> None:
        trace = figures_of([llm(1, None, 10, 5, model="x"), llm(2, 1, 10, 6, model="y"), llm(3, 2, 11, 6, model="z")])
        assert (trace.prompt_tokens, trace.completion_tokens, list(trace.models)) == (11, 6, ["z"])

    @pytest.mark.parametrize("sums", [(30, 1), (1, 12), (30, 12)])
    def test_one_with_the_sum_of_those_below_repeats_them(self, sums: tuple[int, int]) -> None:
        trace = figures_of([llm(1, None, *sums), llm(2, 1, 10, 5), llm(3, 1, 20, 7)])
        assert (trace.prompt_tokens, trace.completion_tokens, trace.nested_llm) == (30, 12, False)

    def test_zero_matches_nothing(self) -> None:
        trace = figures_of([llm(1, None, 0, 5), llm(2, 1, 0, 7), llm(3, 1, 0, 8)])
        assert (trace.completion_tokens, trace.nested_llm) == (20, True)

    def test_only_the_nearest_ones_below_are_looked_at(self) -> None:
        # 3 is below 2, so that 1 (which would repeat it) is compared with 2 alone, and with no sum of both.
        assert counted(llm(1, None, 30, 9), llm(2, 1, 20, 7), llm(3, 2, 30, 8)) == (80, 24)
        assert counted(llm(1, None, 50, 9), llm(2, 1, 20, 7), llm(3, 2, 30, 8)) == (100, 24)

    def test_those_below_are_found_through_spans_of_other_classes(self) -> None:
        between = [chain(2, 1, 99, 99), span(3, 2), embedding(4, 3, 7), llm(5, 4)]
        trace = figures_of([llm(1, None, 10, 5), *between, llm(6, 5, 10, 5)])
        assert (trace.prompt_tokens, trace.completion_tokens, trace.embedding_tokens) == (10, 5, 7)

    @pytest.mark.parametrize("kind", [TOOL, AGENT])
    @pytest.mark.parametrize("tokens", [Tokens(), Tokens(prompt=3)])
    def test_they_are_not_looked_for_past_tool_and_agent_spans(self, kind: int, tokens: Tokens) -> None:
        trace = figures_of([llm(1, None, 10, 5), span(2, 1, kind=kind, tokens=tokens), span(3, 2), llm(4, 3, 10, 5)])
        assert (trace.prompt_tokens, trace.completion_tokens, trace.nested_llm) == (20, 10, False)

    @pytest.mark.parametrize("below", [chain(3, 2, 1, 1), chain(3, 2, cost=7), embedding(3, 2, 7)])
    def test_not_even_where_another_span_with_usage_or_cost_stands_below_the_tool(self, below: Span) -> None:
        trace = figures_of([llm(1, None, 10, 5), tool(2, 1), below, llm(4, 3, 10, 5)])
        assert (trace.prompt_tokens, trace.completion_tokens, trace.nested_llm) == (20, 10, False)

    @pytest.mark.parametrize("kind", [CHAIN, OTHER])
    def test_where_the_figures_differ_both_count_and_the_trace_is_marked(self, kind: int) -> None:
        trace = figures_of([llm(1, None, 10, 5), span(2, 1, kind=kind), llm(3, 2, 20, 7)])
        assert (trace.prompt_tokens, trace.completion_tokens, trace.nested_llm) == (30, 12, True)

    def test_an_embedding_is_compared_by_its_tokens_and_marks_nothing(self) -> None:
        trace = figures_of([embedding(1, None, 7), embedding(2, 1, 7), embedding(3, 2, 9), llm(4, 3, 7, 7)])
        assert (trace.embedding_tokens, trace.nested_llm, trace.prompt_tokens) == (16, False, 7)

    def test_an_embedding_repeats_the_sum_of_its_parts(self) -> None:
        assert figures_of([embedding(1, None, 7), embedding(2, 1, 3), embedding(3, 1, 4)]).embedding_tokens == 7

    def test_embedding_usage_is_in_no_total(self) -> None:
        assert tokens_of(figures_of([embedding(1, None, 7)])) == Tokens(embedding=7)

    def test_a_span_whose_parent_is_missing_is_a_root_until_it_arrives(self) -> None:
        outer, middle, inner = llm(1, None, 10, 5), span(2, 1), llm(3, 2, 10, 5)
        assert counted(outer, inner) == (20, 10)
        assert counted(outer, inner, middle) == (10, 5)


class TestDetails:
    def test_details_that_the_innermost_lacks_are_taken_from_what_repeats_it(self) -> None:
        trace = figures_of([llm(1, None, 10, 5, cache_read=3, cache_write=2, reasoning=4), llm(2, 1, 10, 5)])
        assert tokens_of(trace) == Tokens(prompt=10, completion=5, cache_read=3, cache_write=2, reasoning=4)

    def test_cache_read_and_write_go_together_and_reasoning_by_itself(self) -> None:
        trace = figures_of(
            [llm(1, None, 10, 5, cache_read=3, cache_write=2, reasoning=4), llm(2, 1, 10, 5, cache_write=1)]
        )
        assert tokens_of(trace) == Tokens(prompt=10, completion=5, cache_write=1, reasoning=4)

    @pytest.mark.parametrize("inner", [(10, 6), (11, 5)])
    def test_they_are_taken_only_if_both_figures_are_the_same(self, inner: tuple[int, int]) -> None:
        trace = figures_of([llm(1, None, 10, 5, cache_read=3, reasoning=4), llm(2, 1, *inner)])
        assert (trace.cache_read_tokens, trace.reasoning_tokens) == (0, 0)

    def test_along_a_chain_of_repeats_all_must_be_the_same(self) -> None:
        same = [llm(1, None, 10, 5, reasoning=4), llm(2, 1, 10, 5), llm(3, 2, 10, 5)]
        assert figures_of(same).reasoning_tokens == 4
        differs_above = [llm(1, None, 10, 5, reasoning=4), llm(2, 1, 10, 6), llm(3, 2, 10, 6)]
        assert figures_of(differs_above).reasoning_tokens == 0
        differs_below = [llm(1, None, 10, 5, reasoning=4), llm(2, 1, 10, 5), llm(3, 2, 10, 6)]
        assert figures_of(differs_below).reasoning_tokens == 0

    def test_the_earliest_repeat_that_has_them_lends_them(self) -> None:
        spans = [llm(1, None, 10, 5), llm(2, 1, 10, 5, reasoning=4), llm(3, 2, 10, 5, reasoning=2), llm(4, 3, 10, 5)]
        assert figures_of(spans).reasoning_tokens == 4

    def test_one_with_both_figures_the_same_is_preferred_then_the_earliest(self) -> None:
        outer = llm(1, None, 10, 5, reasoning=4)
        half, whole, other = llm(2, 1, 10, 6, model="half"), llm(3, 1, 10, 5, model="whole"), llm(4, 1, 10, 5)
        assert figures_of([outer, half, whole, other]).reasoning_tokens == 4
        # What it repeats shows in whose price the reasoning of the outer one's cost ends up.
        paid = [llm(1, None, 10, 5, cost=9), half, whole, other]
        assert figures_of(paid).models["whole"].cost_nano == 9

    def test_a_repeat_of_a_sum_lends_nothing(self) -> None:
        spans = [llm(1, None, 30, 12, reasoning=4), llm(2, 1, 10, 5), llm(3, 1, 20, 7)]
        assert figures_of(spans).reasoning_tokens == 0

    def test_a_chain_that_ends_at_a_repeat_of_a_sum_lends_nothing(self) -> None:
        spans = [llm(1, None, 30, 12, reasoning=4), llm(2, 1, 30, 12), llm(3, 2, 10, 5), llm(4, 2, 20, 7)]
        trace = figures_of(spans)
        assert (trace.prompt_tokens, trace.reasoning_tokens) == (30, 0)

    def test_details_are_never_counted_twice(self) -> None:
        spans = [llm(1, None, 10, 5, cache_read=3, reasoning=1), llm(2, 1, 10, 5, cache_read=3, reasoning=1)]
        assert tokens_of(figures_of(spans)) == Tokens(prompt=10, completion=5, cache_read=3, reasoning=1)


def twins(outer_lasts: int = 100, inner_at: int = 10, inner_lasts: int = 50, *, scope: str = "b") -> list[Span]:
    return [
        chain(1, at=0),
        llm(2, 1, 10, 5, at=0, lasts=outer_lasts, model="outer"),
        llm(3, 1, 10, 5, at=inner_at, lasts=inner_lasts, scope=scope, model="inner"),
    ]


def streamed(*, prompt: int = 3041, completion: int = 333, **more: object) -> list[Span]:
    """One call as captured: the outer span adds the token of the stream's start; `more` is of the inner one."""
    outer = llm(2, 1, 3041, 334, at=8, lasts=92, cache_read=192, cache_write=96, model="claude")
    inner: dict[str, object] = {
        "at": 9,
        "lasts": 90,
        "cache_read": 192,
        "cache_write": 96,
        "model": "claude",
        "scope": "b",
    } | more
    return [outer, llm(3, 1, prompt, completion, **inner)]


class TestTwins:
    def test_of_two_side_by_side_the_one_within_the_others_time_counts(self) -> None:
        trace = figures_of(twins())
        assert (trace.prompt_tokens, trace.completion_tokens, list(trace.models)) == (10, 5, ["inner"])
        assert not trace.nested_llm

    def test_in_different_parts_of_the_tree_they_are_found_too(self) -> None:
        assert counted(*twins()[1:], chain(9), llm(4, 9, 10, 5, at=200, scope="c")) == (20, 10)

    @pytest.mark.parametrize(("overhang", "prompt"), [(50_000, 10), (50_001, 20)])
    def test_fifty_milliseconds_of_overhang_at_the_end_are_allowed(self, overhang: int, prompt: int) -> None:
        assert figures_of(twins(100, 10, 90 + overhang)).prompt_tokens == prompt

    @pytest.mark.parametrize(("begins", "prompt"), [(10_000, 10), (10_001, 20)])
    def test_a_call_that_begins_after_the_other_has_ended_is_another_one(self, begins: int, prompt: int) -> None:
        assert figures_of(twins(10_000, begins, 100)).prompt_tokens == prompt

    def test_of_equally_early_ones_the_shortest_counts(self) -> None:
        assert list(figures_of(twins(50, 0, 60)).models) == ["outer"]

    def test_of_the_same_time_the_greater_span_id_counts(self) -> None:
        assert list(figures_of(twins(50, 0, 50)).models) == ["inner"]

    def test_one_scope_tells_each_of_its_calls(self) -> None:
        assert figures_of(twins(scope="a")).prompt_tokens == 20

    @pytest.mark.parametrize("figures", [(10, 6), (11, 5)])
    def test_whatever_the_model_both_figures_must_be_the_same(self, figures: tuple[int, int]) -> None:
        assert figures_of([*twins()[:2], llm(3, 1, *figures, at=10, lasts=50, scope="b")]).prompt_tokens > 10

    def test_a_stream_whose_start_one_scope_has_counted_twice_is_one_call(self) -> None:
        """OpenLLMetry around Anthropic's SDK."""
        assert counted(*streamed()) == (3041, 333)
        assert counted(*streamed(completion=334 - COMPLETION_MARGIN)) == (3041, 334 - COMPLETION_MARGIN)
        assert counted(*streamed(completion=334 + COMPLETION_MARGIN)) == (3041, 334 + COMPLETION_MARGIN)

    @pytest.mark.parametrize(
        "other",
        [
            {"completion": 334 - COMPLETION_MARGIN - 1},  # another answer to a prompt as long
            {"completion": 334 + COMPLETION_MARGIN + 1},
            {"prompt": 3040},  # another prompt with an answer about as long
            {"prompt": 3040, "completion": 334},  # and with one as long: short answers often are
            {"cache_read": 191},  # prompts that are as long by chance have not as much in the cache
            {"cache_write": 0},
            {"model": "claude-haiku"},
            {"model": ""},
            {"model": "claude-20250514"},
            {"scope": "a"},
            {"at": 9, "lasts": 91 + 50_001},
            {"at": -1},
        ],
    )
    def test_calls_that_only_look_alike_both_count(self, other: dict[str, object]) -> None:
        spans = streamed(**other)  # type: ignore[arg-type]
        assert counted(*spans) == (3041 + spans[1].prompt_tokens, 334 + spans[1].completion_tokens)

    def test_two_streams_without_a_model_or_a_prompt_both_count(self) -> None:
        assert counted(llm(1, None, 20, 5, lasts=90), llm(2, None, 20, 6, lasts=9, scope="b")) == (40, 11)
        spans = [llm(1, None, 0, 5, lasts=90, model="m"), llm(2, None, 0, 6, lasts=9, scope="b", model="m")]
        assert counted(*spans) == (0, 11)

    def test_streams_in_parallel_find_each_its_twin(self) -> None:
        """Answers of one model to one prompt, each seen by both scopes, the same figures first."""
        calls = [(2, "a", 31, 0, 100), (3, "b", 30, 10, 80), (4, "a", 51, 1, 100), (5, "b", 50, 12, 80)]
        spans = [llm(n, None, 20, c, scope=s, at=at, lasts=lasts, model="m") for n, s, c, at, lasts in calls]
        assert counted(*spans) == (40, 80)
        exact = [llm(2, None, 20, 31, at=0, lasts=100, model="m"), llm(3, None, 20, 30, at=1, lasts=100, model="m")]
        inner = llm(4, None, 20, 30, at=10, lasts=50, scope="b", model="m")
        assert counted(*exact, inner) == (40, 61)

    def test_embeddings_that_differ_are_no_twins(self) -> None:
        spans = [embedding(1, None, 20, lasts=90, model="m"), embedding(2, None, 21, lasts=9, scope="b", model="m")]
        assert figures_of(spans).embedding_tokens == 41

    def test_the_outer_one_of_a_stream_gives_its_cost_but_no_details(self) -> None:
        outer = llm(2, None, 20, 6, at=0, cost=7, reasoning=3, model="m")
        trace = figures_of([outer, llm(3, None, 20, 5, at=1, lasts=9, scope="b", model="m")])
        assert (trace.completion_tokens, trace.reasoning_tokens, trace.cost_nano) == (5, 0, 7)

    def test_one_above_the_other_is_no_twin(self) -> None:
        spans = [llm(1, None, 10, 5, scope="a"), tool(2, 1), llm(3, 2, 10, 5, scope="b", lasts=5)]
        assert counted(*spans) == (20, 10)
        # Also where the lower one starts first.
        spans = [llm(4, None, 10, 5, scope="a", lasts=5), tool(2, 4), llm(3, 2, 10, 5, scope="b")]
        assert counted(*spans) == (20, 10)

    def test_one_that_has_no_twin_hides_none_of_another_scope(self) -> None:
        # 3 ends before 1, is below it (so no twin of it), and is the only one that can repeat 4.
        spans = [llm(1, None, 10, 5, lasts=999, model="a"), tool(2, 1), llm(3, 2, 10, 5, lasts=500, scope="b", cost=7)]
        trace = figures_of([*spans, llm(4, None, 10, 5, lasts=9, model="b")])
        assert {name: one.cost_nano for name, one in trace.models.items()} == {"a": 0, "b": 7}

    def test_several_that_each_fail_in_another_way_are_no_twins(self) -> None:
        above = [llm(1, None, 10, 5, lasts=1000), tool(2, 1)]
        same_scope = llm(3, None, 10, 5, lasts=10**9, scope="b")
        assert counted(*above, same_scope, llm(4, 2, 10, 5, lasts=9, scope="b")) == (30, 15)

    @pytest.mark.parametrize("times", [{"at": -1}, {"at": 10, "lasts": None}, {"at": 10, "lasts": -1}])
    def test_without_valid_times_nothing_is_a_twin(self, times: dict[str, int | None]) -> None:
        assert figures_of([*twins()[:2], llm(3, 1, 10, 5, scope="b", **times)]).prompt_tokens == 20

    def test_each_span_repeats_at_most_one(self) -> None:
        assert counted(*twins(), llm(4, 1, 10, 5, at=11, lasts=5, scope="b")) == (20, 10)

    def test_each_is_one_of_two_at_most(self) -> None:
        # 2 repeats 3; then 4 is repeated by neither.
        assert counted(*twins(), llm(4, 1, 10, 5, at=11, lasts=5, scope="c")) == (20, 10)

    def test_the_first_one_that_fits_is_the_repeat(self) -> None:
        spans = [llm(1, None, 10, 5, at=0, model="x"), llm(2, None, 10, 5, at=1, model="y")]
        trace = figures_of([*spans, llm(3, None, 10, 5, at=2, lasts=9, scope="b", model="z")])
        assert set(trace.models) == {"y", "z"}

    def test_only_what_counts_after_the_nested_rule_can_be_a_twin(self) -> None:
        spans = [*twins(), llm(5, 2, 11, 5, at=1, lasts=9)]  # 2 now repeats 5
        assert counted(*spans) == (21, 10)

    def test_one_that_others_repeat_from_above_may_be_a_twin_and_lends_on(self) -> None:
        spans = [llm(1, None, 10, 5, at=0, lasts=500, reasoning=3), span(2), llm(3, 2, 10, 5, at=0, scope="b")]
        inner = llm(4, 1, 10, 5, at=1, lasts=9)
        assert tokens_of(figures_of([*spans, inner])) == Tokens(prompt=10, completion=5, reasoning=3)

    def test_several_calls_have_a_twin_each(self) -> None:
        more = [llm(4, None, 20, 7), llm(5, None, 20, 7, lasts=9, scope="b"), embedding(6, None, 3)]
        assert counted(*twins(), *more) == (30, 12)

    def test_embeddings_have_twins_and_never_with_an_llm_span(self) -> None:
        assert figures_of([embedding(1, None, 7), embedding(2, None, 7, lasts=9, scope="b")]).embedding_tokens == 7
        assert figures_of([embedding(1, None, 7), embedding(2, None, 8, lasts=9, scope="b")]).embedding_tokens == 15

    def test_wrappers_have_no_twins(self) -> None:
        assert counted(agent(1, None, 10, 5), agent(2, None, 10, 5, lasts=9, scope="b")) == (20, 10)
        assert counted(llm(1, None, 10, 5), agent(2, None, 10, 5, lasts=9, scope="b")) == (20, 10)


class TestWrappers:
    @pytest.mark.parametrize("kind", [AGENT, TOOL, CHAIN, OTHER])
    def test_any_other_span_with_usage_counts_if_nothing_below_it_does(self, kind: int) -> None:
        trace = figures_of([span(1, kind=kind, tokens=Tokens(prompt=10, completion=5)), span(2, 1), llm(3, 2)])
        assert (trace.prompt_tokens, trace.completion_tokens, trace.wrapper_usage) == (10, 5, True)

    @pytest.mark.parametrize("kind", [AGENT, TOOL, CHAIN, OTHER])
    def test_it_does_not_count_if_something_below_it_does(self, kind: int) -> None:
        trace = figures_of([span(1, kind=kind, tokens=Tokens(prompt=99, completion=99)), tool(2, 1), llm(3, 2, 10, 5)])
        assert (trace.prompt_tokens, trace.completion_tokens, trace.wrapper_usage) == (10, 5, False)

    def test_embeddings_below_it_silence_it_as_well(self) -> None:
        trace = figures_of([agent(1, None, 10, 5), embedding(2, 1, 7)])
        assert (tokens_of(trace), trace.wrapper_usage) == (Tokens(embedding=7), False)

    def test_of_nested_ones_the_innermost_counts(self) -> None:
        trace = figures_of([agent(1, None, 10, 5), chain(2, 1, 20, 7), span(3, 2), tool(4, 3, 30, 8), tool(5, 1, 1, 1)])
        assert (trace.prompt_tokens, trace.completion_tokens, trace.wrapper_usage) == (31, 9, True)

    def test_a_repeat_silences_the_wrappers_above_it(self) -> None:
        twin = [llm(1, None, 10, 5, at=2, lasts=9), agent(2, at=1), llm(3, 2, 10, 5, at=0, scope="b")]
        assert counted(*twin) == (10, 5)
        wrapped = [twin[0], agent(2, None, 30, 6, at=1), twin[2]]
        trace = figures_of(wrapped)
        assert (trace.prompt_tokens, trace.completion_tokens, trace.wrapper_usage) == (10, 5, False)

    def test_a_wrapper_on_another_branch_counts(self) -> None:
        assert counted(chain(1), llm(2, 1, 10, 5), agent(3, 1, 20, 7)) == (30, 12)

    def test_its_details_count_with_it(self) -> None:
        trace = figures_of([agent(1, None, 10, 5, cache_read=4, cache_write=1, reasoning=2)])
        assert tokens_of(trace) == Tokens(prompt=10, completion=5, cache_read=4, cache_write=1, reasoning=2)
