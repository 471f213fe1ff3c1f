"""Stores in plain dicts, for path tests and as the yardstick of the contract suite.

They are written from the words of `ports.py`, not from the scripts: a session keeps its traces and is summed from
scratch whenever somebody looks.  Every method passes named crash points; a test hands in a callback that raises there.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from math import floor
from zlib import crc32

from aggregator.core.lifecycle import Event, Status, after, deadline_ms, due
from aggregator.core.model import Counts, FirstUse, Partition, SessionRef, SessionRollup
from aggregator.core.naming import encode_ref
from aggregator.core.state import ERASED_STAMP
from aggregator.ports import (
    Applied,
    Claim,
    ClaimOutcome,
    DueEntry,
    PutOutcome,
    PutReply,
    SessionPut,
    StoredTrace,
    TraceWrite,
    Transition,
)
from tests.puts import ReadPut, read_put

CrashPoint = Callable[[str], Awaitable[None]]
"""Awaited with `<store>.<method>:before`, `:between` (two items of one call) and `:after`."""

NANO = 10**9
NO_TRACE = StoredTrace(b"", b"")


async def no_crash(name: str) -> None:
    """The crash point of those who want none."""


class FakeTraceStore:
    """`ports.TraceStore`; `states` is what Redis would hold, `expire` forgets one as its time to live would."""

    def __init__(self, crashpoint: CrashPoint = no_crash) -> None:
        self.states: dict[bytes, StoredTrace] = {}
        self.ttls_ms: dict[bytes, int] = {}
        self._crashpoint = crashpoint

    async def store(self, writes: Sequence[TraceWrite]) -> Sequence[StoredTrace | None]:
        await self._crashpoint("traces.store:before")
        replies: list[StoredTrace | None] = []
        for index, write in enumerate(writes):
            if index:
                await self._crashpoint("traces.store:between")
            stored = self.states.get(write.trace_id, NO_TRACE)
            ours = StoredTrace(write.stamp, write.state)
            if stored.stamp == write.expected or stored == ours:
                self.states[write.trace_id] = ours
                self.ttls_ms[write.trace_id] = write.ttl_ms
                replies.append(None)
            else:
                replies.append(stored)
        await self._crashpoint("traces.store:after")
        return replies

    async def load(self, trace_ids: Sequence[bytes]) -> Sequence[StoredTrace]:
        await self._crashpoint("traces.load:before")
        found = [self.states.get(trace_id, NO_TRACE) for trace_id in trace_ids]
        return [NO_TRACE if stored.stamp == ERASED_STAMP else stored for stored in found]

    def expire(self, trace_id: bytes) -> None:
        self.states.pop(trace_id, None)


class FakeSession:
    """One session: its traces' newest versions, and those folded for good."""

    def __init__(self, opened_ms: int) -> None:
        self.status = Status.OPEN
        self.revision = 0
        self.opened_ms = opened_ms
        self.entered_ms = opened_ms
        self.last_activity_ms = 0
        self.reason = ""
        self.traces: dict[str, ReadPut] = {}
        self.folded: list[ReadPut] = []

    @property
    def shown(self) -> list[ReadPut]:
        """Every trace that counts, tracked or folded."""
        return [trace for trace in [*self.traces.values(), *self.folded] if trace.counts.trace_count]

    @property
    def counts(self) -> Counts:
        sums = [sum(column) for column in zip(Counts(), *(trace.counts for trace in self.shown), strict=True)]
        return Counts._make([*sums[:-2], *divmod(sums[-2] * NANO + sums[-1], NANO)])

    @property
    def started_us(self) -> int:
        return min((trace.started_us for trace in self.shown if trace.started_us), default=0)

    @property
    def ended_us(self) -> int:
        return max((trace.ended_us for trace in self.shown), default=0)

    @property
    def users(self) -> list[FirstUse]:
        uses = sorted(FirstUse(*use) for trace in self.shown for use in trace.users)
        first: dict[str, FirstUse] = {}
        for use in uses:
            first.setdefault(use.user_id, use)
        return list(first.values())[:16]

    @property
    def services(self) -> list[str]:
        return sorted({service for trace in self.shown for service in trace.services})[:16]

    @property
    def models(self) -> dict[str, list[int]]:
        models: dict[str, list[int]] = {}
        for trace in self.shown:
            for name, figures in trace.models.items():
                models[name] = [a + b for a, b in zip(models.get(name, [0] * 8), figures, strict=True)]
        for figures in models.values():
            figures[4:6] = divmod(figures[4] * NANO + figures[5], NANO)
        return {name: figures for name, figures in models.items() if any(figures)}

    @property
    def truncated(self) -> bool:
        return bool(self.folded) or self.counts.truncated_traces > 0


