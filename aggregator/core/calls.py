"""The spans of a trace that carry usage or a cost, as the counting rule (DESIGN section 4) sees them.

A trace is mostly spans that carry neither, so the rule works on a tree of calls alone.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

from aggregator.core.model import AGENT, EMBEDDING, LLM, TOOL, Span
from aggregator.core.tree import NOWHERE, Tree

NO_USAGE: Final = 0
LLM_USAGE: Final = 1
EMBEDDING_USAGE: Final = 2
WRAPPER_USAGE: Final = 3


class Call:
    """What the rule knows of one span with usage or a cost, and what it decides about it.

    `place` is the index in `Calls.in_order`; `above` is the place of the nearest call above, `NOWHERE` without one,
    and `walled` says that a span of class tool or agent stands between the two.
    `repeats` is the call whose usage this one repeats (a single repeat), `exact` that both figures are the same, all
    the way to the end of the chain; `repeats_sum` says that it repeats the sum of several, `has_twin` that it is one
    of two twins.
    `silenced` says that something below counts or repeats, so that a wrapper's own usage does not count.
    `cache_read`, `cache_write`, `reasoning` and `cost_nano` are the span's own, or taken over from a repeat.
    `paid_below` and `paid_above` say that a call below or above adds the cost it reports.
    """

    __slots__ = (
        "above",
        "adds_reported_cost",
        "below",
        "below_completion",
        "below_embedding",
        "below_prompt",
        "cache_read",
        "cache_write",
        "cost_nano",
        "counts",
        "exact",
        "first",
        "gate",
        "has_twin",
        "kind",
        "last",
        "paid_above",
        "paid_below",
        "place",
        "reasoning",
        "repeats",
        "repeats_sum",
        "silenced",
        "span",
        "walled",
    )

    def __init__(self, span: Span, kind: i64, place: i64) -> None:
        self.span: Span = span
        self.kind: i64 = kind
        self.place: i64 = place
        self.above: i64 = NOWHERE
        self.walled: bool = False
        self.counts: bool = kind in (LLM_USAGE, EMBEDDING_USAGE)
        self.repeats: Call | None = None
        self.exact: bool = False
        self.repeats_sum: bool = False
        self.has_twin: bool = False
        self.cache_read: i64 = span.cache_read_tokens
        self.cache_write: i64 = span.cache_write_tokens
        self.reasoning: i64 = span.reasoning_tokens
        self.cost_nano: i64 = span.cost_nano
        self.adds_reported_cost: bool = False
        self.silenced: bool = False
        self.paid_below: bool = False
        self.paid_above: bool = False
        # Scratch of single steps: of the nearest calls of the same kind below, how many and their sums; the nearest
        # call of a kind that is seen from below; pre-order numbers.
        self.below: i64 = 0
        self.below_prompt: i64 = 0
        self.below_completion: i64 = 0
        self.below_embedding: i64 = 0
        self.gate: i64 = NOWHERE
        self.first: i64 = 0
        self.last: i64 = 0

    def is_repeat(self) -> bool:
        """Whether this call's usage is told by others."""
        return self.repeats is not None or self.repeats_sum


class Calls:
    """All calls of a trace: by place (order of (start, span id)), and with each call before those below it."""

    __slots__ = ("downward", "in_order", "nested", "with_cost")

    def __init__(self, tree: Tree) -> None:
        self.in_order: list[Call] = []
        self.downward: list[Call] = self.in_order
        self.nested: bool = False
        self.with_cost: bool = False
        own: list[int] = []
        i: i64 = 0
        for span in tree.spans:
            kind = usage_kind(span)
            if span.cost_nano >= 0:
                self.with_cost = True
            elif kind == NO_USAGE:
                own.append(NOWHERE)
                continue
            own.append(i)
            self.in_order.append(Call(span, kind, i))
            i += 1
        if i > 1:
            self._find_above(tree, own)

    def _find_above(self, tree: Tree, own: list[int]) -> None:
        """Link each call to the nearest one above; `own` has the place of each span's call."""
        size = len(own)
        nearest = [NOWHERE] * size  # seen from just below a span
        walled = [False] * size
        downward: list[Call] = []
        for at in tree.downward:
            parent: i64 = tree.parents[at]
            above: i64 = NOWHERE
            wall = False
            if parent >= 0:
                above = nearest[parent]
                wall = walled[parent]
            place: i64 = own[at]
            if place < 0:
                nearest[at] = above
                walled[at] = wall or is_wall(tree.spans[at])
                continue
            call = self.in_order[place]
            downward.append(call)
            nearest[at] = place
            if above >= 0:
                call.above = above
                call.walled = wall
                self.nested = True
        self.downward = downward


def usage_kind(span: Span) -> i64:
    """In which way the span's usage is looked at; `NO_USAGE` if no token figure of it is above zero."""
    if not span.has_tokens():
        return NO_USAGE
    if span.span_class == LLM:
        return LLM_USAGE
    return EMBEDDING_USAGE if span.span_class == EMBEDDING else WRAPPER_USAGE


def is_wall(span: Span) -> bool:
    """Whether a nested call is looked for no further than this span: a tool or an agent makes calls of its own."""
    return span.span_class == TOOL or span.span_class == AGENT


def same_figure(a: Span, b: Span) -> bool:
    """Whether prompt, completion or embedding tokens are the same; zero matches nothing."""
    return (
        (a.prompt_tokens == b.prompt_tokens and a.prompt_tokens > 0)
        or (a.completion_tokens == b.completion_tokens and a.completion_tokens > 0)
        or (a.embedding_tokens == b.embedding_tokens and a.embedding_tokens > 0)
    )


def same_figures(a: Span, b: Span) -> bool:
    """Whether all of prompt, completion and embedding tokens are the same."""
    return (
        a.prompt_tokens == b.prompt_tokens
        and a.completion_tokens == b.completion_tokens
        and a.embedding_tokens == b.embedding_tokens
    )
