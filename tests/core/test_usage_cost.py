"""What a trace costs and which models it used, sentence by sentence (DESIGN section 4)."""

from __future__ import annotations

from aggregator.core.model import Span
from aggregator.core.pricing import Pricer
from aggregator.core.usage import rollup
from tests.core.trees import START_US, agent, chain, embedding, figures_of, llm, model_entry, span, tool

PRICE_OF_10_AND_5 = 10 * 1000 + 5 * 7000


def costs(*spans: Span) -> tuple[int, int, int, int]:
    """Cost, reported costs, priced costs, unpriced calls."""
    trace = figures_of(spans)
    return (trace.cost_nano, trace.reported_costs, trace.priced_costs, trace.unpriced_calls)


class TestReported:
    def test_a_span_whose_tokens_count_adds_its_reported_cost(self) -> None:
        assert costs(llm(1, None, 10, 5, cost=7), llm(2, None, 10, 5, cost=8)) == (15, 2, 0, 0)

    def test_zero_is_a_cost(self) -> None:
        assert costs(llm(1, None, 10, 5, cost=0, model="priced")) == (0, 1, 0, 0)

    def test_without_one_it_adds_that_of_a_span_that_repeats_it(self) -> None:
        spans = [llm(1, None, 10, 5, cost=7, model="outer"), llm(2, 1, 10, 5), llm(3, 2, 10, 5, model="inner")]
        assert costs(*spans) == (7, 1, 0, 0)
        assert figures_of(spans).models["inner"].cost_nano == 7
        assert list(figures_of(spans).models) == ["inner"]

    def test_of_several_that_repeat_it_the_earliest_with_a_cost_gives_it(self) -> None:
        assert costs(llm(1, None, 10, 5), llm(2, 1, 10, 5, cost=7), llm(3, 2, 10, 5, cost=8), llm(4, 3, 10, 5))[0] == 7

    def test_its_own_goes_before_that_of_a_repeat(self) -> None:
        assert costs(llm(1, None, 10, 5, cost=7), llm(2, 1, 10, 5, cost=8)) == (8, 1, 0, 0)

    def test_a_repeat_with_one_figure_the_same_gives_its_cost_too(self) -> None:
        assert costs(llm(1, None, 10, 6, cost=7), llm(2, 1, 10, 5)) == (7, 1, 0, 0)

    def test_a_twin_gives_its_cost(self) -> None:
        assert costs(llm(1, None, 10, 5), llm(2, None, 10, 5, cost=7, lasts=9, scope="b")) == (7, 1, 0, 0)

    def test_any_other_span_adds_its_cost_only_if_nothing_below_it_adds_one(self) -> None:
        assert costs(agent(1, cost=100), chain(2, 1, cost=50), tool(3, 2, cost=7)) == (7, 1, 0, 0)
        assert costs(agent(1, cost=100), llm(2, 1, 10, 5, cost=7)) == (7, 1, 0, 0)
        assert costs(agent(1, cost=100), llm(2, 1, cost=7)) == (7, 1, 0, 0)
        assert costs(agent(1, cost=100), chain(2), tool(3, 2, cost=7)) == (107, 2, 0, 0)

    def test_a_counting_wrapper_adds_its_cost_whatever_is_below(self) -> None:
        assert costs(agent(1, None, 10, 5, cost=100), tool(2, 1)) == (100, 1, 0, 0)
        assert costs(agent(1, None, 10, 5, cost=100), tool(2, 1, cost=7)) == (107, 2, 0, 0)

    def test_a_counting_llm_span_adds_its_cost_though_another_one_below_adds_one(self) -> None:
        assert costs(llm(1, None, 10, 5, cost=100), llm(2, 1, 20, 7, cost=7)) == (107, 2, 0, 0)

    def test_a_repeat_never_adds_its_cost_by_itself(self) -> None:
        assert costs(llm(1, None, 10, 5, cost=7), span(2, 1), llm(3, 2, 10, 5, cost=0)) == (0, 1, 0, 0)

    def test_a_repeat_of_a_sum_adds_its_cost_if_nothing_below_it_adds_one(self) -> None:
        outer, one, two = llm(1, None, 30, 12, cost=100), llm(2, 1, 10, 5), llm(3, 1, 20, 7)
        assert costs(outer, one, two) == (100, 1, 0, 0)
        assert costs(outer, one, llm(3, 1, 20, 7, cost=7))[:2] == (7, 1)

    def test_a_chain_that_ends_at_a_repeat_of_a_sum_gives_its_cost_to_none(self) -> None:
        spans = [llm(1, None, 30, 12, cost=7), llm(2, 1, 30, 12), llm(3, 2, 10, 5), llm(4, 2, 20, 7)]
        assert costs(*spans) == (0, 0, 0, 2)


