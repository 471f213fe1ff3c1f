"""The independent oracle: what DESIGN.md says comes out of a set of records, all looked at at once.

It sorts, dedupes, builds the tree of each trace, applies every rule to the whole tree, and sums.
It is written from the documents alone, shares no code with the package, and prefers plain steps to speed.

    expected = expected_sessions(records, price=flat_price)
    expected["demo", "s-1"].summary == document without opened_at, revision, summary_id, close_reason

`records` are (official `TracesData`, log time in ms).  `price(model, provider, start_us, prompt, completion,
cache_read, cache_write, reasoning, embedding)` gives nano-dollars, or -1 where the model is not known; the documents
name no attribute for the provider, so the oracle passes "" and a test's price must not look at it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from tests.oracle_spans import SpanRead, read_record
from tests.oracle_traces import (
    MOST_SERVICES,
    TWIN_OVERHANG_US,
    ModelFigures,
    Price,
    TraceFigures,
    distinct,
    first_uses,
    flat_price,
    trace_figures,
)

__all__ = (
    "ExpectedSession",
    "ModelFigures",
    "Price",
    "Records",
    "TraceFigures",
    "comparable_hash",
    "comparable_summary",
    "expected_sessions",
    "expected_traces",
    "flat_price",
    "partial_reasons",
    "spans_by_trace",
    "trace_figures",
    "unclaimed_traces",
)

Records = Sequence[tuple[TracesData, int]]

SUMMARY_LEAVES_OUT = ("opened_at", "revision", "summary_id", "close_reason")
HASH_LEAVES_OUT = ("status", "revision", "opened_at", "last_activity_ms")


@dataclass(frozen=True, kw_only=True)
class ExpectedSession:
    """What must be seen of one session.

    `summary` lacks SUMMARY_LEAVES_OUT and `hash_fields` lacks HASH_LEAVES_OUT; compare the latter with
    `comparable_hash(fields as read from Redis)`.  `models_hash` holds every field, zeros included, but for
    `:reported_costs` and `:priced_costs`, which are missing where they are zero.
    `key` is `<project>/<session_id>`, percent-encoded; `traces` is by trace id in hex.
    """

    project: str
    session_id: str
    key: str
    summary: dict[str, object]
    hash_fields: dict[str, str]
    models_hash: dict[str, int]
    traces: dict[str, TraceFigures]


def spans_by_trace(
    records: Records, *, session_id_attributes: Sequence[str] = (), project_attributes: Sequence[str] = ()
) -> dict[bytes, list[SpanRead]]:
    """Reads all records and gives each trace's distinct spans in order of start."""
    everything: list[SpanRead] = []
    for message, log_ms in records:
        spans, _ = read_record(
            message, log_ms, session_id_attributes=session_id_attributes, project_attributes=project_attributes
        )
        everything += spans
    traces: dict[bytes, list[SpanRead]] = defaultdict(list)
    for span in distinct(everything):
        traces[span.trace_id].append(span)
    return dict(traces)


def expected_sessions(
    records: Records,
    *,
    price: Price,
    session_id_attributes: Sequence[str] = (),
    project_attributes: Sequence[str] = (),
) -> dict[tuple[str, str], ExpectedSession]:
    """Gives every session that the records amount to, by (project, session id)."""
    sessions: dict[tuple[str, str], list[TraceFigures]] = defaultdict(list)
    traces = expected_traces(
        records, price=price, session_id_attributes=session_id_attributes, project_attributes=project_attributes
    )
    for trace in traces.values():
        if trace.session is not None:
            sessions[trace.session].append(trace)
    return {ref: expected_session(*ref, session_traces) for ref, session_traces in sessions.items()}


def expected_traces(
    records: Records,
    *,
    price: Price,
    session_id_attributes: Sequence[str] = (),
    project_attributes: Sequence[str] = (),
) -> dict[str, TraceFigures]:
    """Gives the figures of every trace, claimed or not, by trace id in hex."""
    traces = spans_by_trace(records, session_id_attributes=session_id_attributes, project_attributes=project_attributes)
    return {trace_id.hex(): trace_figures(spans, price=price) for trace_id, spans in traces.items()}


def unclaimed_traces(records: Records, *, session_id_attributes: Sequence[str] = ()) -> set[str]:
    """Gives the traces (hex) of which no span claims a session."""
    traces = spans_by_trace(records, session_id_attributes=session_id_attributes)
    return {trace_id.hex() for trace_id, spans in traces.items() if not any(span.claim for span in spans)}


def partial_reasons(message: TracesData, log_ms: int, *, session_id_attributes: Sequence[str] = ()) -> set[str]:
    """Says why a record also goes to the dead-letter topic, marked `partial`; empty where it does not."""
    return read_record(message, log_ms, session_id_attributes=session_id_attributes)[1]


