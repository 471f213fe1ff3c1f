"""Twins: one call that two instrumentations saw side by side, neither span above the other."""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

from aggregator.core.calls import WRAPPER_USAGE, Call, Calls

OVERHANG_US: Final = 50_000
"""How much later than the outer one the inner of two twins may end."""


def find_twins(calls: Calls) -> None:
    """Mark as repeats the counting LLM and embedding calls that another scope tells as well."""
    if not _several_scopes(calls):
        return
    buckets: dict[tuple[int, int, int, int], list[Call]] = {}
    for call in calls.in_order:
        span = call.span
        if _may_have_twin(call):
            key = (call.kind, span.prompt_tokens, span.completion_tokens, span.embedding_tokens)
            buckets.setdefault(key, []).append(call)
    numbered = False
    for bucket in buckets.values():
        if len(bucket) > 1:
            if not numbered:
                _number(calls)
                numbered = True
            bucket.sort(key=_twin_order)
            _pair(bucket)


def _several_scopes(calls: Calls) -> bool:
    first: str | None = None
    for call in calls.in_order:
        if call.counts:
            if first is None:
                first = call.span.scope
            elif call.span.scope != first:
                return True
    return False


def _may_have_twin(call: Call) -> bool:
    span = call.span
    return call.counts and call.kind != WRAPPER_USAGE and span.start_us > 0 and span.end_us >= span.start_us


def _twin_order(call: Call) -> tuple[int, int, int]:
    return (call.span.start_us, -call.span.end_us, call.place)


def _pair(bucket: list[Call]) -> None:
    """Let each call repeat the first earlier one that still counts, is free, contains it and is of another scope."""
    free: list[Call] = []
    for call in bucket:
        i: i64 = 0
        for other in free:
            if _is_twin(call, other):
                call.repeats = other
                call.exact = True
                call.counts = False
                break
            i += 1
        if call.counts:
            free.append(call)
        else:
            del free[i]


def _is_twin(call: Call, outer: Call) -> bool:
    return (
        call.span.end_us <= outer.span.end_us + OVERHANG_US
        and call.span.scope != outer.span.scope
        and (call.first > outer.last or call.last < outer.first)
    )


def _number(calls: Calls) -> None:
    """Number the calls so that those at and below one are exactly the range from its `first` to its `last`."""
    sizes = [1] * len(calls.in_order)
    for call in reversed(calls.downward):
        if call.above >= 0:
            sizes[call.above] += sizes[call.place]
    free = [0] * len(sizes)  # by place, the number at which the next subtree below begins
    next_root: i64 = 0
    for call in calls.downward:
        size: i64 = sizes[call.place]
        if call.above >= 0:
            call.first = free[call.above]
            free[call.above] += size
        else:
            call.first = next_root
            next_root += size
        free[call.place] = call.first + 1
        call.last = call.first + size - 1
