"""Pins the oracle to DESIGN.md by examples whose figures were worked out by hand."""

from __future__ import annotations

import base64
import json

import pytest
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from tests.builders import (
    BASE_MS,
    EMPTY,
    UNDECODABLE,
    Pairs,
    Value,
    joined,
    record,
    span,
    span_id,
    to_json,
    to_protobuf,
    trace_id,
)
from tests.oracle import (
    TraceFigures,
    comparable_hash,
    expected_sessions,
    expected_traces,
    flat_price,
    partial_reasons,
    unclaimed_traces,
)
from tests.oracle_spans import SpanRead, read_record
from tests.workloads import Workload, layouts, oracle_input, workloads

SESSION = {"session.id": "s-1"}
LLM = {"openinference.span.kind": "LLM"}
EMBEDDING = {"openinference.span.kind": "EMBEDDING"}
AGENT = {"openinference.span.kind": "AGENT"}
TOOL = {"openinference.span.kind": "TOOL"}
CHAIN = {"openinference.span.kind": "CHAIN"}


def tokens(prompt: Value, completion: Value, **more: Value) -> dict[str, Value]:
    """OpenInference usage; `more` has cache_read, cache_write, reasoning, total."""
    names = {
        "cache_read": "llm.token_count.prompt_details.cache_read",
        "cache_write": "llm.token_count.prompt_details.cache_write",
        "reasoning": "llm.token_count.completion_details.reasoning",
        "total": "llm.token_count.total",
    }
    return {
        "llm.token_count.prompt": prompt,
        "llm.token_count.completion": completion,
        **{names[name]: value for name, value in more.items()},
    }


def trace_of(*spans: Span, scopes: tuple[str, ...] = ()) -> TraceFigures:
    """The figures of the only trace that these spans make; `scopes` go with the spans one by one."""
    names = scopes or ("",) * len(spans)
    message = joined(record([one], scope=name) for one, name in zip(spans, names, strict=True))
    (figures,) = expected_traces([(message, BASE_MS)], price=flat_price).values()
    return figures


def read(attributes: Pairs, *, resource: Pairs = (), scope: str = "") -> SpanRead:
    """Reads one span with these attributes."""
    (found,), _ = read_record(record([span(1, attributes)], resource=resource, scope=scope), BASE_MS)
    return found


def sums(figures: TraceFigures) -> tuple[int, int, int]:
    return figures.prompt_tokens, figures.completion_tokens, figures.embedding_tokens


class TestCounting:
    """Section 4: which spans' tokens count."""

    def test_leaf_llm_spans_are_summed(self) -> None:
        figures = trace_of(
            span(1, CHAIN),
            span(2, LLM | tokens(10, 5), parent=1),
            span(3, LLM | tokens(20, 7), parent=1, start=10),
        )
        assert sums(figures) == (30, 12, 0)
        assert (figures.span_count, figures.llm_span_count) == (3, 2)

    def test_an_agent_that_repeats_the_sum_of_its_calls_does_not_count(self) -> None:
        figures = trace_of(
            span(1, AGENT | tokens(30, 12)),
            span(2, LLM | tokens(10, 5), parent=1),
            span(3, LLM | tokens(20, 7), parent=1, start=10),
        )
        assert sums(figures) == (30, 12, 0)
        assert not figures.wrapper_usage

    def test_usage_on_the_agent_alone_counts_once_at_the_innermost(self) -> None:
        figures = trace_of(
            span(1, AGENT | tokens(30, 12)), span(2, CHAIN | tokens(29, 11), parent=1), span(3, LLM, parent=2)
        )
        assert sums(figures) == (29, 11, 0)
        assert figures.wrapper_usage

    def test_an_embedding_below_silences_a_wrapper(self) -> None:
        figures = trace_of(span(1, CHAIN | tokens(8, 0)), span(2, EMBEDDING | tokens(8, 0), parent=1))
        assert sums(figures) == (0, 0, 8)

    def test_of_nested_llm_spans_with_one_same_figure_the_innermost_counts(self) -> None:
        figures = trace_of(
            span(1, LLM | tokens(12, 5)), span(2, CHAIN, parent=1), span(3, LLM | tokens(10, 5), parent=2)
        )
        assert sums(figures) == (10, 5, 0)
        assert not figures.nested_llm
        assert (figures.llm_span_prompt_tokens, figures.llm_span_completion_tokens) == (22, 10)

    def test_nested_llm_spans_with_other_figures_both_count(self) -> None:
        figures = trace_of(span(1, LLM | tokens(100, 50)), span(2, LLM | tokens(10, 5), parent=1))
        assert sums(figures) == (110, 55, 0)
        assert figures.nested_llm

    def test_zero_matches_nothing(self) -> None:
        figures = trace_of(span(1, LLM | tokens(100, 0)), span(2, LLM | tokens(10, 0), parent=1))
        assert sums(figures) == (110, 0, 0)
        assert figures.nested_llm

    def test_an_llm_span_that_has_the_sum_of_those_below_repeats_them(self) -> None:
        figures = trace_of(
            span(1, LLM | tokens(30, 99)),
            span(2, LLM | tokens(10, 5), parent=1),
            span(3, LLM | tokens(20, 7), parent=1, start=10),
        )
        assert sums(figures) == (30, 12, 0)
        assert not figures.nested_llm

    @pytest.mark.parametrize("between", [TOOL, AGENT])
    def test_the_same_figures_below_a_tool_or_an_agent_are_another_call(self, between: dict[str, Value]) -> None:
        figures = trace_of(
            span(1, LLM | tokens(10, 5)), span(2, between, parent=1), span(3, LLM | tokens(10, 5), parent=2)
        )
        assert sums(figures) == (20, 10, 0)
        assert not figures.nested_llm  # nothing near: the inner one is not looked at

    def test_a_chain_of_three_repeats_counts_once(self) -> None:
        figures = trace_of(
            span(1, LLM | tokens(10, 5)),
            span(2, LLM | tokens(10, 5), parent=1),
            span(3, LLM | tokens(10, 5), parent=2),
        )
        assert sums(figures) == (10, 5, 0)

    def test_embeddings_follow_the_rule_by_themselves(self) -> None:
        figures = trace_of(
            span(1, LLM | tokens(8, 1)),
            span(2, EMBEDDING | tokens(8, 0), parent=1),
            span(3, EMBEDDING | tokens(8, 0), parent=2),
        )
        assert sums(figures) == (8, 1, 8)

    def test_nested_embeddings_that_differ_both_count_and_are_no_nested_llm(self) -> None:
        figures = trace_of(span(1, EMBEDDING | tokens(8, 0)), span(2, EMBEDDING | tokens(5, 0), parent=1))
        assert (figures.embedding_tokens, figures.nested_llm) == (13, False)

    def test_the_plain_sum_over_llm_spans_is_of_the_figures_as_written(self) -> None:
        figures = trace_of(span(1, LLM | tokens(10, 5, cache_read=40)), span(2, AGENT | tokens(99, 99), start=50))
        assert (figures.prompt_tokens, figures.llm_span_prompt_tokens) == (149, 10)

    def test_of_several_with_a_same_figure_one_with_both_is_repeated(self) -> None:
        # 1 repeats 3, exactly, and so gives it its details; 2 has only the completion in common.
        figures = trace_of(
            span(1, LLM | tokens(10, 5, cache_read=4) | {"llm.cost.total": 1}),
            span(2, LLM | tokens(20, 5) | {"llm.model_name": "other"}, parent=1, start=1),
            span(3, LLM | tokens(10, 5) | {"llm.model_name": "same"}, parent=1, start=2),
        )
        assert sums(figures) == (30, 10, 0)
        assert figures.cache_read_tokens == 4
        assert {name: m.cost_nano for name, m in figures.models.items()} == {"other": 0, "same": 10**9}

    def test_a_repeat_silences_the_wrappers_above_it(self) -> None:
        # 2 repeats its twin 3, so nothing below 1 counts, yet 1 must not.
        figures = trace_of(
            span(1, CHAIN | tokens(10, 5)),
            span(2, LLM | tokens(10, 5), parent=1, start=5, end=95),
            span(3, LLM | tokens(10, 5), start=10, end=90),
            scopes=("a", "a", "b"),
        )
        assert sums(figures) == (10, 5, 0)
        assert not figures.wrapper_usage

    def test_details_come_from_an_exact_repeat(self) -> None:
        figures = trace_of(
            span(1, LLM | tokens(10, 5, cache_read=4, reasoning=3)), span(2, LLM | tokens(10, 5), parent=1)
        )
        assert (figures.cache_read_tokens, figures.reasoning_tokens) == (4, 3)

    def test_details_do_not_come_from_an_inexact_repeat(self) -> None:
        figures = trace_of(span(1, LLM | tokens(11, 5, cache_read=4)), span(2, LLM | tokens(10, 5), parent=1))
        assert figures.cache_read_tokens == 0

    def test_details_that_are_there_stay(self) -> None:
        figures = trace_of(
            span(1, LLM | tokens(10, 5, cache_read=4, cache_write=1)),
            span(2, LLM | tokens(10, 5, cache_write=2), parent=1),
        )
        assert (figures.cache_read_tokens, figures.cache_write_tokens) == (0, 2)