def expected_session(project: str, session_id: str, traces: Sequence[TraceFigures]) -> ExpectedSession:
    """Sums the traces of one session."""
    ordered = sorted(traces, key=lambda trace: (trace.started_us == 0, trace.started_us, trace.trace_id))
    users = [user_id for user_id, _, _ in first_uses(use for trace in ordered for use in trace.users)]
    started_us = min((trace.started_us for trace in ordered if trace.started_us), default=0)
    ended_us = max(trace.ended_us for trace in ordered)
    models = summed_models(ordered)
    summary: dict[str, object] = {
        "schema": "session-summary/1",
        "project": project,
        "session_id": session_id,
        **time_fields(started_us, ended_us),
        "user_id": users[0] if users else None,
        "user_ids": users,
        "trace_count": len(ordered),
        "span_count": sum(trace.span_count for trace in ordered),
        "llm_span_count": sum(trace.llm_span_count for trace in ordered),
        "error_count": sum(trace.error_count for trace in ordered),
        "error_trace_count": sum(trace.error_count > 0 for trace in ordered),
        "tokens": token_fields(ordered),
        "llm_span_tokens": llm_span_token_fields(ordered),
        "cost_usd": dollars(sum(trace.cost_nano for trace in ordered)),
        "cost_source": source_of(
            sum(trace.reported_costs for trace in ordered), sum(trace.priced_costs for trace in ordered)
        ),
        "unpriced_calls": sum(trace.unpriced_calls for trace in ordered),
        "models": {name: model_fields(model) for name, model in models.items()},
        "services": sorted({service for trace in ordered for service in trace.services})[:MOST_SERVICES],
        "traces": [trace_entry(trace) for trace in ordered],
        "flags": {
            "conflicting_claim_traces": sum(trace.conflicting_claims for trace in ordered),
            "wrapper_usage_traces": sum(trace.wrapper_usage for trace in ordered),
            "nested_llm_traces": sum(trace.nested_llm for trace in ordered),
            "missing_root_traces": sum(trace.missing_root for trace in ordered),
            "repeated_call_traces": repeated_call_traces(ordered),
        },
        "truncated": False,
    }
    return ExpectedSession(
        project=project,
        session_id=session_id,
        key=f"{percent_encoded(project)}/{percent_encoded(session_id)}",
        summary=summary,
        hash_fields=hash_of(summary, ordered),
        models_hash=models_hash_of(models),
        traces={trace.trace_id.hex(): trace for trace in ordered},
    )


def repeated_call_traces(traces: Sequence[TraceFigures]) -> int:
    """Counts the traces that seem to tell the calls of another one again."""

    def tokens(several: Sequence[TraceFigures]) -> tuple[int, int]:
        return sum(one.prompt_tokens for one in several), sum(one.completion_tokens for one in several)

    def place(one: TraceFigures) -> tuple[int, int, bytes]:
        return one.started_us, -one.ended_us, one.trace_id

    suspected: set[bytes] = set()
    with_calls = [one for one in traces if one.scopes and 0 < one.started_us <= one.ended_us]
    for outer in with_calls:
        within = [
            one
            for one in with_calls
            if place(one) > place(outer)
            and one.scopes != outer.scopes
            and outer.started_us <= one.started_us < outer.ended_us
            and one.ended_us <= outer.ended_us + TWIN_OVERHANG_US
        ]
        groups = [within, *([one for one in within if one.scopes == other.scopes] for other in within)]
        matching = [group for group in groups if min(tokens(group)) > 0 and tokens(group) == tokens([outer])]
        if matching:
            group = matching[0] if matching[0] is within else [one for some in matching for one in some]
            suspected |= {one.trace_id for one in group if sum(tokens([one])) > 0}
    return len(suspected)


def summed_models(traces: Sequence[TraceFigures]) -> dict[str, ModelFigures]:
    models: dict[str, ModelFigures] = {}
    for trace in traces:
        for name, figures in trace.models.items():
            total = models.setdefault(name, ModelFigures())
            total.calls += figures.calls
            total.prompt += figures.prompt
            total.completion += figures.completion
            total.embedding += figures.embedding
            total.cost_nano += figures.cost_nano
            total.reported_costs += figures.reported_costs
            total.priced_costs += figures.priced_costs
    # A model that only a cost of 0 was reported for adds nothing, so a session does not show it.
    return {
        name: total
        for name, total in models.items()
        if (total.calls, total.prompt, total.completion, total.embedding, total.cost_nano) != (0, 0, 0, 0, 0)
    }


