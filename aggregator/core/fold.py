"""Spans into trace states, trace states into what their sessions need: a batch at a time, without I/O.

A batch goes `add` (for each record), `writes` -> (store) -> `stored` until nothing is left, `puts` -> (store),
`finish`.  A state may be merged with whatever another worker has stored meanwhile, in any order (see `merge`).
"""

from __future__ import annotations

from mypy_extensions import i64

from aggregator.core.merge import DUPLICATE, MERGED, merge_span, resolve_claim, supersede
from aggregator.core.model import NO_CLAIM, SessionRef, Span, TracePut
from aggregator.core.pricing import Pricer
from aggregator.core.put import tombstone, trace_put
from aggregator.core.state import ERASED_STAMP, TraceState, decode_state, encode_state, stamp_of
from aggregator.core.usage import rollup


class Touched:
    """One trace of the batch: what arrived for it, and how far it has come."""

    __slots__ = (
        "conflicting",
        "created",
        "duplicate",
        "erased",
        "folded",
        "late",
        "log_ms",
        "merged",
        "previous",
        "put",
        "spans",
        "stamp",
        "state",
    )

    def __init__(self, state: TraceState) -> None:
        self.state: TraceState = state
        self.stamp: bytes = b""  # of the state as it was last handed out to be stored
        self.spans: list[Span] = []
        self.log_ms: list[int] = []  # parallel to spans
        self.merged: i64 = 0
        self.duplicate: i64 = 0
        self.folded: i64 = 0
        self.late: i64 = 0
        self.erased: bool = False  # its session has been erased: all its spans are dropped
        self.created: bool = False  # Redis had no state of this trace
        self.conflicting: bool = False
        self.put: bool = False  # its rollup was handed out: a session may show it
        self.previous: SessionRef | None = None  # whose trace it was before this write

    def too_late(self) -> None:
        """What was merged is news to the trace state only: the session has had a greater version of the trace."""
        self.late = self.merged
        self.merged = 0

    def not_added(self) -> None:
        """The session has folded the trace for good."""
        self.folded += self.merged
        self.merged = 0

    def erase(self) -> None:
        """Forget all that is known of the trace: its session has been erased."""
        self.erased = True
        self.merged = 0
        self.duplicate = 0
        self.folded = 0
        self.state = TraceState(self.state.trace_id)

    def merge(self, max_trace_spans: i64, rebuilding: bool) -> None:
        """Merge what arrived into `state`; the counts start anew, since another state may have come from Redis.

        `rebuilding`: states may have been lost whose traces sessions show, in any that their spans claim.
        """
        state = self.state
        self.merged = 0
        self.duplicate = 0
        self.folded = 0
        self.created = not state.stored_stamp
        self.previous = state.claim
        if not state.born_ms:
            state.born_ms = self.log_ms[0]
        for index, span in enumerate(self.spans):
            version = state.version()
            outcome = merge_span(state, span, max_trace_spans)
            if outcome == MERGED:
                self.merged += 1
            elif outcome == DUPLICATE:
                self.duplicate += 1
            else:
                self.folded += 1
            if state.version() != version and self.log_ms[index] > state.changed_ms:
                state.changed_ms = self.log_ms[index]
        claim = resolve_claim(list(state.spans.values()))
        self.conflicting = claim.conflicting
        state.move_to(claim.ref)
        if rebuilding and claim.conflicting:
            for span in self.spans:
                if span.claim_row != NO_CLAIM:
                    ref = SessionRef(span.project, span.claim_session_id)
                    if ref != claim.ref:
                        state.leave(ref)


class Write:
    """One compare-and-set to be done: see `ports.TraceWrite`."""

    __slots__ = ("claimed", "expected", "stamp", "state", "trace_id")

    def __init__(self, trace_id: bytes, expected: bytes, stamp: bytes, state: bytes, claimed: bool) -> None:
        self.trace_id = trace_id
        self.expected = expected
        self.stamp = stamp
        self.state = state
        self.claimed = claimed