class TestTwins:
    """Section 4: two instrumentations that saw one call."""

    def twins(self, *, inner: tuple[float, float], scope: str = "b", completion: int = 5) -> TraceFigures:
        return trace_of(
            span(1, LLM | tokens(10, 5), start=0, end=100),
            span(2, LLM | tokens(10, completion), start=inner[0], end=inner[1]),
            scopes=("a", scope),
        )

    def test_within_the_others_time_it_is_a_repeat(self) -> None:
        assert sums(self.twins(inner=(10, 90))) == (10, 5, 0)

    def test_an_overhang_of_50_ms_is_allowed(self) -> None:
        assert sums(self.twins(inner=(10, 150))) == (10, 5, 0)
        assert sums(self.twins(inner=(10, 150.001))) == (20, 10, 0)

    def test_one_scope_makes_two_calls(self) -> None:
        assert sums(self.twins(inner=(10, 90), scope="a")) == (20, 10, 0)

    def test_both_figures_must_be_the_same(self) -> None:
        assert sums(self.twins(inner=(10, 90), completion=6)) == (20, 11, 0)

    @pytest.mark.parametrize(
        ("inner", "count"),
        [
            ({}, 1),
            ({"llm.token_count.completion": 21}, 1),
            ({"llm.token_count.completion": 22}, 2),
            ({"llm.token_count.prompt": 11}, 2),
            ({"llm.token_count.prompt_details.cache_read": 3}, 2),
            ({"llm.model_name": "n"}, 2),
            ({"llm.model_name": ""}, 2),
        ],
    )
    def test_of_the_same_prompt_cache_and_model_the_completion_may_differ(
        self, inner: dict[str, Value], count: int
    ) -> None:
        outer = LLM | tokens(10, 5, cache_read=4) | {"llm.model_name": "m"}
        inner = outer | tokens(10, 6, cache_read=4) | inner
        figures = trace_of(span(1, outer, end=100), span(2, inner, start=10, end=90), scopes=("a", "b"))
        assert sum(model.calls for model in figures.models.values()) == count
        if count == 1:
            assert sums(figures) == (10, inner["llm.token_count.completion"], 0)

    def test_of_those_that_start_together_the_shortest_counts(self) -> None:
        figures = trace_of(
            span(1, LLM | tokens(10, 5) | {"llm.model_name": "inner"}, end=10),
            span(2, LLM | tokens(10, 5), end=1000),
            scopes=("a", "b"),
        )
        assert list(figures.models) == ["inner"]

    def test_one_that_began_earlier_is_not_contained(self) -> None:
        assert sums(self.twins(inner=(-1, 20))) == (20, 10, 0)

    def test_each_repeats_at_most_one(self) -> None:
        spans = [span(n, LLM | tokens(10, 5), start=n, end=90) for n in (1, 2, 3)]
        assert sums(trace_of(*spans, scopes=("a", "b", "b"))) == (20, 10, 0)

    def test_one_above_the_other_is_no_twin(self) -> None:
        figures = trace_of(
            span(1, LLM | tokens(10, 5)),
            span(2, TOOL, parent=1),
            span(3, LLM | tokens(10, 5), parent=2),
            scopes=("a", "a", "b"),
        )
        assert sums(figures) == (20, 10, 0)

    def test_nor_is_one_below_that_began_earlier(self) -> None:
        figures = trace_of(
            span(1, LLM | tokens(10, 5), start=10, end=90),
            span(2, TOOL, parent=1),
            span(3, LLM | tokens(10, 5), parent=2, start=0, end=100),
            scopes=("a", "a", "b"),
        )
        assert sums(figures) == (20, 10, 0)

    def test_each_is_one_of_two_at_most(self) -> None:
        spans = [span(n, LLM | tokens(10, 5), start=n, end=90) for n in (1, 2, 3)]
        assert sums(trace_of(*spans, scopes=("a", "b", "c"))) == (20, 10, 0)

    def test_without_a_known_end_it_is_no_twin(self) -> None:
        figures = trace_of(
            span(1, LLM | tokens(10, 5)), span(2, LLM | tokens(10, 5), start=10, end=None), scopes=("a", "b")
        )
        assert sums(figures) == (20, 10, 0)


