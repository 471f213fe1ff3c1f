"""Any workload is read and counted as the oracle does it, in each encoding and under any lists of the operator."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from aggregator.core.conventions import TABLE_CLAIM_ROW, Conventions
from aggregator.core.decode import decode, decode_reference
from aggregator.core.decode_json import decode_json
from aggregator.core.merge import merge_span
from aggregator.core.model import CLASS_NAMES, NO_CLAIM, NO_COST, Decoded, Span
from aggregator.core.state import TraceState
from aggregator.core.usage import rollup
from tests.builders import BASE_MS, to_json, to_protobuf
from tests.core.trees import FlatPricer, all_figures
from tests.oracle_spans import SpanRead, Usage, read_record
from tests.oracle_tables import CLAIM_ROWS, USER_ATTRIBUTES
from tests.oracle_traces import distinct, flat_price, trace_figures
from tests.workloads import OWN_SESSION_ATTRIBUTE, Workload, workloads


class Lists(NamedTuple):
    """The operator's lists, as both sides take them."""

    session_id_attributes: tuple[str, ...]
    project_attributes: tuple[str, ...]
    user_attributes: tuple[str, ...]
    ignored_attributes: tuple[str, ...]


def lists() -> st.SearchStrategy[Lists]:
    own = st.sampled_from(((), (OWN_SESSION_ATTRIBUTE,), (OWN_SESSION_ATTRIBUTE, "session.id", "enduser.id")))
    ignored = st.lists(st.sampled_from((*CLAIM_ROWS, *USER_ATTRIBUTES)), max_size=6, unique=True).map(tuple)
    some_ignored = st.one_of(st.just(()), st.just(("session.id",)), st.just(("session.id", "user.id")), ignored)
    projects = st.sampled_from(((), ("model_id",)))
    users = st.sampled_from(((), ("langsmith.metadata.user_id", OWN_SESSION_ATTRIBUTE)))
    return st.builds(Lists, own, projects, users, some_ignored)


def by_oracle(span: SpanRead, own: int) -> dict[str, object]:
    """What the oracle reads; its rows begin with the operator's own."""
    usage = span.usage
    return {
        "claim": span.claim and (span.claim[0] + TABLE_CLAIM_ROW - own, span.claim[1]),
        "usage": usage,
        **{name: getattr(span, name) for name in ("name", "user_id", "project", "service", "scope", "model", "error")},
        "class": span.span_class,
        "cost": span.cost_nano,
        "times": (span.start_us, span.end_us),
    }


def as_decoded(span: Span) -> dict[str, object]:
    return {
        "claim": None if span.claim_row == NO_CLAIM else (span.claim_row, span.claim_session_id),
        "usage": Usage(
            prompt=span.prompt_tokens,
            completion=span.completion_tokens,
            cache_read=span.cache_read_tokens,
            cache_write=span.cache_write_tokens,
            reasoning=span.reasoning_tokens,
            embedding=span.embedding_tokens,
            written_prompt=span.written_prompt_tokens if span.span_class != EMBEDDING_CLASS else 0,
            written_completion=span.written_completion_tokens if span.span_class != EMBEDDING_CLASS else 0,
        ),
        **{name: getattr(span, name) for name in ("name", "user_id", "project", "service", "scope", "model", "error")},
        "class": CLASS_NAMES[span.span_class],
        "cost": None if span.cost_nano == NO_COST else span.cost_nano,
        "times": (span.start_us, span.end_us),
    }


EMBEDDING_CLASS = CLASS_NAMES.index("embedding")


def in_each_encoding(message: TracesData, conventions: Conventions) -> list[Decoded]:
    protobuf = to_protobuf(message)
    return [
        decode(protobuf, log_ms=BASE_MS, conventions=conventions),
        decode_reference(protobuf, log_ms=BASE_MS, conventions=conventions),
        decode_json(to_json(message), log_ms=BASE_MS, conventions=conventions),
    ]


@settings(max_examples=150)
@given(workloads(max_traces=1), lists())
def test_spans_are_read_as_the_oracle_reads_them(workload: Workload, operators: Lists) -> None:
    conventions = Conventions(*operators)
    for message in workload.spans:
        expected, reasons = read_record(message, BASE_MS, **operators._asdict())
        for decoded in in_each_encoding(message, conventions):
            found = [as_decoded(span) for span in decoded.spans]
            assert found == [by_oracle(span, len(operators.session_id_attributes)) for span in expected]
            assert {decoded.partial_reason} - {""} == reasons


@settings(max_examples=300)
@given(workloads(max_traces=1, max_spans=10))
def test_traces_are_counted_as_the_oracle_counts_them(workload: Workload) -> None:
    conventions = Conventions()
    state = TraceState(b"\0" * 16)
    read: list[SpanRead] = []
    for message in workload.spans:
        read += read_record(message, BASE_MS)[0]
        for span in decode(to_protobuf(message), log_ms=BASE_MS, conventions=conventions).spans:
            merge_span(state, span, 10_000)
    if read:
        expected = trace_figures(distinct(read), price=flat_price)
        assert all_figures(rollup(list(state.spans.values()), FlatPricer())) == all_figures(expected)
