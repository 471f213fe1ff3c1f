"""The plain figures of a trace: bounds, name, counts, users, services, and how they travel."""

from __future__ import annotations

import pytest

from aggregator.core.model import Counts, TraceRollup
from aggregator.core.pricing import Pricer
from aggregator.core.usage import rollup, trace_counts
from tests.core.trees import START_US, agent, chain, embedding, figures_of, llm, span, span_id, tool


class TestTimes:
    def test_a_trace_starts_with_its_earliest_span_and_ends_with_its_latest_end(self) -> None:
        trace = figures_of([span(1, at=10, lasts=5), span(2, at=7, lasts=20), span(3, at=9, lasts=1)])
        assert (trace.started_us, trace.ended_us) == (START_US + 7, START_US + 27)

    def test_an_unknown_start_is_left_out_of_the_bounds(self) -> None:
        trace = figures_of([span(1, at=-1, lasts=5), span(2, at=7, lasts=2)])
        assert (trace.started_us, trace.ended_us) == (START_US + 7, START_US + 9)

    def test_a_span_without_a_valid_end_lends_its_start(self) -> None:
        trace = figures_of([span(1, at=1, lasts=2), span(2, at=9, lasts=None)])
        assert trace.ended_us == START_US + 9

    def test_an_end_before_the_start_is_kept_as_it_is_written(self) -> None:
        trace = figures_of([span(1, at=9, lasts=-4)])
        assert (trace.started_us, trace.ended_us) == (START_US + 9, START_US + 5)

    def test_without_any_valid_time_the_bounds_are_unknown(self) -> None:
        trace = figures_of([span(1, at=-1, lasts=None)])
        assert (trace.started_us, trace.ended_us) == (0, 0)


class TestName:
    def test_a_trace_is_called_like_its_earliest_span_without_a_parent(self) -> None:
        spans = [span(1, 9, at=0, name="orphan"), span(2, at=3, name="later"), span(3, at=2, name="root")]
        assert figures_of(spans).name == "root"

    def test_without_such_a_span_it_is_called_like_its_earliest_span(self) -> None:
        trace = figures_of([span(1, 9, at=5, name="late"), span(2, 9, at=3, name="early")])
        assert trace.name == "early"

    def test_of_spans_with_the_same_start_the_smaller_id_is_the_earlier(self) -> None:
        assert figures_of([span(2, at=0, name="b"), span(1, at=0, name="a")]).name == "a"

    def test_a_span_with_an_unknown_start_is_the_latest(self) -> None:
        assert figures_of([span(1, at=-1, name="when?"), span(2, at=5, name="then")]).name == "then"
        assert figures_of([span(2, at=-1, name="b"), span(1, at=-1, name="a")]).name == "a"
        many = [span(number, at=-1) for number in range(1, 100)]
        assert figures_of([*many, span(100, name="then")]).name == "then"


class TestRoots:
    def test_a_trace_of_which_no_span_is_without_a_parent_misses_its_root(self) -> None:
        assert figures_of([span(1, 9), span(2, 1)]).missing_root
        assert not figures_of([span(1, 9), span(2)]).missing_root

    @pytest.mark.parametrize("parent", [b"", bytes(8), b"short", bytes(7), b"a parent id"])
    def test_a_parent_id_of_wrong_length_or_all_zero_is_none(self, parent: bytes) -> None:
        trace = figures_of([span(1, 9, name="orphan"), span(2, parent, name="root")])
        assert (trace.name, trace.missing_root) == ("root", False)

    def test_the_earliest_span_of_a_cycle_is_a_span_without_a_parent(self) -> None:
        trace = figures_of([span(3, 2, name="c"), span(2, 4, name="b"), span(4, 3, name="d")])
        assert (trace.name, trace.missing_root) == ("b", False)

    def test_each_cycle_is_cut_where_it_is_earliest_and_spans_that_hang_on_it_stay_there(self) -> None:
        spans = [llm(1, 5, 10, 5), span(4, 5), span(5, 4), span(6, 7), agent(7, 6, 1, 1), llm(8, 8, 3, 3)]
        trace = figures_of(spans)
        assert (trace.name, trace.missing_root) == ("span 4", False)
        assert (trace.prompt_tokens, trace.wrapper_usage) == (14, True)

    def test_a_cycle_is_cut_above_its_earliest_span(self) -> None:
        # Cut above 1, it reads 1 > 2 > 3 downwards, so that 3 is the innermost.
        spans = [agent(1, 3, 10, 0), agent(2, 1, 20, 0), agent(3, 2, 30, 0)]
        assert figures_of(spans).prompt_tokens == 30

    def test_a_root_before_a_cycle_names_the_trace_and_one_after_it_does_not(self) -> None:
        cycle = [span(4, 5), span(5, 4)]
        assert figures_of([span(1, name="root"), *cycle]).name == "root"
        assert figures_of([span(9, name="root"), *cycle]).name == "span 4"