class TestTree:
    """Section 3 and 4: roots, cycles, missing parents."""

    def test_a_cycle_is_cut_at_its_earliest_span(self) -> None:
        # Cut above 2, so 3 lies below 2: 2 repeats it. Cut elsewhere 3 would be the repeat and 12 would count.
        figures = trace_of(
            span(2, LLM | tokens(12, 5), parent=3, start=1, name="first"),
            span(3, LLM | tokens(10, 5), parent=2, start=2, name="second"),
        )
        assert sums(figures) == (10, 5, 0)
        assert figures.name == "first"
        assert not figures.missing_root

    def test_a_span_that_is_its_own_parent_is_a_root(self) -> None:
        assert not trace_of(span(1, parent=1)).missing_root

    def test_a_missing_parent_makes_a_root_that_is_not_without_a_parent(self) -> None:
        figures = trace_of(span(1, parent=9, start=0, name="orphan"), span(2, start=50, name="root"))
        assert (figures.name, figures.missing_root) == ("root", False)
        figures = trace_of(span(1, parent=9, start=5, name="late"), span(2, parent=9, start=0, name="early"))
        assert (figures.name, figures.missing_root) == ("early", True)

    @pytest.mark.parametrize("parent", [b"", b"\0" * 8, b"\1" * 4, b"\1" * 16])
    def test_a_parent_id_of_wrong_length_or_zero_is_none(self, parent: bytes) -> None:
        assert not trace_of(span(1, parent=parent)).missing_root


