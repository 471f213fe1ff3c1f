"""What holds of the figures of any trace, whatever its shape."""

from __future__ import annotations

import copy

from hypothesis import given
from hypothesis import strategies as st

from aggregator.core.model import Span
from tests.core.trees import all_figures, as_read, figures_of, traces
from tests.oracle_traces import flat_price, trace_figures


@given(traces())
def test_the_figures_are_those_of_the_oracle(spans: list[Span]) -> None:
    expected = trace_figures([as_read(one) for one in spans], price=flat_price)
    assert all_figures(figures_of(spans)) == all_figures(expected)


@given(traces(most=40), st.randoms())
def test_the_order_of_the_spans_does_not_matter(spans: list[Span], random: object) -> None:
    figures = all_figures(figures_of(spans))
    random.shuffle(spans)  # type: ignore[attr-defined]
    assert all_figures(figures_of(spans)) == figures


@given(traces())
def test_the_spans_are_left_as_they_are(spans: list[Span]) -> None:
    before = [[getattr(one, name) for name in Span.__slots__] for one in copy.copy(spans)]
    figures_of(spans)
    assert [[getattr(one, name) for name in Span.__slots__] for one in spans] == before