class TestCounts:
    def test_spans_errors_and_spans_of_class_llm_are_counted(self) -> None:
        spans = [chain(1), llm(2, 1, 10, 5), llm(3, 1), embedding(4, 1, 5), tool(5, 1, error=True), span(6, error=True)]
        trace = figures_of(spans)
        assert (trace.span_count, trace.llm_span_count, trace.error_count) == (6, 2, 2)

    def test_llm_span_tokens_are_the_plain_sum_of_the_figures_as_written(self) -> None:
        # The builder writes a prompt of one token more than what counts, as if normalising had changed it.
        trace = figures_of([llm(1, None, 10, 5), llm(2, 1, 10, 5), agent(3, None, 99, 99), embedding(4, None, 7)])
        assert (trace.llm_span_prompt_tokens, trace.llm_span_completion_tokens) == (22, 10)
        assert trace.prompt_tokens == 10 + 99

    def test_no_span_gives_no_figures(self) -> None:
        assert (figures_of([]).span_count, figures_of([]).missing_root) == (0, False)


class TestUsersAndServices:
    def test_users_are_in_order_of_their_first_use(self) -> None:
        spans = [
            span(1, at=9, user="late"),
            span(2, at=3, user="early"),
            span(3, at=5, user="late"),
            span(5, at=-1, user="when?"),
            span(4, at=3, user="early"),
        ]
        assert figures_of(spans).users == [
            ("early", START_US + 3, span_id(2)),
            ("late", START_US + 5, span_id(3)),
            ("when?", 0, span_id(5)),
        ]

    def test_sixteen_users_whose_first_use_is_earliest_are_kept(self) -> None:
        users = figures_of([span(number, user=f"u{number}") for number in range(40, 0, -1)]).users
        assert [user_id for user_id, _, _ in users] == [f"u{number}" for number in range(1, 17)]

    def test_services_are_sorted_and_sixteen_at_most(self) -> None:
        spans = [span(number, service=f"s{number:02}") for number in range(30, 9, -1)]
        spans += [span(1, service=""), span(2, service="s10")]
        assert figures_of(spans).services == [f"s{number}" for number in range(10, 26)]


class TestTraceCounts:
    def test_every_figure_has_its_place(self) -> None:
        trace = TraceRollup()
        for number, name in enumerate(Counts._fields, start=2):
            if hasattr(trace, name):
                setattr(trace, name, number)
        trace.wrapper_usage = trace.nested_llm = trace.missing_root = True
        trace.cost_nano = 3_000_000_007
        counts = trace_counts(trace, conflicting=True, truncated=True)
        ones = {name: 1 for name in Counts._fields if name.endswith("_traces")}
        plain = {name: number for number, name in enumerate(Counts._fields, start=2) if hasattr(trace, name)}
        rest = {"trace_count": 1, "error_trace_count": 1, "cost_whole_usd": 3, "cost_rest_nano": 7}
        assert counts._asdict() == ones | plain | rest | {"error_trace_count": 1}
        assert len(counts) == 23

    @pytest.mark.parametrize("flag", ["wrapper_usage", "nested_llm", "missing_root"])
    def test_each_flag_of_the_trace_has_its_own_place(self, flag: str) -> None:
        trace = TraceRollup()
        setattr(trace, flag, True)
        counts = trace_counts(trace, conflicting=False, truncated=False)
        assert counts == Counts(trace_count=1)._replace(**{f"{flag}_traces": 1})

    def test_conflicting_and_truncated_traces_are_told_apart(self) -> None:
        conflicting = trace_counts(TraceRollup(), conflicting=True, truncated=False)
        truncated = trace_counts(TraceRollup(), conflicting=False, truncated=True)
        assert conflicting == Counts(trace_count=1, conflicting_claim_traces=1)
        assert truncated == Counts(trace_count=1, truncated_traces=1)

    def test_a_quiet_trace_adds_nothing_but_itself(self) -> None:
        counts = trace_counts(rollup([span(1)], Pricer()), conflicting=False, truncated=False)
        assert counts == Counts(trace_count=1, span_count=1)