class TestCost:
    """Section 4: cost and where it comes from."""

    MODEL = {"llm.model_name": "priced-1"}  # noqa: RUF012

    def test_the_counting_spans_own_cost_goes_first(self) -> None:
        figures = trace_of(
            span(1, LLM | tokens(10, 5) | {"llm.cost.total": 0.9}),
            span(2, LLM | tokens(10, 5) | {"llm.cost.total": 0.1}, parent=1),
        )
        assert (figures.cost_nano, figures.reported_costs, figures.unpriced_calls) == (100_000_000, 1, 0)

    def test_else_that_of_a_span_that_repeats_it(self) -> None:
        figures = trace_of(
            span(1, LLM | tokens(10, 5) | {"llm.cost.total": 0.9, "llm.model_name": "outer"}),
            span(2, LLM | tokens(10, 5) | {"llm.model_name": "inner"}, parent=1),
        )
        assert figures.cost_nano == 900_000_000
        assert {name: (m.calls, m.cost_nano) for name, m in figures.models.items()} == {"inner": (1, 900_000_000)}

    def test_zero_is_a_cost(self) -> None:
        figures = trace_of(span(1, LLM | tokens(10, 5) | self.MODEL | {"llm.cost.total": 0}))
        assert (figures.cost_nano, figures.reported_costs, figures.priced_costs) == (0, 1, 0)

    def test_zero_is_none_without_tokens_or_where_openlit_writes_it(self) -> None:
        figures = trace_of(span(1, LLM | self.MODEL | {"llm.cost.total": 0}))
        assert figures.reported_costs == 0
        figures = trace_of(span(1, LLM | tokens(10, 5) | self.MODEL | {"gen_ai.usage.cost": 0}), scopes=("openlit.x",))
        assert (figures.reported_costs, figures.priced_costs) == (0, 1)

    def test_a_wrappers_cost_counts_only_if_nothing_below_adds_one(self) -> None:
        with_cost = span(2, LLM | tokens(10, 5) | {"llm.cost.total": 0.25}, parent=1)
        without = span(2, LLM | tokens(10, 5) | self.MODEL, parent=1)
        wrapper = span(1, AGENT | {"llm.cost.total": 0.5, "gen_ai.request.model": "agent-model"})
        assert trace_of(wrapper, with_cost).cost_nano == 250_000_000
        figures = trace_of(wrapper, without)
        assert (figures.cost_nano, figures.priced_costs, figures.unpriced_calls) == (500_000_000, 0, 0)
        assert {name: (m.calls, m.cost_nano) for name, m in figures.models.items()} == {
            "agent-model": (0, 500_000_000),
            "priced-1": (1, 0),
        }

    def test_a_span_that_repeats_a_sum_adds_its_cost_like_a_wrapper(self) -> None:
        figures = trace_of(
            span(1, LLM | tokens(30, 12) | {"llm.cost.total": 0.5}),
            span(2, LLM | tokens(10, 5), parent=1),
            span(3, LLM | tokens(20, 7), parent=1, start=10),
        )
        assert (figures.cost_nano, figures.unpriced_calls) == (500_000_000, 0)

    def test_of_nested_wrappers_the_innermost_cost_counts(self) -> None:
        figures = trace_of(
            span(1, CHAIN | {"llm.cost.total": 3}),
            span(2, AGENT | {"llm.cost.total": 2}, parent=1),
            span(3, TOOL | {"llm.cost.total": 1}, parent=2),
            span(4, TOOL | {"llm.cost.total": 4}, parent=2, start=5),
        )
        assert (figures.cost_nano, figures.reported_costs) == (5 * 10**9, 2)
        assert figures.models["unknown"].calls == 0

    def test_a_repeats_cost_that_is_not_needed_is_dropped(self) -> None:
        # 1 repeats 2, which repeats the sum of 3 and 4: no counting span stands at the end of 1's chain.
        figures = trace_of(
            span(1, LLM | tokens(30, 12) | {"llm.cost.total": 3}),
            span(2, LLM | tokens(30, 12), parent=1),
            span(3, LLM | tokens(10, 5), parent=2),
            span(4, LLM | tokens(20, 7), parent=2, start=10),
        )
        assert (*sums(figures), figures.cost_nano, figures.unpriced_calls) == (30, 12, 0, 0, 2)

    def test_a_twin_gives_its_cost_and_details(self) -> None:
        figures = trace_of(
            span(1, LLM | tokens(10, 5)),
            span(2, LLM | tokens(10, 5, reasoning=2) | {"llm.cost.total": 1}, start=10, end=90),
            scopes=("a", "b"),
        )
        assert (figures.cost_nano, figures.reasoning_tokens, figures.unpriced_calls) == (10**9, 2, 0)

    def test_the_earliest_repeat_with_a_cost_gives_it(self) -> None:
        figures = trace_of(
            span(1, LLM | tokens(10, 5), start=0),
            span(2, LLM | tokens(10, 5) | {"llm.cost.total": 2}, parent=1, start=1),
            span(3, LLM | tokens(10, 5) | {"llm.cost.total": 3}, parent=2, start=2),
            span(4, LLM | tokens(10, 5), parent=3, start=3),
        )
        assert (figures.cost_nano, figures.reported_costs) == (2 * 10**9, 1)

    def test_a_cost_above_stands_for_all_calls_below_without_one(self) -> None:
        # 2 has its own cost, so 1 adds none; then nothing above 3 adds one, and 3 is priced.
        below = span(3, LLM | tokens(1, 1) | self.MODEL, parent=1, start=20)
        figures = trace_of(
            span(1, AGENT | {"llm.cost.total": 9}),
            span(2, LLM | tokens(10, 5) | {"llm.cost.total": 1}, parent=1),
            below,
        )
        assert (figures.cost_nano, figures.reported_costs, figures.priced_costs) == (10**9 + 8000, 1, 1)

    def test_a_counting_spans_own_cost_stands_for_the_call_nested_in_it(self) -> None:
        figures = trace_of(
            span(1, LLM | tokens(100, 50) | {"llm.cost.total": 1}), span(2, LLM | tokens(10, 5) | self.MODEL, parent=1)
        )
        assert (figures.cost_nano, figures.priced_costs, figures.unpriced_calls) == (10**9, 0, 0)

    def test_a_counting_span_without_cost_is_priced_from_its_model(self) -> None:
        figures = trace_of(span(1, LLM | tokens(10, 5, cache_read=4) | self.MODEL))
        # 10 × 1000 + 5 × 7000 - 4 × 900
        assert (figures.cost_nano, figures.priced_costs, figures.unpriced_calls) == (41_400, 1, 0)

    def test_embeddings_cost_money(self) -> None:
        figures = trace_of(span(1, EMBEDDING | tokens(10, 0) | {"embedding.model_name": "priced-embedding"}))
        assert (figures.cost_nano, figures.embedding_tokens, figures.prompt_tokens) == (130, 10, 0)

    @pytest.mark.parametrize("model", [{}, {"llm.model_name": "never-heard-of"}])
    def test_without_cost_or_price_it_is_unpriced(self, model: dict[str, Value]) -> None:
        figures = trace_of(span(1, LLM | tokens(10, 5) | model))
        assert (figures.cost_nano, figures.priced_costs, figures.unpriced_calls) == (0, 0, 1)
        assert list(figures.models) == [model.get("llm.model_name", "unknown")]

    @pytest.mark.parametrize(
        ("value", "nano"),
        [
            (0.0123, 12_300_000),
            (" 1e-3 ", 1_000_000),
            ("0.5", 500_000_000),
            (5e-10, 0),
            (1.5e-9, 2),
            (2.5e-9, 2),
            (1_000_000, 10**15),
            (1_000_000.5, None),
            (-0.1, None),
            (float("nan"), None),
            (float("inf"), None),
            ("abc", None),
            (True, None),
        ],
    )
    def test_cost_values(self, value: Value, nano: int | None) -> None:
        assert read({"llm.cost.total": value, "llm.token_count.prompt": 1}).cost_nano == nano

    def test_cost_attributes_in_order(self) -> None:
        both: dict[str, Value] = {"gen_ai.usage.cost": 2.0, "operation.cost": 3.0}
        assert read(both).cost_nano == 2 * 10**9
        assert read({"llm.cost.total": 1.0} | both).cost_nano == 10**9
        assert read({"llm.cost.total": -1.0} | both).cost_nano == 2 * 10**9
        details: dict[str, Value] = {"langfuse.observation.cost_details": '{"input": 1, "total": 0.25}'}
        assert read({"llm.cost.total": 1.0} | details).cost_nano == 250_000_000
        assert read({"llm.cost.prompt_details.input": 7}).cost_nano is None


