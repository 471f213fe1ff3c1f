"""A warning: traces that seem to tell again the calls of another trace of their session.

Two instrumentations of which one does not make its spans current put one call into two traces: LangChain's and
OpenAI's do.  Nothing on the spans says so, and dropping either would be a guess; so both count, and it is said.
"""

from __future__ import annotations

from typing import Final, NamedTuple
from zlib import crc32

from mypy_extensions import i64

from aggregator.core.twins import OVERHANG_US

NO_SCOPES: Final = 0
_MOST_STEPS: Final = 256  # per trace, on the average: far more than a session needs whose traces are not all parallel


class SeenTrace(NamedTuple):
    """What is looked at of one trace of a session; times in microseconds, 0 unknown.

    `scopes` tells from which instrumentation scopes its counting calls are (`scopes_mark`).
    """

    started_us: int
    ended_us: int
    trace_id: str
    scopes: int
    prompt_tokens: int
    completion_tokens: int


def scopes_mark(scopes: list[str]) -> int:
    """Sixteen bits that tell one set of scopes (each once, in any order) from another; `NO_SCOPES` of none."""
    if not scopes:
        return NO_SCOPES
    text = scopes[0] if len(scopes) == 1 else "\0".join(sorted(scopes))
    return crc32(text.encode()) & 0xFFFF or 1


def count_repeated(traces: list[SeenTrace]) -> int:
    """How many traces seem to repeat the calls of another one.

    Those that lie within the time of a trace (50 ms of overhang at the end allowed) and come from other scopes: if
    their prompt and their completion tokens are together as many as its own, all of them, or else those of one mark.
    Of two that lie within each other the one that is first in (start, longest first, trace id) is the other one.
    Takes traces in that order, and a bounded number of steps a trace: of thousands at once it may miss some.
    """
    seen = sorted(filter(_has_calls, traces), key=_order)
    suspected: set[str] = set()
    steps_left: i64 = _MOST_STEPS * len(seen)
    for i, outer in enumerate(seen):
        if outer.prompt_tokens == 0 or outer.completion_tokens == 0:
            continue
        within: list[SeenTrace] = []
        for k in range(i + 1, len(seen)):
            inner = seen[k]
            steps_left -= 1
            if inner.started_us >= outer.ended_us or steps_left < 0:
                break
            if inner.ended_us <= outer.ended_us + OVERHANG_US and inner.scopes != outer.scopes:
                within.append(inner)
        if within:
            suspected.update([inner.trace_id for inner in _repeating(outer, within)])
    return len(suspected)


def _has_calls(trace: SeenTrace) -> bool:
    known = 0 < trace.started_us <= trace.ended_us
    return known and trace.scopes != NO_SCOPES and trace.prompt_tokens + trace.completion_tokens > 0


def _order(trace: SeenTrace) -> tuple[int, int, str]:
    return (trace.started_us, -trace.ended_us, trace.trace_id)


def _repeating(outer: SeenTrace, within: list[SeenTrace]) -> list[SeenTrace]:
    """Those of `within` that are together as large as the outer one."""
    if _same_tokens(outer, within):
        return within
    by_scopes: dict[int, list[SeenTrace]] = {}
    for inner in within:
        by_scopes.setdefault(inner.scopes, []).append(inner)
    return [inner for some in by_scopes.values() if _same_tokens(outer, some) for inner in some]


def _same_tokens(outer: SeenTrace, some: list[SeenTrace]) -> bool:
    prompt: i64 = 0
    completion: i64 = 0
    for inner in some:
        prompt += inner.prompt_tokens
        completion += inner.completion_tokens
    return prompt == outer.prompt_tokens and completion == outer.completion_tokens