class TestPriced:
    def test_a_counted_span_without_a_cost_is_priced_from_its_model(self) -> None:
        assert costs(llm(1, None, 10, 5, model="priced")) == (PRICE_OF_10_AND_5, 0, 1, 0)
        assert costs(agent(1, None, 10, 5, model="priced")) == (PRICE_OF_10_AND_5, 0, 1, 0)

    def test_details_that_were_taken_over_are_priced(self) -> None:
        spans = [llm(1, None, 10, 5, cache_read=3, cache_write=2), llm(2, 1, 10, 5, model="priced")]
        assert costs(*spans) == (PRICE_OF_10_AND_5 - 3 * 900 + 2 * 250, 0, 1, 0)

    def test_embeddings_cost_money(self) -> None:
        assert costs(embedding(1, None, 100, model="priced"), embedding(2, None, 1, cost=7)) == (1307, 1, 1, 0)

    def test_without_cost_or_price_it_is_an_unpriced_call(self) -> None:
        assert costs(llm(1, None, 10, 5, model="other"), llm(2, None, 10, 5)) == (0, 0, 0, 2)

    def test_it_is_neither_priced_nor_unpriced_below_a_span_that_added_its_cost(self) -> None:
        assert costs(agent(1, cost=100), chain(2, 1), llm(3, 2, 10, 5, model="priced")) == (100, 1, 0, 0)
        assert costs(agent(1, cost=100), chain(2, 1), llm(3, 2, 10, 5)) == (100, 1, 0, 0)
        assert costs(llm(1, None, 10, 5, cost=100), llm(2, 1, 20, 7, model="priced")) == (100, 1, 0, 0)

    def test_it_is_priced_below_a_span_whose_cost_was_not_added(self) -> None:
        spans = [agent(1, cost=100), llm(2, 1, 10, 5, cost=7), llm(3, 1, 10, 5, model="priced")]
        assert costs(*spans) == (7 + PRICE_OF_10_AND_5, 1, 1, 0)

    def test_a_nested_call_of_its_own_is_priced_though_one_below_it_counts(self) -> None:
        assert costs(llm(1, None, 10, 5, model="priced"), llm(2, 1, 20, 7)) == (PRICE_OF_10_AND_5, 0, 1, 1)

    def test_a_price_is_asked_for_with_everything_it_may_depend_on(self) -> None:
        asked: list[tuple[object, ...]] = []

        class Asking(Pricer):
            def price_nano(self, *figures: object) -> int:
                asked.append(figures)
                return 0

        call = llm(1, None, 10, 5, cache_read=3, cache_write=2, reasoning=1, model="m")
        call.provider = "p"
        trace = rollup([call, embedding(2, None, 7, model="e"), llm(3, None, 1, 1)], Asking())
        assert asked == [("m", "p", START_US + 1, 10, 5, 3, 2, 1, 0), ("e", "", START_US + 2, 0, 0, 0, 0, 0, 7)]
        assert (trace.priced_costs, trace.unpriced_calls) == (2, 1)

    def test_with_pricing_off_nothing_is_priced(self) -> None:
        trace = rollup([llm(1, None, 10, 5, model="gpt-4o")], Pricer())
        assert (trace.cost_nano, trace.priced_costs, trace.unpriced_calls) == (0, 0, 1)

    def test_a_cost_has_no_upper_bound(self) -> None:
        assert costs(*(llm(number, None, 10, 5, cost=10**15) for number in range(1, 9001)))[0] == 9000 * 10**15


REPORTED = {"reported_costs": 1, "priced_costs": 0}
PRICED = {"reported_costs": 0, "priced_costs": 1}
NEITHER = {"reported_costs": 0, "priced_costs": 0}


class TestModels:
    def test_each_counted_span_adds_to_its_models_entry(self) -> None:
        trace = figures_of(
            [
                llm(1, None, 10, 5, model="m", cost=7),
                llm(2, None, 20, 7, model="m", cost=8),
                embedding(3, None, 9, model="e"),
                agent(4, None, 1, 2),
                llm(5, None, 10, 5, model="priced"),
            ]
        )
        assert {name: model_entry(entry) for name, entry in trace.models.items()} == {
            "m": {
                "calls": 2,
                "prompt": 30,
                "completion": 12,
                "embedding": 0,
                "cost_nano": 15,
                "reported_costs": 2,
                "priced_costs": 0,
            },
            "e": {"calls": 1, "prompt": 0, "completion": 0, "embedding": 9, "cost_nano": 0, **NEITHER},
            "unknown": {"calls": 1, "prompt": 1, "completion": 2, "embedding": 0, "cost_nano": 0, **NEITHER},
            "priced": {
                "calls": 1,
                "prompt": 10,
                "completion": 5,
                "embedding": 0,
                "cost_nano": PRICE_OF_10_AND_5,
                **PRICED,
            },
        }

    def test_a_reported_cost_of_nothing_without_a_call_adds_nothing_to_its_model(self) -> None:
        trace = figures_of([agent(1, cost=0, model="m"), llm(2, None, 10, 5, cost=0, model="free")])
        assert trace.reported_costs == 2
        assert {name: entry.reported_costs for name, entry in trace.models.items()} == {"m": 0, "free": 1}

    def test_a_span_that_adds_only_a_cost_adds_no_call(self) -> None:
        trace = figures_of([agent(1, cost=7), llm(2, cost=8, model="m")])
        assert {name: model_entry(entry) for name, entry in trace.models.items()} == {
            "unknown": {"calls": 0, "prompt": 0, "completion": 0, "embedding": 0, "cost_nano": 7, **REPORTED},
            "m": {"calls": 0, "prompt": 0, "completion": 0, "embedding": 0, "cost_nano": 8, **REPORTED},
        }