class TestReadingUsage:
    """ATTRIBUTES.md: families, normalising, numbers."""

    def figures(self, attributes: Pairs, scope: str = "") -> tuple[int, int, int, int, int]:
        usage = read(attributes, scope=scope).usage
        return usage.prompt, usage.completion, usage.cache_read, usage.cache_write, usage.reasoning

    def test_the_first_family_that_is_present_is_taken_alone(self) -> None:
        genai = {"gen_ai.usage.input_tokens": 20, "gen_ai.usage.output_tokens": 9}
        assert self.figures(genai) == (20, 9, 0, 0, 0)
        assert self.figures(genai | {"llm.token_count.prompt": 10}) == (10, 0, 0, 0, 0)
        assert self.figures(genai | {"llm.token_count.prompt": -10}) == (20, 9, 0, 0, 0)

    def test_other_families_of_the_same_call_lend_details_that_are_missing(self) -> None:
        first = {"llm.token_count.prompt": 20, "llm.token_count.completion": 9}
        genai = {"gen_ai.usage.input_tokens": 20, "gen_ai.usage.output_tokens": 9, "gen_ai.usage.total_tokens": 29}
        vercel = {"ai.usage.inputTokens": 20, "ai.usage.outputTokens": 9, "ai.usage.cachedInputTokens": 7}
        assert self.figures(first | genai | vercel) == (20, 9, 7, 0, 0)
        assert self.figures(first | vercel | {"ai.usage.reasoningTokens": 2}) == (20, 9, 7, 0, 2)
        assert self.figures(first | genai | vercel | {"ai.usage.outputTokens": 8}) == (20, 9, 0, 0, 0)
        assert self.figures(first | vercel | {"ai.usage.totalTokens": 36}) == (27, 9, 7, 0, 0)

    @pytest.mark.parametrize(
        "attributes",
        [
            {"gen_ai.usage.prompt_tokens": 20, "gen_ai.usage.completion_tokens": "9"},
            {"llm.usage.prompt_tokens": 20, "llm.usage.completion_tokens": 9.0, "llm.usage.total_tokens": 29},
            {"ai.usage.inputTokens": 20, "ai.usage.promptTokens": 1, "ai.usage.completionTokens": 9},
            {"langfuse.observation.usage_details": '{"input": 20, "output": 9, "total": 29}'},
            {"langfuse.observation.usage_details": '{"input": 17, "input_audio": 3, "output": 9, "total": 29}'},
            {"langfuse.observation.usage_details": '{"prompt_tokens": 20, "completion_tokens": 9}'},
            {"mlflow.chat.tokenUsage": '{"input_tokens": 20, "output_tokens": 9}'},
        ],
    )
    def test_other_families(self, attributes: dict[str, Value]) -> None:
        assert self.figures(attributes) == (20, 9, 0, 0, 0)

    def test_details_in_langfuse_text(self) -> None:
        nested = {"prompt_tokens": 20, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 8}}
        dotted = {"prompt_tokens": 20, "completion_tokens": 9, "prompt_tokens_details.cached_tokens": 8}
        exclusive = {"input": 12, "input_cached_tokens": 8, "output": 9, "total": 29}
        for details in (nested, dotted, exclusive):
            text = json.dumps(details)
            assert self.figures({"langfuse.observation.usage_details": text}) == (20, 9, 8, 0, 0)

    @pytest.mark.parametrize("text", ["{", "[1]", "7", '{"input": ' + " " * 65_536 + "20}"])
    def test_json_text_that_means_nothing(self, text: str) -> None:
        assert not read({"langfuse.observation.usage_details": text}).has_usage
        assert not read({"mlflow.chat.tokenUsage": text}).has_usage

    def test_aggregated_usage_is_ignored(self) -> None:
        assert not read({"gen_ai.aggregated_usage.input_tokens": 20}).has_usage

    def test_cache_is_added_where_it_exceeds_the_prompt(self) -> None:
        assert self.figures(tokens(10, 5, cache_read=8, cache_write=4)) == (22, 5, 8, 4, 0)
        assert self.figures(tokens(12, 5, cache_read=8, cache_write=4)) == (12, 5, 8, 4, 0)

    def test_cache_is_added_where_the_total_says_so(self) -> None:
        assert self.figures(tokens(10, 5, cache_read=4, total=19)) == (14, 5, 4, 0, 0)
        assert self.figures(tokens(10, 5, cache_read=4, total=15)) == (10, 5, 4, 0, 0)
        assert self.figures(tokens(10, 5, cache_read=4, total=99)) == (10, 5, 4, 0, 0)

    def test_reasoning_is_added_where_it_exceeds_or_the_total_says_so(self) -> None:
        assert self.figures(tokens(10, 5, reasoning=7)) == (10, 12, 0, 0, 7)
        assert self.figures(tokens(10, 5, reasoning=5)) == (10, 5, 0, 0, 5)
        assert self.figures(tokens(10, 5, reasoning=3, total=18)) == (10, 8, 0, 0, 3)
        assert self.figures(tokens(10, 5, cache_read=4, reasoning=3, total=22)) == (14, 8, 4, 0, 3)

    def test_the_written_figures_stay_as_they_were(self) -> None:
        usage = read(LLM | tokens(10, 5, cache_read=40, reasoning=7)).usage
        assert (usage.prompt, usage.completion) == (50, 12)
        assert (usage.written_prompt, usage.written_completion) == (10, 5)

    def test_a_total_without_parts_is_prompt_and_not_written(self) -> None:
        usage = read(LLM | {"llm.token_count.total": 42}).usage
        assert (usage.prompt, usage.completion, usage.written_prompt) == (42, 0, 0)
        usage = read(EMBEDDING | {"ai.usage.tokens": 42}).usage
        assert (usage.prompt, usage.embedding) == (0, 42)

    def test_on_an_embedding_span_all_is_embedding(self) -> None:
        usage = read(EMBEDDING | tokens(10, 2, cache_read=4)).usage
        assert (usage.embedding, usage.prompt, usage.completion, usage.cache_read) == (12, 0, 0, 0)

    @pytest.mark.parametrize("value", [12, 12.0, "12", " 12 ", "+12"])
    def test_numbers_that_mean_something(self, value: Value) -> None:
        assert read({"llm.token_count.prompt": value}).usage.prompt == 12

    @pytest.mark.parametrize(
        "value", [-1, "-1", 1.5, "12.0", "1e3", "", "x", True, 10**12 + 1, float("nan"), float("inf"), b"1", [1], None]
    )
    def test_numbers_that_do_not(self, value: Value) -> None:
        assert not read({"llm.token_count.prompt": value}).has_usage

    def test_the_limit_itself_is_allowed(self) -> None:
        assert read({"llm.token_count.prompt": 10**12}).usage.prompt == 10**12

    def test_the_last_of_a_keys_values_stays(self) -> None:
        assert read([("llm.token_count.prompt", 1), ("llm.token_count.prompt", 2)]).usage.prompt == 2