def _age(trace: ReadPut) -> tuple[int, tuple[int, int, int], int]:
    """By what an older trace is told from a newer one: distinct spans, contents, replacements."""
    return trace.version >> 32, trace.contents, trace.version


class FakeSessionStore:
    """`ports.SessionStore`; `sessions` is what Redis would hold."""

    def __init__(
        self,
        *,
        idle_timeout_ms: int = 1_800_000,
        max_duration_ms: int = 86_400_000,
        max_session_traces: int = 1_000,
        trace_life_ms: int = 88_200_000,
        crashpoint: CrashPoint = no_crash,
    ) -> None:
        self.sessions: dict[SessionRef, FakeSession] = {}
        self.tombstones: dict[SessionRef, dict[str, ReadPut]] = {}
        self.erased: set[SessionRef] = set()
        self.idle_timeout_ms = idle_timeout_ms
        self.max_duration_ms = max_duration_ms
        self.max_session_traces = max_session_traces
        self.trace_life_ms = trace_life_ms
        self._crashpoint = crashpoint

    async def put(self, puts: Sequence[SessionPut]) -> Sequence[PutReply | None]:
        await self._crashpoint("sessions.put:before")
        replies: list[PutReply | None] = []
        for index, put in enumerate(puts):
            if index:
                await self._crashpoint("sessions.put:between")
            if put.ref in self.erased:
                count = len(put.traces)
                replies.append(PutReply([PutOutcome.ERASED] * count, [0] * count, Transition.NONE, 0))
                continue
            reply = self._put(put)
            replies.append(None if reply.tells_nothing(put.traces, self.idle_timeout_ms) else reply)
        await self._crashpoint("sessions.put:after")
        return replies

    def _put(self, put: SessionPut) -> PutReply:
        session = self.sessions.get(put.ref)
        known = session.traces if session else self.tombstones.get(put.ref, {})
        known = dict(known)
        outcomes, versions, changing, fresh = [], [], [], {}
        for trace in map(read_put, put.traces):
            old = known.get(trace.trace_id)
            if old and trace.born_ms > old.changed_ms + self.trace_life_ms:
                outcomes.append(PutOutcome.TOO_LATE)
                versions.append(old.version)
                continue
            if old and (shown := _age(old)) >= (coming := _age(trace)):
                outcomes.append(PutOutcome.SAME if shown == coming else PutOutcome.STALE)
                versions.append(old.version)
                continue
            tombstone = not trace.counts.trace_count
            folded_ms = max((one.changed_ms for one in session.folded), default=0) if session else 0
            if not old and not trace.first and not tombstone and trace.born_ms <= folded_ms:
                outcomes.append(PutOutcome.FOLDED)
                versions.append(0)
                continue
            outcomes.append(PutOutcome.APPLIED)
            versions.append(trace.version)
            known[trace.trace_id] = fresh[trace.trace_id] = trace
            if not tombstone or (old and old.counts.trace_count):
                changing.append(trace)
        transition = Transition.NONE
        if changing:
            session, transition = self._enter(put.ref, min(trace.changed_ms for trace in changing))
            latest = max(trace.changed_ms for trace in changing)
            session.last_activity_ms = max(session.last_activity_ms, latest)
        if session:
            session.traces.update(fresh)
            if changing:
                self._fold(session, fresh)
        elif fresh:
            self.tombstones.setdefault(put.ref, {}).update(fresh)
        return PutReply(outcomes, versions, transition, self._deadline_ms(session))

    def _enter(self, ref: SessionRef, entered_ms: int) -> tuple[FakeSession, Transition]:
        session = self.sessions.get(ref)
        if session is None:
            session = self.sessions[ref] = FakeSession(entered_ms)
            session.traces = self.tombstones.pop(ref, {})
            return session, Transition.OPENED
        before = session.status
        status = after(before, Event.PUT)
        assert status is not None
        session.status = status
        if before is Status.OPEN:
            return session, Transition.NONE
        session.entered_ms = entered_ms
        return session, Transition.REOPENED

    def _fold(self, session: FakeSession, fresh: Mapping[str, ReadPut]) -> None:
        if len(session.traces) <= self.max_session_traces:
            return
        idle = [trace for trace in session.traces.values() if trace.trace_id not in fresh]
        oldest = sorted(idle, key=lambda trace: (trace.changed_ms, trace.trace_id))
        count = max(len(session.traces) - self.max_session_traces, -(-self.max_session_traces // 10))
        for trace in oldest[:count]:
            session.folded.append(session.traces.pop(trace.trace_id))

    def _deadline_ms(self, session: FakeSession | None) -> int:
        if session is None or session.status is Status.CLOSED:
            return 0
        return deadline_ms(session.last_activity_ms, session.entered_ms, self.idle_timeout_ms, self.max_duration_ms)

    async def claim(self, refs: Sequence[SessionRef], *, watermark_ms: int) -> Sequence[Claim]:
        await self._crashpoint("sessions.claim:before")
        replies = []
        for index, ref in enumerate(refs):
            if index:
                await self._crashpoint("sessions.claim:between")
            replies.append(self._claim(ref, watermark_ms))
        await self._crashpoint("sessions.claim:after")
        return replies

    def _claim(self, ref: SessionRef, watermark_ms: int) -> Claim:
        session = self.sessions.get(ref)
        if session is None:
            return Claim(ClaimOutcome.GONE, 0, None)
        if session.status is Status.CLOSED:
            return Claim(ClaimOutcome.CLOSED, 0, None)
        found = due(
            watermark_ms,
            session.last_activity_ms,
            session.entered_ms,
            idle_timeout_ms=self.idle_timeout_ms,
            max_duration_ms=self.max_duration_ms,
        )
        if found.reason is None:
            return Claim(ClaimOutcome.NOT_DUE, found.deadline_ms, None)
        if not session.shown and session.revision == 0:
            del self.sessions[ref]
            self.tombstones[ref] = session.traces
            return Claim(ClaimOutcome.DROPPED, 0, None)
        if session.status is Status.OPEN:
            session.status = Status.CLOSING
            session.revision += 1
            session.reason = found.reason
        return Claim(ClaimOutcome.CLAIMED, found.deadline_ms, rollup(ref, session))

    async def settle(self, refs: Sequence[tuple[SessionRef, int]]) -> Sequence[bool]:
        await self._crashpoint("sessions.settle:before")
        replies = []
        for index, (ref, revision) in enumerate(refs):
            if index:
                await self._crashpoint("sessions.settle:between")
            session = self.sessions.get(ref)
            closes = session is not None and session.status is not Status.OPEN and session.revision == revision
            if session is not None and closes:
                session.status = Status.CLOSED
            replies.append(closes)
        await self._crashpoint("sessions.settle:after")
        return replies

    def erase(self, ref: SessionRef) -> None:
        """Remove a session and keep it away."""
        self.erased.add(ref)
        self.sessions.pop(ref, None)
        self.tombstones.pop(ref, None)

    def expire_closed(self) -> None:
        """What `retention` does to sessions and to tombstones without one."""
        self.sessions = {ref: s for ref, s in self.sessions.items() if s.status is not Status.CLOSED}
        self.tombstones.clear()


def rollup(ref: SessionRef, session: FakeSession) -> SessionRollup:
    """The session as a claim reads it."""
    entries = [json.loads(trace.entry) for trace in session.traces.values() if trace.counts.trace_count]
    return SessionRollup(
        ref=ref,
        revision=session.revision,
        close_reason=session.reason,
        opened_ms=session.opened_ms,
        started_us=session.started_us,
        ended_us=session.ended_us,
        counts=session.counts,
        users=session.users,
        services=session.services,
        models=session.models,
        trace_entries=entries,
        truncated=session.truncated,
    )


_PUBLIC_COUNTS = (*Counts._fields[:14],)


def hash_fields(ref: SessionRef, session: FakeSession) -> dict[str, str]:
    """The session hash as users see it (DESIGN section 6)."""
    counts = session.counts
    cost_nano = counts.cost_whole_usd * NANO + counts.cost_rest_nano
    sources = {(False, False): "none", (True, False): "reported", (False, True): "priced", (True, True): "mixed"}
    fields = {
        "project": ref.project,
        "session_id": ref.session_id,
        "status": str(session.status),
        "revision": str(session.revision),
        "opened_at": rfc3339(session.opened_ms * 1000),
        "last_activity_ms": str(session.last_activity_ms),
        "total_tokens": str(counts.prompt_tokens + counts.completion_tokens),
        "cost_nano_usd": str(cost_nano),
        "cost_usd": f"{cost_nano // NANO}.{cost_nano % NANO:09d}",
        "cost_source": sources[counts.reported_costs > 0, counts.priced_costs > 0],
        "truncated": "1" if session.truncated else "0",
    }
    fields |= {name: str(getattr(counts, name)) for name in _PUBLIC_COUNTS}
    if session.started_us:
        fields["started_at"] = rfc3339(session.started_us)
    if session.ended_us:
        fields["ended_at"] = rfc3339(session.ended_us)
    if session.started_us and session.ended_us:
        duration_us = session.ended_us - session.started_us
        fields["duration_ms"] = (
            f"{'-' if duration_us < 0 else ''}{abs(duration_us) // 1000}.{abs(duration_us) % 1000:03d}"
        )
    if session.users:
        fields["user_id"] = session.users[0].user_id
    return fields


def rfc3339(time_us: int) -> str:
    """UTC, fixed width, microseconds."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class FakeSchedule:
    """`ports.Schedule`."""

    def __init__(self, *, closing_shards: int = 64, crashpoint: CrashPoint = no_crash) -> None:
        self.entries: dict[SessionRef, float] = {}
        self.closing_shards = closing_shards
        self._holds = 0
        self._crashpoint = crashpoint

    def shard(self, ref: SessionRef) -> int:
        return crc32(encode_ref(ref).encode()) % self.closing_shards

    async def add(self, deadlines: Sequence[tuple[SessionRef, int]]) -> None:
        await self._crashpoint("schedule.add:before")
        self.entries.update(deadlines)
        await self._crashpoint("schedule.add:after")

    async def due(self, shards: Sequence[int], *, watermark_ms: int, limit: int) -> Sequence[DueEntry]:
        await self._crashpoint("schedule.due:before")
        found = [
            DueEntry(self.shard(ref), ref, deadline)
            for ref, deadline in self.entries.items()
            if self.shard(ref) in shards and deadline <= watermark_ms
        ]
        return sorted(found, key=lambda entry: entry.deadline_ms)[:limit]

    async def hold(self, entries: Sequence[DueEntry]) -> Sequence[DueEntry]:
        await self._crashpoint("schedule.hold:before")
        held = []
        for entry in entries:
            if self.entries.get(entry.ref) == entry.deadline_ms:
                self._holds += 1
                mark_ms = floor(entry.deadline_ms) - (1 + self._holds % 1000) / 1024
                self.entries[entry.ref] = mark_ms
                held.append(entry._replace(deadline_ms=mark_ms))
        await self._crashpoint("schedule.hold:after")
        return held

    async def move(self, moves: Sequence[tuple[DueEntry, int | None]]) -> None:
        await self._crashpoint("schedule.move:before")
        for entry, new_ms in moves:
            if self.entries.get(entry.ref) == entry.deadline_ms:
                if new_ms is None:
                    del self.entries[entry.ref]
                else:
                    self.entries[entry.ref] = new_ms
        await self._crashpoint("schedule.move:after")

    async def remove(self, refs: Sequence[SessionRef]) -> None:
        await self._crashpoint("schedule.remove:before")
        for ref in refs:
            self.entries.pop(ref, None)

    async def count(self, shards: Sequence[int]) -> int:
        return sum(self.shard(ref) in shards for ref in self.entries)


class FakeProgress:
    """`ports.Progress`."""

    def __init__(self, crashpoint: CrashPoint = no_crash) -> None:
        self.offsets: dict[Partition, int] = {}
        self.marks: dict[Partition, int] = {}
        self._crashpoint = crashpoint

    async def read(self, partitions: Sequence[Partition]) -> Mapping[Partition, tuple[int | None, int | None]]:
        await self._crashpoint("progress.read:before")
        return {who: (self.offsets.get(who), self.marks.get(who)) for who in partitions}

    async def write(self, applied: Mapping[Partition, Applied]) -> Mapping[Partition, int | None]:
        await self._crashpoint("progress.write:before")
        left: dict[Partition, int | None] = {}
        for who, row in applied.items():
            stored = self.offsets.get(who)
            if stored not in (row.previous, row.next_offset):
                left[who] = stored
                continue
            self.offsets[who] = row.next_offset
            await self._crashpoint("progress.write:between")
            if row.watermark_ms is not None:
                self.marks[who] = max(row.watermark_ms, self.marks.get(who, row.watermark_ms))
        await self._crashpoint("progress.write:after")
        return left

    async def watermarks(self, partitions: Sequence[Partition]) -> int | None:
        await self._crashpoint("progress.watermarks:before")
        known = [self.marks[who] for who in partitions if who in self.marks]
        return min(known) if known and len(known) == len(partitions) else None