class Folder:
    """Merges batches of spans, with a bounded memory of the traces seen last.

    `cache_spans` bounds that memory, in spans over all traces; it decides only how often a state must be read back.
    While it is `rebuilding`, sessions that spans of a batch claim in vain are told that the trace is not theirs: a
    state that was lost may have been put there, and nobody remembers.
    """

    def __init__(self, *, max_trace_spans: int, cache_spans: int, pricer: Pricer) -> None:
        self._max_trace_spans: i64 = max_trace_spans
        self._cache_spans: i64 = cache_spans
        self._pricer: Pricer = pricer
        self._cache: dict[bytes, TraceState] = {}  # least recently used first
        self._cached_spans: i64 = 0
        self._touched: dict[bytes, Touched] = {}
        self._pending: list[Touched] = []
        self._unmerged: bool = False
        self.rebuilding: bool = False

    def add(self, spans: list[Span], log_ms: int) -> None:
        """Take the spans of one record."""
        self._unmerged = True
        touched: Touched | None = None
        trace_id = b""
        for span in spans:
            if touched is None or span.trace_id != trace_id:
                trace_id = span.trace_id
                touched = self._touch(trace_id)
            touched.spans.append(span)
            touched.log_ms.append(log_ms)

    def _touch(self, trace_id: bytes) -> Touched:
        touched = self._touched.get(trace_id)
        if touched is None:
            state = self._cache.pop(trace_id, None)
            if state is None:
                state = TraceState(trace_id)
            else:
                self._cached_spans -= len(state.spans)
            touched = Touched(state)
            self._touched[trace_id] = touched
        return touched

    def writes(self) -> list[Write]:
        """The compare-and-sets that are to be done next, one for each trace not stored yet.

        A trace of which only duplicates came is written as well: that finds out whether Redis still has it.
        """
        if self._unmerged:
            self._unmerged = False
            self._pending = list(self._touched.values())
            for touched in self._pending:
                touched.merge(self._max_trace_spans, self.rebuilding)
        writes: list[Write] = []
        for touched in self._pending:
            state = touched.state
            encoded = encode_state(state)
            touched.stamp = stamp_of(state.version(), encoded)
            writes.append(Write(state.trace_id, state.stored_stamp, touched.stamp, encoded, state.claim is not None))
        return writes

    def stored(self, replies: list[tuple[bytes, bytes] | None]) -> int:
        """What became of the last `writes`, in their order: None, or the stamp and state that Redis has instead.

        Where it had another one, the two are merged and stay to be written.  Gives the number of such conflicts.
        Where it says that the trace was erased, nothing is kept of it.
        """
        conflicts: list[Touched] = []
        for index, touched in enumerate(self._pending):
            reply = replies[index]
            if reply is None:
                touched.state.stored_stamp = touched.stamp
            elif reply[0] == ERASED_STAMP:
                touched.erase()
            else:
                self._merge_stored(touched, reply[0], reply[1])
                conflicts.append(touched)
        self._pending = conflicts
        return len(conflicts)

    def _merge_stored(self, touched: Touched, stamp: bytes, data: bytes) -> None:
        """Go on from what Redis has, and bring back into it what only this process still knows.

        That is nothing but this batch's spans as a rule; it is more where Redis has lost writes.
        """
        known = touched.state
        if stamp:
            touched.state = decode_state(known.trace_id, stamp, data)
        else:
            touched.state = TraceState(known.trace_id)
        touched.merge(self._max_trace_spans, self.rebuilding)
        state = touched.state
        if known.stored_stamp:
            state.born_ms = min(state.born_ms, known.born_ms)
        before = state.version()
        for span in known.spans.values():
            merge_span(state, span, self._max_trace_spans)
        if state.version() != before:
            state.changed_ms = max(state.changed_ms, known.changed_ms)
            claim = resolve_claim(list(state.spans.values()))
            touched.conflicting = claim.conflicting
            state.move_to(claim.ref)
        if touched.put:
            supersede(state, known)
        left = [*known.former, known.claim] if touched.put else known.former
        for ref in left:
            if ref is not None and ref != state.claim:
                state.leave(ref)

    def puts(self) -> dict[SessionRef, list[TracePut]]:
        """Level 2 for every touched trace that has a session: its rollup, and a tombstone for each it has left.

        Also for traces that did not change: a redelivery repeats level 2, which mends a crash between the levels.
        """
        puts: dict[SessionRef, list[TracePut]] = {}
        for touched in self._touched.values():
            if touched.erased:
                continue
            touched.put = True
            state = touched.state
            claim = state.claim
            if claim is not None:
                put = trace_put(
                    rollup(list(state.spans.values()), self._pricer),
                    trace_id=state.trace_id,
                    version=state.version(),
                    contents=state.contents(),
                    changed_ms=state.changed_ms,
                    born_ms=state.born_ms,
                    first=touched.previous != claim,
                    conflicting=touched.conflicting,
                    truncated=state.truncated,
                )
                traces = puts.get(claim)
                if traces is None:
                    puts[claim] = [put]
                else:
                    traces.append(put)
            for ref in state.former:
                puts.setdefault(ref, []).append(
                    tombstone(state.trace_id, state.version(), state.contents(), state.changed_ms, state.born_ms)
                )
        return puts

    def touched(self) -> list[Touched]:
        """The traces of this batch."""
        return list(self._touched.values())

    def touched_trace(self, trace_id: bytes) -> Touched:
        """One trace of this batch."""
        return self._touched[trace_id]

    def erase(self, trace_id: bytes) -> Write:
        """Forget a trace whose put said that its session has been erased; gives the write that says so to others.

        That is a compare-and-set as well: a state that another worker has moved to another session since stays.
        """
        touched = self._touched[trace_id]
        expected = touched.state.stored_stamp
        touched.erase()
        return Write(trace_id, expected, ERASED_STAMP, b"", True)

    def store_again(self) -> None:
        """Write the states of this batch once more, for a store that has lost them since.

        Sessions may have been put after the loss.  Their traces' states must be there when the log is read again: or
        versions would begin below the ones put, and a session that a trace leaves would not be told.
        """
        self._pending = [touched for touched in self._touched.values() if not touched.erased]
        for touched in self._pending:
            touched.state.stored_stamp = b""

    def finish(self) -> None:
        """The batch is stored: remember its states for the next ones, the oldest are forgotten."""
        for trace_id, touched in self._touched.items():
            if touched.erased:
                continue
            self._cache[trace_id] = touched.state
            self._cached_spans += len(touched.state.spans)
        self._touched = {}
        self._pending = []
        self._unmerged = False
        while self._cached_spans > self._cache_spans:
            oldest = next(iter(self._cache))
            self._cached_spans -= len(self._cache.pop(oldest).spans)

    def forget(self) -> None:
        """Drop the batch and the memory: Redis may have lost what this process believes to be there."""
        self._touched = {}
        self._pending = []
        self._unmerged = False
        self._cache = {}
        self._cached_spans = 0