class TestClasses:
    """ATTRIBUTES.md: class of a span and model."""

    @pytest.mark.parametrize(
        ("attributes", "span_class"),
        [
            ({"openinference.span.kind": "llm"}, "llm"),
            ({"openinference.span.kind": "RETRIEVER", "gen_ai.operation.name": "chat"}, "other"),
            ({"openinference.span.kind": " ", "gen_ai.operation.name": "CHAT"}, "llm"),
            ({"gen_ai.operation.name": "embeddings"}, "embedding"),
            ({"gen_ai.operation.name": "invoke_agent"}, "agent"),
            ({"gen_ai.operation.name": "execute_tool"}, "tool"),
            ({"gen_ai.operation.name": "agent_step", "llm.request.type": "chat"}, "chain"),
            ({"ai.operationId": "ai.generateText.doGenerate"}, "llm"),
            ({"ai.operationId": "ai.embed"}, "embedding"),
            ({"ai.operationId": "ai.embedMany.doEmbed"}, "embedding"),
            ({"ai.operationId": "ai.toolCall"}, "tool"),
            ({"ai.operationId": "ai.generateText"}, "chain"),
            ({"langfuse.observation.type": "generation"}, "llm"),
            ({"langfuse.observation.type": "span", "mlflow.spanType": "CHAT_MODEL"}, "llm"),
            ({"langsmith.span.kind": "chain"}, "chain"),
            ({"traceloop.span.kind": "workflow"}, "chain"),
            ({"llm.request.type": "embedding"}, "embedding"),
            ({"llm.token_count.prompt": 1, "gen_ai.request.model": "m"}, "llm"),
            ({"llm.token_count.prompt": 1}, "other"),
            ({"gen_ai.request.model": "m"}, "other"),
            ({"llm.model_name": "m", "llm.input_messages.0.message.role": "user"} | AGENT, "llm"),
            ({"llm.input_messages.0.message.role": "user"} | AGENT, "agent"),
        ],
    )
    def test_class(self, attributes: dict[str, Value], span_class: str) -> None:
        assert read(attributes).span_class == span_class

    def test_model_order_depends_on_the_family(self) -> None:
        models: dict[str, Value] = {"gen_ai.response.model": "g", "llm.model_name": "o"}
        assert read(models).model == "g"
        assert read(models | {"llm.token_count.prompt": 1}).model == "o"

    def test_mlflow_writes_everything_as_json_text(self) -> None:
        attributes = {"session.id": '"s-1"', "mlflow.spanType": '"LLM"', "mlflow.llm.model": '"m"'}
        found = read(attributes, scope="mlflow.openai")
        assert (found.claim, found.span_class, found.model) == ((0, "s-1"), "llm", "m")
        assert read(attributes, scope="other").claim == (0, '"s-1"')
        assert read({"session.id": '"a"b"'}, scope="mlflow").claim == (0, '"a"b"')


class TestClaims:
    """Section 3: which session a trace belongs to."""

    def session(self, *spans: Span, resources: tuple[Pairs, ...] = ()) -> tuple[str, str] | None:
        all_resources = resources or ((),) * len(spans)
        message = joined(record([s], resource=r) for s, r in zip(spans, all_resources, strict=True))
        (figures,) = expected_traces([(message, BASE_MS)], price=flat_price).values()
        return figures.session

    def test_the_highest_row_wins_then_the_earliest_start_then_the_smallest_id(self) -> None:
        late_but_better = span(1, {"session.id": "best"}, start=50)
        early = span(2, {"gen_ai.conversation.id": "weak"}, start=0)
        assert self.session(early, late_but_better) == ("default", "best")
        a, b = span(3, {"session.id": "a"}, start=20), span(2, {"session.id": "b"}, start=10)
        assert self.session(a, b) == ("default", "b")
        unknown = span(1, {"session.id": "u"}, start=None)
        assert self.session(a, unknown) == ("default", "a")
        same_start = span(1, {"session.id": "c"}, start=10)
        assert self.session(b, same_start) == ("default", "c")

    def test_the_project_is_that_of_the_span_that_won(self) -> None:
        session = self.session(
            span(1, {"session.id": "s"}, start=10),
            span(2, {}, start=0),
            resources=({"arize.project.name": "p"}, {"openinference.project.name": "q"}),
        )
        assert session == ("p", "s")

    def test_an_unusable_value_makes_the_next_row_claim(self) -> None:
        unusable: list[Value] = ["", "  ", 1.5, b"s", ["s"], None, "x" * 513, "é" * 257]
        for value in unusable:
            assert read({"session.id": value, "gen_ai.conversation.id": " c "}).claim == (12, "c")
        assert read({"session.id": "x" * 512}).claim == (0, "x" * 512)

    @pytest.mark.parametrize(("value", "text"), [(7, "7"), (True, "true"), (False, "false"), (" s ", "s")])
    def test_values_become_text(self, value: Value, text: str) -> None:
        assert read({"session.id": value}).claim == (0, text)

    def test_the_resource_claims_last_and_own_attributes_first(self) -> None:
        assert read({}, resource={"session.id": "r"}).claim == (13, "r")
        message = record([span(1, {"session.id": "s", "app.session": "own"})])
        (found,), _ = read_record(message, BASE_MS, session_id_attributes=("app.session",))
        assert found.claim == (0, "own")

    def test_conflicts_are_by_id_and_by_project(self) -> None:
        one = record([span(1, SESSION)])
        same = record([span(2, {"gen_ai.conversation.id": "s-1"})])
        other_id = record([span(3, {"gen_ai.conversation.id": "s-2"})])
        other_project = record([span(4, SESSION)], resource={"model_id": "p"})
        for second, conflicting in ((same, False), (other_id, True), (other_project, True)):
            (figures,) = expected_traces([(joined([one, second]), BASE_MS)], price=flat_price).values()
            assert figures.conflicting_claims is conflicting

    def test_a_trace_without_claim_is_in_no_session(self) -> None:
        records = [(record([span(1, SESSION), span(1, trace=2)]), BASE_MS)]
        assert unclaimed_traces(records) == {trace_id(2).hex()}
        assert [s.summary["trace_count"] for s in expected_sessions(records, price=flat_price).values()] == [1]


