"""The tree that the spans of one trace form, whatever their order, gaps and cycles.

Built without recursion and in linear time but for one sort, since a trace of 10,000 spans may be one chain.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

from aggregator.core.model import TIME_LAST, Span

NOWHERE: Final = -1
"""The place of a span that is not there."""

_ID_BYTES: Final = 8
_ZERO_ID: Final = bytes(_ID_BYTES)
_FEW: Final = 24  # up to here sorting by insertion is faster than making keys


class Tree:
    """One trace's spans and who is whose parent.

    `spans` are in order of (start, span id), unknown starts last; the index there is a span's *place*, so of several
    spans the earliest is the one with the smallest place.  `parents` holds places, `NOWHERE` for a root.
    `downward` holds all places, each parent before its children.  `first_root` is the place of the earliest span
    without a parent, `NOWHERE` where there is none (a span whose parent is missing has one).
    """

    __slots__ = ("downward", "first_root", "parents", "spans")

    def __init__(self, spans: list[Span]) -> None:
        self.spans: list[Span] = in_start_order(spans)
        self.parents: list[int] = []
        self.downward: list[int] = []
        self.first_root: i64 = NOWHERE
        self._find_parents()

    def _find_parents(self) -> None:
        places: dict[bytes, int] = {}
        for i, span in enumerate(self.spans):
            places[span.span_id] = i
        in_order = True
        for i, span in enumerate(self.spans):
            parent: i64 = NOWHERE
            if not has_parent(span):
                if self.first_root < 0:
                    self.first_root = i
            else:
                parent = places.get(span.parent_id, NOWHERE)
                if parent >= i:
                    in_order = False
            self.parents.append(parent)
        # Parents that all start before their children cannot form a cycle, and the places are a downward order.
        self.downward = list(range(len(self.spans))) if in_order else self._cut_cycles()

    def _cut_cycles(self) -> list[int]:
        """Make the earliest span of each cycle a span without a parent; return the downward order.

        Spans are peeled off from the leaves; what resists is cycles, and nothing but cycles.
        """
        waiting = [0] * len(self.spans)  # children not yet peeled off
        for parent in self.parents:
            if parent >= 0:
                waiting[parent] += 1
        upward: list[int] = []
        for place in [place for place, children in enumerate(waiting) if children == 0]:
            self._peel(place, waiting, upward)
        for place in range(len(self.spans)):
            if waiting[place] > 0:
                parent = self.parents[place]
                self.parents[place] = NOWHERE
                if self.first_root < 0 or place < self.first_root:
                    self.first_root = place
                waiting[parent] -= 1
                self._peel(parent, waiting, upward)
        upward.reverse()
        return upward

    def _peel(self, place: i64, waiting: list[int], upward: list[int]) -> None:
        """Take off a leaf and every span above it that is a leaf then."""
        while place >= 0:
            upward.append(place)
            place = self.parents[place]
            if place >= 0:
                waiting[place] -= 1
                if waiting[place] > 0:
                    return


def has_parent(span: Span) -> bool:
    """Whether the span names a parent, be it there or not; a wrong length or all zero names none."""
    parent_id = span.parent_id
    return len(parent_id) == _ID_BYTES and parent_id != _ZERO_ID


def start_order(span: Span) -> tuple[int, bytes]:
    """The key by which spans are ordered everywhere: start, unknown ones last, then span id."""
    return (span.start_us or TIME_LAST, span.span_id)


def in_start_order(spans: list[Span]) -> list[Span]:
    """The spans in a new list, in order of (start, span id)."""
    if len(spans) > _FEW:
        return sorted(spans, key=start_order)
    ordered: list[Span] = []
    for span in spans:
        i: i64 = len(ordered)
        while i > 0 and _starts_before(span, ordered[i - 1]):
            i -= 1
        ordered.insert(i, span)
    return ordered


def _starts_before(a: Span, b: Span) -> bool:
    a_start = a.start_us
    b_start = b.start_us
    if a_start == b_start:
        return a.span_id < b.span_id
    return a_start != 0 and (b_start == 0 or a_start < b_start)