def token_fields(traces: Sequence[TraceFigures]) -> dict[str, int]:
    prompt = sum(trace.prompt_tokens for trace in traces)
    completion = sum(trace.completion_tokens for trace in traces)
    return {
        "prompt": prompt,
        "completion": completion,
        "total": prompt + completion,
        "cache_read": sum(trace.cache_read_tokens for trace in traces),
        "cache_write": sum(trace.cache_write_tokens for trace in traces),
        "reasoning": sum(trace.reasoning_tokens for trace in traces),
        "embedding": sum(trace.embedding_tokens for trace in traces),
    }


def llm_span_token_fields(traces: Sequence[TraceFigures]) -> dict[str, int]:
    prompt = sum(trace.llm_span_prompt_tokens for trace in traces)
    completion = sum(trace.llm_span_completion_tokens for trace in traces)
    return {"prompt": prompt, "completion": completion, "total": prompt + completion}


def source_of(reported: int, priced_some: int) -> str:
    """Says where a cost is from, by how many spans added one of each kind."""
    if reported and priced_some:
        return "mixed"
    return "reported" if reported else "priced" if priced_some else "none"


def model_fields(model: ModelFigures) -> dict[str, object]:
    return {
        "calls": model.calls,
        "prompt": model.prompt,
        "completion": model.completion,
        "embedding": model.embedding,
        "cost_usd": dollars(model.cost_nano),
        "cost_source": source_of(model.reported_costs, model.priced_costs),
    }


def trace_entry(trace: TraceFigures) -> dict[str, object]:
    return {
        "trace_id": trace.trace_id.hex(),
        "name": trace.name,
        **time_fields(trace.started_us, trace.ended_us),
        "span_count": trace.span_count,
        "error_count": trace.error_count,
        "tokens": token_fields([trace]),
        "cost_usd": dollars(trace.cost_nano),
        "cost_source": source_of(trace.reported_costs, trace.priced_costs),
    }


def hash_of(summary: Mapping[str, object], traces: Sequence[TraceFigures]) -> dict[str, str]:
    """Gives the session hash that goes with a summary; what is null there is missing here."""
    tokens, llm = token_fields(traces), llm_span_token_fields(traces)
    same = ("project", "session_id", "started_at", "ended_at", "duration_ms", "user_id")
    counts = ("trace_count", "span_count", "llm_span_count", "error_count", "error_trace_count", "unpriced_calls")
    return {
        **{name: str(summary[name]) for name in same if summary[name] is not None},
        **{name: str(summary[name]) for name in (*counts, "cost_usd", "cost_source")},
        **{f"{name}_tokens": str(value) for name, value in tokens.items()},
        "llm_span_prompt_tokens": str(llm["prompt"]),
        "llm_span_completion_tokens": str(llm["completion"]),
        "cost_nano_usd": str(sum(trace.cost_nano for trace in traces)),
        "truncated": "0",
    }


def comparable_hash(fields: Mapping[str, str]) -> dict[str, str]:
    """Brings a session hash as read from Redis to the form of `ExpectedSession.hash_fields`."""
    kept = {name: value for name, value in fields.items() if name not in HASH_LEAVES_OUT}
    if "duration_ms" in kept:
        kept["duration_ms"] = str(float(kept["duration_ms"]))
    return kept


def comparable_summary(summary: Mapping[str, object]) -> dict[str, object]:
    """Brings a published summary to the form of `ExpectedSession.summary`."""
    return {name: value for name, value in summary.items() if name not in SUMMARY_LEAVES_OUT}


def models_hash_of(models: Mapping[str, ModelFigures]) -> dict[str, int]:
    fields: dict[str, int] = {}
    for name, model in models.items():
        fields[f"{name}:calls"] = model.calls
        fields[f"{name}:prompt_tokens"] = model.prompt
        fields[f"{name}:completion_tokens"] = model.completion
        fields[f"{name}:embedding_tokens"] = model.embedding
        fields[f"{name}:cost_nano_usd"] = model.cost_nano
        if model.reported_costs:
            fields[f"{name}:reported_costs"] = model.reported_costs
        if model.priced_costs:
            fields[f"{name}:priced_costs"] = model.priced_costs
    return fields


def time_fields(started_us: int, ended_us: int) -> dict[str, object]:
    return {
        "started_at": rfc3339(started_us),
        "ended_at": rfc3339(ended_us),
        "duration_ms": (ended_us - started_us) / 1000 if started_us and ended_us else None,
    }


def rfc3339(microseconds: int) -> str | None:
    if not microseconds:
        return None
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def dollars(nano: int) -> str:
    return f"{nano // 10**9}.{nano % 10**9:09d}"


def percent_encoded(text: str) -> str:
    plain = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~:@"
    return "".join(chr(byte) if byte in plain else f"%{byte:02X}" for byte in text.encode())