class TestRecords:
    """Sections 2, 3 and 8: duplicates, place-holders, bad spans, times."""

    def test_a_span_counts_once_and_of_two_versions_the_later_end_stays(self) -> None:
        early = span(1, LLM | tokens(99, 99), end=None, name="early")
        done = span(1, LLM | tokens(10, 5), end=100, name="done")
        more = span(1, LLM | tokens(10, 6), end=100, name="more tokens")
        assert trace_of(early, done, early, done).name == "done"
        figures = trace_of(more, done, early)
        assert (figures.name, figures.span_count, *sums(figures)) == ("more tokens", 1, 10, 6, 0)

    def test_placeholders_are_left_out(self) -> None:
        pending = span(2, LLM | tokens(10, 5) | {"logfire.span_type": "pending_span"}, parent=1)
        assert trace_of(span(1), pending).span_count == 1

    def test_bad_ids_drop_the_span_and_mark_the_record(self) -> None:
        bad = [span(0), span(1, trace=0), span(1, trace=b"\1" * 8)]
        spans, reasons = read_record(record([*bad, span(2)]), BASE_MS)
        assert [s.span_id for s in spans] == [span_id(2)]
        assert reasons == {"bad_id"}

    def test_a_too_long_session_id_marks_the_record_only_if_no_claim_is_left(self) -> None:
        too_long = {"session.id": "x" * 513}
        assert partial_reasons(record([span(1, too_long)]), BASE_MS) == {"session_id_too_long"}
        assert not partial_reasons(record([span(1, too_long | {"gen_ai.conversation.id": "c"})]), BASE_MS)

    def test_bounds_ignore_times_that_are_zero_or_in_the_future(self) -> None:
        day_ms = 24 * 3600 * 1000
        figures = trace_of(
            span(1, start=10, end=20), span(2, start=None, end=None), span(3, start=5, end=day_ms + 0.001)
        )
        assert (figures.started_us, figures.ended_us) == (BASE_MS * 1000 + 5_000, BASE_MS * 1000 + 20_000)
        assert trace_of(span(1, end=day_ms)).ended_us == (BASE_MS + day_ms) * 1000

    def test_a_span_without_end_lends_its_start(self) -> None:
        assert trace_of(span(1, start=10, end=20), span(2, start=30, end=None)).ended_us == BASE_MS * 1000 + 30_000

    def test_microseconds_are_rounded_down(self) -> None:
        assert trace_of(span(1, start=0.0019, end=0.0021)).ended_us == BASE_MS * 1000 + 2
        assert trace_of(span(1, start=0.0019, end=0.0021)).started_us == BASE_MS * 1000 + 1

    def test_users_are_in_order_of_first_use(self) -> None:
        spans = [
            span(1, {"user.id": "late"}, start=20),
            span(2, {"enduser.id": "first"}, start=10),
            span(3, {"user.id": " late ", "enduser.id": "x"}, start=0),
        ]
        figures = trace_of(*spans, span(4, {"user.id": "unknown start"}, start=None))
        assert [user for user, _, _ in figures.users] == ["late", "first", "unknown start"]
        many = trace_of(*(span(n, {"user.id": f"u{n:02}"}, start=n) for n in range(1, 19)))
        assert [user for user, _, _ in many.users] == [f"u{n:02}" for n in range(1, 17)]


class TestGenerated:
    """The builders and workloads that go with the oracle."""

    @given(workload=workloads())
    @settings(max_examples=20, deadline=None)
    def test_json_says_what_protobuf_says(self, workload: Workload) -> None:
        for one in workload.spans:
            document = json.loads(to_json(one))
            # Protobuf's own mapping writes ids in base64; all else is the same.
            for name in ("traceId", "spanId", "parentSpanId"):
                (found,) = document["resourceSpans"][0]["scopeSpans"][0]["spans"]
                found[name] = base64.b64encode(bytes.fromhex(found[name])).decode()
            again = json_format.ParseDict(document, TracesData())
            assert to_protobuf(again) == to_protobuf(one)

    @given(data=st.data())
    @settings(max_examples=30, deadline=None)
    def test_every_layout_has_the_same_sessions(self, data: st.DataObject) -> None:
        workload = data.draw(workloads())
        other = data.draw(layouts(workload.spans))
        one, two = (expected_sessions(oracle_input(records), price=flat_price) for records in (workload.records, other))
        assert one == two

    @pytest.mark.parametrize("value", UNDECODABLE)
    def test_undecodable_values_are(self, value: bytes) -> None:
        with pytest.raises(DecodeError):
            TracesData.FromString(value)
        if value.lstrip(b" \t")[:1] == b"{":
            with pytest.raises(json.JSONDecodeError):
                json.loads(value)

    @pytest.mark.parametrize("value", EMPTY)
    def test_empty_values_are(self, value: bytes) -> None:
        if b"{" in value:
            message = json_format.Parse(value.decode("utf-8-sig"), TracesData())
        else:
            message = TracesData.FromString(value)
        assert read_record(message, BASE_MS) == ([], set())


