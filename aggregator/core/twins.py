"""Twins: one call that two instrumentations saw side by side, neither span above the other."""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

from aggregator.core.calls import Call, Calls, same_figures

OVERHANG_US: Final = 50_000
"""How much later than the outer one the inner of two twins may end."""

COMPLETION_MARGIN: Final = 16
"""By how many completion tokens two twins may differ that agree in all else: more than a stream's start tells."""

_BLOCK_SIZE: Final = 64  # about the root of the number of spans in the largest traces
_MOST_STEPS: Final = 256  # per call with the same figures, on the average: far more than any trace needs that was seen
_NEVER_US: Final = -(2**60)
_BEYOND: Final = 2**60


def find_twins(calls: Calls) -> None:
    """Mark as repeats the counting LLM and embedding calls within whose time another scope tells the same call.

    Those with the same figures find each other first, then what is left of LLM calls that differ a little.  Wrappers
    do not count yet; the figures tell LLM and embedding calls apart, since neither has any of the other's.
    """
    if not _several_scopes(calls.in_order):
        return
    free = [call for call in calls.in_order if _may_have_twin(call)]
    exact: dict[tuple[int, int, int], list[Call]] = {}
    for call in free:
        span = call.span
        exact.setdefault((span.prompt_tokens, span.completion_tokens, span.embedding_tokens), []).append(call)
    numbered = _pair_all(list(exact.values()), calls, numbered=False)
    free = [call for call in free if not call.has_twin and call.span.prompt_tokens > 0 and call.span.model]
    if not _several_scopes(free):
        return
    near: dict[tuple[str, int, int, int], list[Call]] = {}
    for call in free:
        span = call.span
        key = (span.model, span.prompt_tokens, span.cache_read_tokens, span.cache_write_tokens)
        near.setdefault(key, []).append(call)
    _pair_all(list(near.values()), calls, numbered=numbered)


def _pair_all(buckets: list[list[Call]], calls: Calls, *, numbered: bool) -> bool:
    """Pair the calls of each bucket; returns whether the calls are numbered now."""
    for bucket in buckets:
        if len(bucket) > 1 and _several_scopes(bucket):
            if not numbered:
                _number(calls)
                numbered = True
            bucket.sort(key=_twin_order)
            _pair(bucket)
    return numbered


def _several_scopes(some: list[Call]) -> bool:
    """Whether those that count are of more than one scope."""
    first: str | None = None
    for call in some:
        if call.counts:
            if first is None:
                first = call.span.scope
            elif call.span.scope != first:
                return True
    return False


def _may_have_twin(call: Call) -> bool:
    span = call.span
    return call.counts and span.start_us > 0 and span.end_us >= span.start_us


def _twin_order(call: Call) -> tuple[int, int, int]:
    return (call.span.start_us, -call.span.end_us, call.place)


class _Block:
    """A run of calls that are free to be repeated, in twin order, with what tells that none of them fits.

    All times and ranges are bounds: `latest_end_us` is the latest end and `latest_scope` the scope of that call;
    `other_end_us` is the latest end in any other scope.
    """

    __slots__ = ("calls", "latest_end_us", "latest_scope", "least_first", "least_last", "most_first", "other_end_us")

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._forget()

    def _forget(self) -> None:
        self.latest_end_us: i64 = _NEVER_US
        self.latest_scope: str = ""
        self.other_end_us: i64 = _NEVER_US
        self.least_first: i64 = _BEYOND
        self.most_first: i64 = -1
        self.least_last: i64 = _BEYOND

    def add(self, call: Call) -> None:
        self.calls.append(call)
        self._note(call)

    def remove(self, i: i64) -> None:
        del self.calls[i]
        self._forget()
        for call in self.calls:
            self._note(call)

    def _note(self, call: Call) -> None:
        end_us = call.span.end_us
        if call.span.scope == self.latest_scope:
            self.latest_end_us = max(self.latest_end_us, end_us)
        elif end_us > self.latest_end_us:
            self.other_end_us = self.latest_end_us
            self.latest_end_us = end_us
            self.latest_scope = call.span.scope
        else:
            self.other_end_us = max(self.other_end_us, end_us)
        self.least_first = min(self.least_first, call.first)
        self.most_first = max(self.most_first, call.first)
        self.least_last = min(self.least_last, call.last)

    def may_contain(self, call: Call) -> bool:
        """Whether some call of another scope ends late enough, and not all are above or all below this one."""
        end_us = self.other_end_us if call.span.scope == self.latest_scope else self.latest_end_us
        return (
            call.span.end_us <= end_us + OVERHANG_US
            and not (self.most_first <= call.first and call.first <= self.least_last)
            and not (call.first <= self.least_first and self.most_first <= call.last)
        )

    def find(self, call: Call) -> i64:
        """The index of the first call here that this one repeats, -1 if there is none."""
        for i, outer in enumerate(self.calls):
            if _is_twin(call, outer):
                return i
        return -1


def _pair(bucket: list[Call]) -> None:
    """Let each call be repeated by the first earlier one that is free, contains it and is of another scope.

    Free calls stand in blocks, most of which are passed over as a whole, so that thousands of calls with the same
    figures take far fewer comparisons than there are pairs of them.  Where somebody made a trace in which that does
    not help, calls count unseen after so many steps (docs/adr/0011).
    """
    blocks = [_Block()]
    steps_left: i64 = _MOST_STEPS * len(bucket)
    for call in bucket:
        for block in blocks:
            steps_left -= 1
            if steps_left < 0:
                return
            if block.may_contain(call):
                i = block.find(call)
                steps_left -= len(block.calls) if i < 0 else i
                if i >= 0:
                    outer = block.calls[i]
                    outer.repeats = call
                    outer.exact = same_figures(outer.span, call.span)
                    outer.counts = False
                    outer.has_twin = call.has_twin = True
                    block.remove(i)
                    break
        if not call.has_twin:
            if len(blocks[-1].calls) == _BLOCK_SIZE:
                blocks.append(_Block())
            blocks[-1].add(call)


def _is_twin(call: Call, outer: Call) -> bool:
    """Whether the other of a bucket, which comes first, contains this one, told elsewhere and on another branch."""
    beyond: i64 = call.span.completion_tokens - outer.span.completion_tokens
    return (
        call.span.end_us <= outer.span.end_us + OVERHANG_US
        and call.span.start_us <= outer.span.end_us
        and call.span.scope != outer.span.scope
        and (call.first > outer.last or call.last < outer.first)
        and beyond >= -COMPLETION_MARGIN
        and beyond <= COMPLETION_MARGIN
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
