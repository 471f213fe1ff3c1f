"""Level 1: spans into the state of their trace, and the session that the trace belongs to.

The merge is idempotent, commutative and associative (DESIGN section 3): which spans a state holds, and with which
content, depends on what arrived, not on how often or in which order.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

from aggregator.core.model import NO_CLAIM, TIME_LAST, SessionRef, Span
from aggregator.core.state import TraceState

MERGED: Final = 0
DUPLICATE: Final = 1
FOLDED: Final = 2


def _content(span: Span) -> tuple[object, ...]:
    """Everything that can differ between two spans of one identity: the greatest of equals stays."""
    return (
        span.parent_id,
        span.name,
        span.start_us,
        span.error,
        span.span_class,
        span.service,
        span.scope,
        span.project,
        span.claim_row,
        span.claim_session_id,
        span.user_id,
        span.model,
        span.provider,
        span.prompt_tokens,
        span.completion_tokens,
        span.cache_read_tokens,
        span.cache_write_tokens,
        span.reasoning_tokens,
        span.embedding_tokens,
        span.written_prompt_tokens,
        span.written_completion_tokens,
        span.cost_nano,
    )


def _replaces(new: Span, old: Span) -> bool:
    """A total order on the contents of one span: later end, then more tokens, then the greater content."""
    if new.end_us != old.end_us:
        return new.end_us > old.end_us
    new_tokens: i64 = new.prompt_tokens + new.completion_tokens + new.embedding_tokens
    old_tokens: i64 = old.prompt_tokens + old.completion_tokens + old.embedding_tokens
    if new_tokens != old_tokens:
        return new_tokens > old_tokens
    return _content(new) > _content(old)


def merge_span(state: TraceState, span: Span, max_trace_spans: i64) -> i64:
    """Merge one span into its trace: MERGED if that changed something, DUPLICATE if not, FOLDED if there is no room."""
    old = state.spans.get(span.span_id)
    if old is not None:
        if not _replaces(span, old):
            return DUPLICATE
        state.spans[span.span_id] = span
        state.replaced()
        return MERGED
    if len(state.spans) >= max_trace_spans:
        if not state.truncated:
            state.truncated = True
            state.replaced()
        return FOLDED
    state.spans[span.span_id] = span
    return MERGED


def supersede(state: TraceState, shown: TraceState) -> None:
    """See that `state`, which has all that `shown` has, is of no lower version, and of a higher one if it has more.

    Replacements say how a state came about.  One that was begun anew after a loss has had fewer of them, while a
    session may show the other one already.
    """
    if len(state.spans) > len(shown.spans) or state.replacements > shown.replacements:
        return
    state.replacements = shown.replacements
    for span_id, span in state.spans.items():
        old = shown.spans.get(span_id)
        if old is None or _replaces(span, old):
            state.replaced()
            return


class ClaimResult:
    """The session of a trace, and whether its spans disagree about it."""

    __slots__ = ("conflicting", "ref")

    def __init__(self) -> None:
        self.ref: SessionRef | None = None
        self.conflicting: bool = False


def resolve_claim(spans: list[Span]) -> ClaimResult:
    """The best claim among the spans of a trace: lowest row, then earliest start, then smallest span id."""
    result = ClaimResult()
    best: Span | None = None
    for span in spans:
        if span.claim_row == NO_CLAIM:
            continue
        if best is None:
            best = span
            continue
        if span.claim_session_id != best.claim_session_id or span.project != best.project:
            result.conflicting = True
        if _claims_better(span, best):
            best = span
    if best is not None:
        result.ref = SessionRef(best.project, best.claim_session_id)
    return result


def _claims_better(span: Span, best: Span) -> bool:
    if span.claim_row != best.claim_row:
        return span.claim_row < best.claim_row
    start: i64 = span.start_us or TIME_LAST
    best_start: i64 = best.start_us or TIME_LAST
    if start != best_start:
        return start < best_start
    return span.span_id < best.span_id
