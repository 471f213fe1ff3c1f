"""Which calls of a trace count: nested repeats, twins, wrappers, and the details that a repeat lends.

Each step reads what the steps before it decided and is linear in the number of calls (twins aside, see there).
"""

from __future__ import annotations

from mypy_extensions import i64

from aggregator.core.calls import (
    EMBEDDING_USAGE,
    LLM_USAGE,
    WRAPPER_USAGE,
    Call,
    Calls,
    is_wall,
    same_figure,
    same_figures,
)
from aggregator.core.tree import NOWHERE
from aggregator.core.twins import find_twins


def decide_what_counts(calls: Calls) -> bool:
    """Set `counts`, `repeats`, `exact`, `repeats_sum` and the details of every call.

    Returns whether LLM spans with usage of their own were nested (`nested_llm_traces`).
    """
    nested_llm = False
    if calls.nested:
        nested_llm = _find_nested_repeats(calls, LLM_USAGE) > 0
        _find_nested_repeats(calls, EMBEDDING_USAGE)
    find_twins(calls)
    _follow_chains(calls)
    _take_over_details(calls)
    _let_innermost_wrappers_count(calls)
    return nested_llm


def _find_nested_repeats(calls: Calls, kind: i64) -> i64:
    """Find the calls of one kind that repeat one of the nearest of that kind below, or their sum.

    Returns how many have some below and are no repeat.
    """
    _see_nearest_from_below(calls, kind)
    for call in calls.in_order:  # so that of equally good ones the earliest is met first
        if call.kind == kind and call.above >= 0 and not call.walled:
            holder: i64 = calls.in_order[call.above].gate
            if holder >= 0:
                _weigh(calls.in_order[holder], call)
    different: i64 = 0
    for call in calls.in_order:
        if call.kind == kind and call.below > 0:
            # The sum of a single one would be a repeat of that one.
            call.repeats_sum = call.repeats is None and _is_sum(call)
            if call.is_repeat():
                call.counts = False
            else:
                different += 1
    return different


def _see_nearest_from_below(calls: Calls, kind: i64) -> None:
    """Set each call's `gate`: the nearest call of the kind, itself included, that a span just below it looks at."""
    for call in calls.downward:
        if call.kind == kind:
            call.gate = call.place
        elif call.above < 0 or call.walled or is_wall(call.span):
            call.gate = NOWHERE
        else:
            call.gate = calls.in_order[call.above].gate


def _weigh(call: Call, inner: Call) -> None:
    """Note one of the nearest calls below: for the sum, and as the one that is repeated if none before fits better."""
    span = inner.span
    call.below += 1
    call.below_prompt += span.prompt_tokens
    call.below_completion += span.completion_tokens
    call.below_embedding += span.embedding_tokens
    if call.repeats is None:
        if same_figure(call.span, span):
            call.repeats = inner
            call.exact = same_figures(call.span, span)
    elif not call.exact and same_figures(call.span, span):
        call.repeats = inner
        call.exact = True


def _is_sum(call: Call) -> bool:
    span = call.span
    return (
        (span.prompt_tokens == call.below_prompt and span.prompt_tokens > 0)
        or (span.completion_tokens == call.below_completion and span.completion_tokens > 0)
        or (span.embedding_tokens == call.below_embedding and span.embedding_tokens > 0)
    )


def _follow_chains(calls: Calls) -> None:
    """Let `repeats` of every single repeat name the end of its chain.

    Upwards, so that what a call repeats has been followed already; the twin that a call repeats is never a repeat.
    """
    for call in reversed(calls.downward):
        inner = call.repeats
        if inner is not None and inner.repeats is not None:
            call.repeats = inner.repeats
            call.exact = call.exact and inner.exact


def _take_over_details(calls: Calls) -> None:
    """Take cache or reasoning figures that a counting call lacks from the earliest exact repeat that has them."""
    for call in calls.in_order:
        counting = call.repeats
        if counting is None or not call.exact:
            continue
        if counting.cache_read == 0 and counting.cache_write == 0:
            counting.cache_read = call.span.cache_read_tokens
            counting.cache_write = call.span.cache_write_tokens
        if counting.reasoning == 0:
            counting.reasoning = call.span.reasoning_tokens


def _let_innermost_wrappers_count(calls: Calls) -> None:
    """Let a wrapper count if nothing below it counts or repeats."""
    for call in reversed(calls.downward):
        if call.kind == WRAPPER_USAGE and not call.silenced:
            call.counts = True
        if call.above >= 0 and (call.silenced or call.counts or call.is_repeat()):
            calls.in_order[call.above].silenced = True
