"""Both levels of a batch in Redis: the states of its traces, then the deadlines and the puts of its sessions.

Every step may be repeated: states merge, puts carry versions, and an entry of the deadline index may be early.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from aggregator.core.fold import Folder, Write
from aggregator.core.model import SessionRef
from aggregator.core.state import stamped_version
from aggregator.index import Indexing
from aggregator.ports import (
    PutOutcome,
    PutReply,
    Schedule,
    SessionPut,
    SessionStore,
    StoredTrace,
    TraceStore,
    TraceWrite,
    Transition,
)
from aggregator.retry import Retrying
from aggregator.telemetry import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLimits:
    """How long trace states live, when a session is idle, and how many are remembered to be in the deadline index."""

    claimed_ttl_ms: int
    unclaimed_ttl_ms: int
    idle_timeout_ms: int
    known_sessions: int = 50_000


class Storing:
    """Stores what a `Folder` has folded, and tells it what came of it."""

    def __init__(
        self,
        *,
        traces: TraceStore,
        sessions: SessionStore,
        schedule: Schedule,
        indexing: Indexing,
        folder: Folder,
        limits: StoreLimits,
        retrying: Retrying,
        metrics: Metrics,
    ) -> None:
        self._traces = traces
        self._sessions = sessions
        self._schedule = schedule
        self._indexing = indexing
        self._folder = folder
        self._limits = limits
        self._retrying = retrying
        self._metrics = metrics
        self._known: dict[SessionRef, bool] = {}  # all True; sessions in the deadline index, least recently used first

    async def store(self) -> None:
        """Store the batch that the folder holds."""
        await self._store_traces()
        await self._store_sessions()

    async def store_again(self) -> None:
        """The same once more, where Redis may have lost it."""
        self.forget_index()
        self._folder.store_again()
        await self.store()

    def forget_index(self) -> None:
        """Believe of no session that it is in the deadline index: the next put of each writes it there."""
        self._known.clear()

    async def _store_traces(self) -> None:
        """Level 1; each round writes what another worker was faster with in the round before."""
        while writes := self._folder.writes():
            replies = await self._retrying("store_traces", partial(self._traces.store, self._trace_writes(writes)))
            conflicts = self._folder.stored(list(replies))
            self._metrics.trace_conflicts(conflicts)

    def _trace_writes(self, writes: Sequence[Write]) -> list[TraceWrite]:
        return [
            TraceWrite(
                write.trace_id,
                write.expected,
                write.stamp,
                write.state,
                self._limits.claimed_ttl_ms if write.claimed else self._limits.unclaimed_ttl_ms,
            )
            for write in writes
        ]

    async def _store_sessions(self) -> None:
        """Level 2, with the deadline index written before the sessions that may be new to it."""
        puts = [SessionPut(ref, traces) for ref, traces in self._folder.puts().items()]
        if not puts:
            return
        replies = await self._retrying("store_sessions", lambda: self._put(puts))
        await self._forget_erased(puts, replies)
        await self._retrying("schedule", lambda: self._index_transitions(puts, replies))
        await self._indexing.touched(put.ref for put in puts)
        await self._check_outcomes(puts, replies)

    async def _forget_erased(self, puts: Sequence[SessionPut], replies: Sequence[PutReply | None]) -> None:
        """Keep nothing of what came for sessions that have been erased, which only their puts can tell."""
        refs: list[SessionRef] = []
        writes: list[Write] = []
        for put, reply in zip(puts, replies, strict=True):
            if reply is not None and PutOutcome.ERASED in reply.outcomes:
                refs.append(put.ref)
                writes += [self._folder.erase(trace.trace_id) for trace in put.traces if trace.shown]
        if refs:
            await self._retrying("store_traces", partial(self._traces.store, self._trace_writes(writes)))
            # Due at once, rather than removed: whoever may have opened one since then has an entry that stays.
            await self._retrying("schedule", partial(self._schedule.add, [(ref, 0) for ref in refs]))

    async def _put(self, puts: Sequence[SessionPut]) -> Sequence[PutReply | None]:
        # Known only once the put has answered: if it fails half-way, a repetition answers SAME, without telling that it
        # was the first try that opened the session, and then the index must be written again.
        forget = self._known.pop
        new = [
            (put.ref, self._idle_at_ms(put))
            for put in puts
            if not forget(put.ref, False) and any(trace.shown for trace in put.traces)
        ]
        if new:
            await self._schedule.add(new)
        return await self._sessions.put(puts)

    def _idle_at_ms(self, put: SessionPut) -> int:
        """When a session falls due if nothing comes after this put: its entry in the index, as far as we know."""
        return max(trace.changed_ms for trace in put.traces) + self._limits.idle_timeout_ms

    async def _index_transitions(self, puts: Sequence[SessionPut], replies: Sequence[PutReply | None]) -> None:
        """Put back a session that was closed: it may have been taken off the index between our two writes.

        Likewise one whose `max_duration` ends before it can be idle: an entry may be early, never late.  And one that
        a trace has left: `_put` writes none for it, and nothing else would bring back an entry that was lost.
        """
        moved: list[tuple[SessionRef, int]] = []
        for put, reply in zip(puts, replies, strict=True):
            idle_at_ms = self._idle_at_ms(put)
            transition, deadline_ms = (reply.transition, reply.deadline_ms) if reply else (Transition.NONE, idle_at_ms)
            left = not any(trace.shown for trace in put.traces)
            if transition is not Transition.NONE or 0 < deadline_ms < idle_at_ms or (left and deadline_ms):
                moved.append((put.ref, deadline_ms))
        if moved:
            await self._schedule.add(moved)
        known = [put.ref for put, reply in zip(puts, replies, strict=True) if reply is None or reply.deadline_ms]
        self._known.update(dict.fromkeys(known, True))
        while len(self._known) > self._limits.known_sessions:
            del self._known[next(iter(self._known))]

    async def _check_outcomes(self, puts: Sequence[SessionPut], replies: Sequence[PutReply | None]) -> None:
        """Count sessions, and find the spans that came too late: new to the trace state, old news to the session."""
        told = [(put.traces, reply) for put, reply in zip(puts, replies, strict=True) if reply is not None]
        transitions = [reply.transition for _, reply in told]
        self._metrics.sessions(
            opened=transitions.count(Transition.OPENED), reopened=transitions.count(Transition.REOPENED)
        )
        stale: dict[bytes, int] = {}
        for traces, reply in told:
            for trace, outcome, version in zip(traces, reply.outcomes, reply.versions, strict=True):
                if outcome is PutOutcome.FOLDED:
                    self._folder.touched_trace(trace.trace_id).not_added()
                elif outcome is PutOutcome.TOO_LATE and trace.shown:
                    self._folder.touched_trace(trace.trace_id).too_late()
                elif outcome is PutOutcome.STALE and trace.shown:
                    stale[trace.trace_id] = version
        created = [trace_id for trace_id in stale if self._folder.touched_trace(trace_id).created]
        if not created:
            return
        states: Sequence[StoredTrace] = await self._retrying("load", lambda: self._traces.load(created))
        for trace_id, state in zip(created, states, strict=True):
            if stamped_version(state.stamp) < stale[trace_id]:  # else another worker has simply been faster
                self._folder.touched_trace(trace_id).too_late()