class TestSession:
    """Sections 6 and 7: a whole session, written out."""

    RECORD = joined(
        [
            record(
                [
                    span(1, CHAIN | SESSION | {"user.id": "u-1"}, name="turn", start=0, end=2000),
                    span(2, LLM | tokens(1200, 300, cache_read=100) | {"llm.model_name": "m"}, parent=1, error=True),
                ],
                resource={"openinference.project.name": "demo", "service.name": "chat"},
            ),
            record([span(3, SESSION, trace=2, start=5000.5, end=None)], resource={"model_id": "demo"}),
        ]
    )

    def test_summary(self) -> None:
        expected = expected_sessions([(self.RECORD, BASE_MS)], price=flat_price)["demo", "s-1"]
        none = {
            "prompt": 0,
            "completion": 0,
            "total": 0,
            "cache_read": 0,
            "cache_write": 0,
            "reasoning": 0,
            "embedding": 0,
        }
        tokens_of_turn = none | {"prompt": 1200, "completion": 300, "total": 1500, "cache_read": 100}
        assert expected.summary == {
            "schema": "session-summary/1",
            "project": "demo",
            "session_id": "s-1",
            "started_at": "2025-10-09T08:53:20.000000Z",
            "ended_at": "2025-10-09T08:53:25.000500Z",
            "duration_ms": 5000.5,
            "user_id": "u-1",
            "user_ids": ["u-1"],
            "trace_count": 2,
            "span_count": 3,
            "llm_span_count": 1,
            "error_count": 1,
            "error_trace_count": 1,
            "tokens": tokens_of_turn,
            "llm_span_tokens": {"prompt": 1200, "completion": 300, "total": 1500},
            "cost_usd": "0.000000000",
            "cost_source": "none",
            "unpriced_calls": 1,
            "models": {
                "m": {
                    "calls": 1,
                    "prompt": 1200,
                    "completion": 300,
                    "embedding": 0,
                    "cost_usd": "0.000000000",
                    "cost_source": "none",
                }
            },
            "services": ["chat"],
            "traces": [
                {
                    "trace_id": trace_id(1).hex(),
                    "name": "turn",
                    "started_at": "2025-10-09T08:53:20.000000Z",
                    "ended_at": "2025-10-09T08:53:22.000000Z",
                    "duration_ms": 2000.0,
                    "span_count": 2,
                    "error_count": 1,
                    "tokens": tokens_of_turn,
                    "cost_usd": "0.000000000",
                    "cost_source": "none",
                },
                {
                    "trace_id": trace_id(2).hex(),
                    "name": "span",
                    "started_at": "2025-10-09T08:53:25.000500Z",
                    "ended_at": "2025-10-09T08:53:25.000500Z",
                    "duration_ms": 0.0,
                    "span_count": 1,
                    "error_count": 0,
                    "tokens": none,
                    "cost_usd": "0.000000000",
                    "cost_source": "none",
                },
            ],
            "flags": {
                "conflicting_claim_traces": 0,
                "wrapper_usage_traces": 0,
                "nested_llm_traces": 0,
                "missing_root_traces": 0,
                "repeated_call_traces": 0,
            },
            "truncated": False,
        }

    def test_hash(self) -> None:
        expected = expected_sessions([(self.RECORD, BASE_MS)], price=flat_price)["demo", "s-1"]
        as_in_redis = {
            "status": "open",
            "revision": "0",
            "opened_at": "2025-10-09T08:53:20.000000Z",
            "last_activity_ms": "1",
            "project": "demo",
            "session_id": "s-1",
            "started_at": "2025-10-09T08:53:20.000000Z",
            "ended_at": "2025-10-09T08:53:25.000500Z",
            "duration_ms": "5000.5",
            "user_id": "u-1",
            "trace_count": "2",
            "span_count": "3",
            "llm_span_count": "1",
            "error_count": "1",
            "error_trace_count": "1",
            "prompt_tokens": "1200",
            "completion_tokens": "300",
            "total_tokens": "1500",
            "cache_read_tokens": "100",
            "cache_write_tokens": "0",
            "reasoning_tokens": "0",
            "embedding_tokens": "0",
            "llm_span_prompt_tokens": "1200",
            "llm_span_completion_tokens": "300",
            "cost_nano_usd": "0",
            "cost_usd": "0.000000000",
            "cost_source": "none",
            "unpriced_calls": "1",
            "truncated": "0",
        }
        assert comparable_hash(as_in_redis) == expected.hash_fields
        assert expected.models_hash == {
            "m:calls": 1,
            "m:prompt_tokens": 1200,
            "m:completion_tokens": 300,
            "m:embedding_tokens": 0,
            "m:cost_nano_usd": 0,
        }

    def test_what_is_unknown_is_null_or_missing(self) -> None:
        message = record([span(1, SESSION, start=None, end=None)])
        expected = expected_sessions([(message, BASE_MS)], price=flat_price)["default", "s-1"]
        assert [expected.summary[name] for name in ("started_at", "ended_at", "duration_ms", "user_id")] == [None] * 4
        assert not {"started_at", "ended_at", "duration_ms", "user_id"} & expected.hash_fields.keys()

    @pytest.mark.parametrize(
        ("reported", "priced", "source"),
        [(True, False, "reported"), (False, True, "priced"), (True, True, "mixed"), (False, False, "none")],
    )
    def test_cost_source(self, reported: bool, priced: bool, source: str) -> None:
        spans = [span(1, SESSION)]
        if reported:
            spans.append(span(2, LLM | tokens(1, 1) | {"llm.cost.total": 1.0}))
        if priced:
            spans.append(span(3, LLM | tokens(1, 1) | {"llm.model_name": "priced"}))
        expected = expected_sessions([(record(spans), BASE_MS)], price=flat_price)["default", "s-1"]
        assert expected.summary["cost_source"] == source

    def test_a_model_to_which_only_a_cost_of_0_was_reported_is_not_shown(self) -> None:
        # The documents leave this open; the entry of the trace has it, the session's sums can't tell it from none.
        outer = span(1, SESSION | AGENT | tokens(2, 2) | {"llm.cost.total": 0, "llm.model_name": "m"})
        message = record([outer, span(2, LLM | tokens(1, 1) | {"llm.model_name": "n"}, parent=1)])
        expected = expected_sessions([(message, BASE_MS)], price=flat_price)["default", "s-1"]
        assert sorted(expected.traces[trace_id(1).hex()].models) == ["m", "n"]
        models = expected.summary["models"]
        assert isinstance(models, dict)
        assert (list(models), {name.split(":")[0] for name in expected.models_hash}) == (["n"], {"n"})
        assert expected.summary["cost_source"] == "reported"

    def test_traces_are_in_order_of_start_and_trace_id_and_unknown_last(self) -> None:
        spans = [
            span(1, SESSION, trace=1, start=None),
            span(1, SESSION, trace=4, start=10),
            span(1, SESSION, trace=3, start=10),
            span(1, SESSION, trace=5, start=5),
        ]
        expected = expected_sessions([(record(spans), BASE_MS)], price=flat_price)["default", "s-1"]
        traces = expected.summary["traces"]
        assert isinstance(traces, list)
        assert [entry["trace_id"] for entry in traces] == [trace_id(n).hex() for n in (5, 3, 4, 1)]

    def test_the_key_is_percent_encoded(self) -> None:
        message = record([span(1, {"session.id": "a/b é"})], resource={"model_id": "p_-.~:@%"})
        (expected,) = expected_sessions([(message, BASE_MS)], price=flat_price).values()
        assert expected.key == "p_-.~:@%25/a%2Fb%20%C3%A9"
