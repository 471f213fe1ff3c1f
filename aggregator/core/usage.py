"""The figures of one trace: bounds, counts, tokens and cost, from all its spans at once (DESIGN sections 3 and 4)."""

from __future__ import annotations

from typing import Final

from aggregator.core.calls import EMBEDDING_USAGE, WRAPPER_USAGE, Call, Calls
from aggregator.core.cost import add_reported_costs, price
from aggregator.core.counting import decide_what_counts
from aggregator.core.model import LLM, UNKNOWN_MODEL, Counts, ModelUsage, Span, TraceRollup
from aggregator.core.pricing import Pricer
from aggregator.core.repeated_calls import scopes_mark
from aggregator.core.tree import Tree

MAX_USERS: Final = 16
MAX_SERVICES: Final = 16
NANO_PER_USD: Final = 1_000_000_000


def rollup(spans: list[Span], pricer: Pricer) -> TraceRollup:
    """Compute the figures of one trace.

    `spans` are all its distinct spans (no span id twice), in any order, and are left as they are; the result does not
    depend on the order.  Never raises.
    """
    trace = TraceRollup()
    if spans:
        tree = Tree(spans)
        _describe(trace, tree)
        _account(trace, Calls(tree), pricer)
    return trace


def _describe(trace: TraceRollup, tree: Tree) -> None:
    """Set everything but tokens and cost."""
    services: set[str] = set()
    last_service = ""
    for span in tree.spans:
        end_us = span.end_us or span.start_us
        if end_us > trace.ended_us:
            trace.ended_us = end_us
        if span.error:
            trace.error_count += 1
        if span.span_class == LLM:
            trace.llm_span_count += 1
            trace.llm_span_prompt_tokens += span.written_prompt_tokens
            trace.llm_span_completion_tokens += span.written_completion_tokens
        if span.service != last_service:
            last_service = span.service
            services.add(last_service)
        if span.user_id:
            _note_user(trace, span)
    services.discard("")
    trace.services = sorted(services)[:MAX_SERVICES]
    trace.span_count = len(tree.spans)
    trace.started_us = tree.spans[0].start_us
    trace.missing_root = tree.first_root < 0
    trace.name = tree.spans[max(tree.first_root, 0)].name


def _note_user(trace: TraceRollup, span: Span) -> None:
    if len(trace.users) == MAX_USERS:
        return
    for user_id, _, _ in trace.users:
        if user_id == span.user_id:
            return
    trace.users.append((span.user_id, span.start_us, span.span_id))


def _account(trace: TraceRollup, calls: Calls, pricer: Pricer) -> None:
    """Set tokens, cost, models and the flags about usage."""
    if not calls.in_order:
        return
    trace.nested_llm = decide_what_counts(calls)
    if calls.with_cost:
        add_reported_costs(calls)
    scopes: list[str] = []
    for call in calls.in_order:
        if call.counts:
            _add_tokens(trace, call)
            if call.kind != EMBEDDING_USAGE and call.span.scope not in scopes:
                scopes.append(call.span.scope)
        if call.adds_reported_cost:
            trace.reported_costs += 1
            entry = _add_cost(trace, call.span, call.cost_nano)
            if call.counts or call.cost_nano > 0:  # else it adds nothing to its model
                entry.reported_costs += 1
        elif call.counts and not call.paid_above:
            _add_price(trace, call, pricer)
    trace.scopes = scopes_mark(scopes)


def _add_tokens(trace: TraceRollup, call: Call) -> None:
    span = call.span
    trace.prompt_tokens += span.prompt_tokens
    trace.completion_tokens += span.completion_tokens
    trace.embedding_tokens += span.embedding_tokens
    trace.cache_read_tokens += call.cache_read
    trace.cache_write_tokens += call.cache_write
    trace.reasoning_tokens += call.reasoning
    if call.kind == WRAPPER_USAGE:
        trace.wrapper_usage = True
    model = _model_entry(trace, span)
    model.calls += 1
    model.prompt_tokens += span.prompt_tokens
    model.completion_tokens += span.completion_tokens
    model.embedding_tokens += span.embedding_tokens


def _add_price(trace: TraceRollup, call: Call, pricer: Pricer) -> None:
    cost_nano = price(call, pricer)
    if cost_nano < 0:
        trace.unpriced_calls += 1
    else:
        trace.priced_costs += 1
        _add_cost(trace, call.span, cost_nano).priced_costs += 1


def _add_cost(trace: TraceRollup, span: Span, cost_nano: int) -> ModelUsage:
    """Add a cost to the trace and to the span's model, whose entry is returned."""
    trace.cost_nano += cost_nano
    entry = _model_entry(trace, span)
    entry.cost_nano += cost_nano
    return entry


def _model_entry(trace: TraceRollup, span: Span) -> ModelUsage:
    name = span.model or UNKNOWN_MODEL
    entry = trace.models.get(name)
    if entry is None:
        entry = ModelUsage()
        trace.models[name] = entry
    return entry


def trace_counts(rollup: TraceRollup, *, conflicting: bool, truncated: bool) -> Counts:
    """The additive figures of one trace, for the session's sums.

    `conflicting` says that spans of the trace claim different sessions, `truncated` that it took no more spans.
    """
    whole_usd, rest_nano = divmod(rollup.cost_nano, NANO_PER_USD)
    # In the order of the fields, since naming them takes three times as long.
    return Counts._make(
        (
            1,
            rollup.span_count,
            rollup.llm_span_count,
            rollup.error_count,
            1 if rollup.error_count > 0 else 0,
            rollup.prompt_tokens,
            rollup.completion_tokens,
            rollup.cache_read_tokens,
            rollup.cache_write_tokens,
            rollup.reasoning_tokens,
            rollup.embedding_tokens,
            rollup.llm_span_prompt_tokens,
            rollup.llm_span_completion_tokens,
            rollup.unpriced_calls,
            rollup.reported_costs,
            rollup.priced_costs,
            1 if conflicting else 0,
            1 if rollup.wrapper_usage else 0,
            1 if rollup.nested_llm else 0,
            1 if rollup.missing_root else 0,
            1 if truncated else 0,
            whole_usd,
            rest_nano,
        )
    )
