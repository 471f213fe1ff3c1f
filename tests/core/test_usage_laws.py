"""What holds of the figures of any trace, whatever its shape."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.core.model import Span, TraceRollup
from tests.core.trees import agent, all_figures, as_read, chain, embedding, figures_of, llm, span, tool, traces
from tests.oracle_traces import flat_price, trace_figures


@given(traces())
def test_the_figures_are_those_of_the_oracle(spans: list[Span]) -> None:
    expected = trace_figures([as_read(one) for one in spans], price=flat_price)
    assert all_figures(figures_of(spans)) == all_figures(expected)


@given(traces(most=40), st.randoms())
def test_the_order_of_the_spans_does_not_matter(spans: list[Span], random: Random) -> None:
    figures = all_figures(figures_of(spans))
    random.shuffle(spans)
    assert all_figures(figures_of(spans)) == figures


@given(traces())
def test_the_spans_are_left_as_they_are(spans: list[Span]) -> None:
    fields = [name for name in dir(Span) if not name.startswith("_")]
    before = [[getattr(one, name) for name in fields] for one in spans]
    figures_of(spans)
    assert [[getattr(one, name) for name in fields] for one in spans] == before
    assert "prompt_tokens" in fields


@given(st.integers(0, 2**32))
@settings(max_examples=25)
def test_among_many_calls_with_the_same_figures_the_twins_are_those_of_the_oracle(seed: int) -> None:
    random = Random(seed)
    completions = random.choice(((5,), (5, 6), (5, 14, 22, 40)))
    spans = [
        llm(
            number,
            random.choice((None, None, number - 1 or None, max(number - 2, 0) or None)),
            10,
            random.choice(completions),
            at=random.randrange(200),
            lasts=random.choice((60, 300, 50_060, 50_100, 100_200)),
            scope=random.choice("aaab"),
            cost=number,
            model=random.choice("mmmn"),
        )
        if number % 4
        else tool(number, random.randrange(number) or None)
        for number in range(1, 251)
    ]
    expected = trace_figures([as_read(one) for one in spans], price=flat_price)
    assert all_figures(figures_of(spans)) == all_figures(expected)


MANY = 10_000


def shuffled(spans: list[Span]) -> TraceRollup:
    """The figures of the spans in an order that has nothing to do with their tree."""
    return figures_of(Random(MANY).sample(spans, len(spans)))


class TestManySpans:
    """Shapes that would exhaust the stack or take minutes if a step were recursive or quadratic."""

    def test_a_chain_of_repeats(self) -> None:
        spans = [llm(1, None, 10, 5, reasoning=5, cost=7), *(llm(n, n - 1, 10, 5) for n in range(2, MANY + 1))]
        trace = shuffled(spans)
        assert (trace.prompt_tokens, trace.reasoning_tokens, trace.cost_nano) == (10, 5, 7)

    def test_a_chain_of_sums(self) -> None:
        # Each span has two below it and their sum; only the leaves count.
        depth = 13
        spans = [llm(n, n // 2 or None, 2 ** (depth - n.bit_length()), 1) for n in range(1, 2**depth)]
        trace = shuffled(spans)
        assert (trace.prompt_tokens, trace.nested_llm) == (2 ** (depth - 1), False)

    def test_a_chain_of_wrappers_with_costs(self) -> None:
        trace = shuffled([agent(n, n - 1 or None, n, n, cost=n) for n in range(1, MANY + 1)])
        assert (trace.prompt_tokens, trace.cost_nano) == (MANY, MANY)

    def test_a_chain_whose_parents_start_last(self) -> None:
        trace = shuffled([chain(n, n + 1, at=n) for n in range(1, MANY)] + [llm(MANY, None, 10, 5)])
        assert (trace.prompt_tokens, trace.name, trace.missing_root) == (10, f"span {MANY}", False)

    def test_a_star(self) -> None:
        trace = shuffled([llm(1, None, MANY - 1, 5), *(llm(n, 1, 1, 1) for n in range(2, MANY + 1))])
        assert (trace.prompt_tokens, trace.llm_span_count) == (MANY - 1, MANY)

    def test_one_cycle(self) -> None:
        trace = shuffled([llm(n, n - 1 or MANY, n, 0) for n in range(1, MANY + 1)])
        assert (trace.span_count, trace.name, trace.nested_llm) == (MANY, "span 1", True)

    def test_many_cycles(self) -> None:
        trace = shuffled([embedding(n, n ^ 1, n) for n in range(2, MANY + 2)])
        assert (trace.embedding_tokens, trace.name) == (sum(range(2, MANY + 2)), "span 2")

    def test_twins_in_pairs(self) -> None:
        spans = [llm(n, None, 10, 5, at=n // 2, lasts=100 - n % 2, scope="ab"[n % 2]) for n in range(2, MANY + 2)]
        assert shuffled(spans).prompt_tokens == 10 * MANY // 2

    def test_twins_in_pairs_that_differ(self) -> None:
        spans = [
            llm(n, None, 10, 5 + n % 2, at=n // 2, lasts=100 - n % 2, scope="ab"[n % 2], model="m")
            for n in range(2, MANY + 2)
        ]
        assert shuffled(spans).prompt_tokens == 10 * MANY // 2

    def test_twins_of_the_same_prompt_that_find_none(self) -> None:
        spans = [llm(n, None, 10, 20 * n, at=n // 2, scope="ab"[n % 2], model="m") for n in range(2, MANY + 2)]
        assert shuffled(spans).prompt_tokens == 10 * MANY

    def test_twins_that_find_none_to_repeat(self) -> None:
        # All overlap and have the same figures, but each ends well after those before it.
        spans = [
            llm(n, None, 10, 5, at=n, lasts=10**9 + n * 50_001, scope="ab"[n > MANY // 2]) for n in range(1, MANY + 1)
        ]
        assert shuffled(spans).prompt_tokens == 10 * MANY

    def test_twins_that_are_all_above_one_another(self) -> None:
        spans = [
            tool(n, n - 1) if n % 2 == 0 else llm(n, n - 1 or None, 10, 5, lasts=10**6 - n, scope="ab"[n // 2 % 2])
            for n in range(1, MANY + 1)
        ]
        assert shuffled(spans).prompt_tokens == 10 * MANY // 2

    def test_orphans(self) -> None:
        assert shuffled([span(n, n + MANY) for n in range(1, MANY + 1)]).missing_root
