"""The write path: source -> decode -> fold -> store -> commit.

Two tasks share it.  `read` fetches and decodes; `apply` folds, stores and commits, one batch at a time and in order,
so that decoding the next batch overlaps the round trips of the last.  At most three batches are in memory: one in
each task and one between them.

An offset is committed only after everything before it is in Redis or on the dead-letter topic (law 3).  Every step of
`apply` may be repeated: states merge, puts carry versions, dead letters may come twice.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from aggregator.core.conventions import Conventions
from aggregator.core.decode import decode
from aggregator.core.errors import BrokerUnavailable, TooManyDeadLetters, TransientError, UndecodableRecord
from aggregator.core.fold import Folder, Write
from aggregator.core.logtime import PartitionClock
from aggregator.core.model import Decoded, Partition, SessionRef
from aggregator.core.state import stamped_version
from aggregator.index import Indexing
from aggregator.ports import (
    Clock,
    DeadLetters,
    Fetched,
    InputRecord,
    PartitionHead,
    PutOutcome,
    PutReply,
    Schedule,
    SessionPut,
    SessionStore,
    Source,
    StoredTrace,
    TraceStore,
    TraceWrite,
    Transition,
)
from aggregator.progress import PartitionProgress
from aggregator.retry import Retrying
from aggregator.telemetry import (
    NO_TRACE,
    BatchTrace,
    Event,
    Metrics,
    NoTracing,
    RecordOutcome,
    RejectLog,
    SelfTracing,
    SpanOutcome,
    Stage,
    get_logger,
)

log = get_logger()

_TICK_S = 0.25  # how long a fetch waits for records: idle partitions' watermarks move at this pace
_HAND_OVER_S = 1.0  # after this long without room for a batch, partitions are paused and polling goes on
_DECODE_SLICE_BYTES = 262_144  # between slices the replies of the batch before are taken up


class DecodedRecord:
    """One record with what was in it; `decoded` is None where nothing could be made of it.

    `reason` and `detail` say why it goes to the dead-letter topic; both are empty where it does not.
    """

    __slots__ = ("decoded", "detail", "log_ms", "reason", "record")

    def __init__(self, record: InputRecord, log_ms: int, decoded: Decoded | None, reason: str, detail: str) -> None:
        self.record = record
        self.log_ms = log_ms
        self.decoded = decoded
        self.reason = reason
        self.detail = detail


class _RejectedRun:
    """The records in a row of which nothing could be used: how many, and where they began in each partition."""

    __slots__ = ("first_offsets", "length")

    def __init__(self) -> None:
        self.length = 0
        self.first_offsets: dict[Partition, int] = {}

    def add(self, record: InputRecord) -> int:
        """One more; gives how many there are now."""
        self.length += 1
        self.first_offsets.setdefault(Partition(record.topic, record.partition), record.offset)
        return self.length

    def end(self) -> None:
        """A record that could be used."""
        if self.length:
            self.length = 0
            self.first_offsets.clear()


@dataclass(slots=True, kw_only=True)
class Batch:
    """One answer of the source, decoded; heads, positions and epochs are those of the moment of the answer.

    `rejects` says whether any of the records has a reason to go to the dead-letter topic.
    """

    heads: Mapping[Partition, PartitionHead]
    positions: Mapping[Partition, int]
    epochs: Mapping[Partition, int]
    records: list[DecodedRecord] = field(default_factory=list)
    rejects: bool = False
    last_log_ms: dict[Partition, int] = field(default_factory=dict)
    trace: BatchTrace = NO_TRACE


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestLimits:
    """What bounds the write path, in the units of the names."""

    max_batch_records: int
    max_consecutive_dead_letters: int
    claimed_ttl_ms: int
    unclaimed_ttl_ms: int
    idle_timeout_ms: int
    revoke_timeout_s: float
    known_sessions: int = 50_000


class Ingest:
    """Owns the two tasks of the write path and what they share; also what the source tells of rebalances."""

    def __init__(
        self,
        *,
        source: Source,
        traces: TraceStore,
        sessions: SessionStore,
        schedule: Schedule,
        indexing: Indexing,
        dead_letters: DeadLetters,
        progress: PartitionProgress,
        folder: Folder,
        conventions: Conventions,
        encoding: str,
        limits: IngestLimits,
        clock: Clock,
        retrying: Retrying,
        metrics: Metrics,
        rejects: RejectLog,
        tracing: SelfTracing | None = None,
    ) -> None:
        self._source = source
        self._traces = traces
        self._sessions = sessions
        self._schedule = schedule
        self._indexing = indexing
        self._dead_letters = dead_letters
        self._progress = progress
        self._folder = folder
        self._conventions = conventions
        self._encoding = encoding
        self._limits = limits
        self._clock = clock
        self._retrying = retrying
        self._metrics = metrics
        self._rejects = rejects
        self._tracing = tracing or NoTracing()
        self._queue: asyncio.Queue[Batch | None] = asyncio.Queue(maxsize=1)
        self._unfinished = 0
        self._drained = asyncio.Event()
        self._drained.set()
        self._stopping = False
        self._paused = False
        self._rejected_run = _RejectedRun()
        self._epochs: Mapping[Partition, int] = {}
        self._known: dict[SessionRef, bool] = {}  # all True; sessions in the deadline index, least recently used first

    # --- read ------------------------------------------------------------------------------------------------------

    async def read(self) -> None:
        """Fetch, decode and hand over until `stop`; then let `apply` finish."""
        while not self._stopping:
            await self._start_partitions()
            fetched = await self._fetch()
            batch = Batch(
                heads=self._source.heads(),
                positions=self._source.positions(),
                epochs=self._progress.epochs(),
                trace=self._tracing.begin("ingest"),
            )
            self._unfinished += 1
            self._drained.clear()
            await self._decode(fetched, batch)
            await self._hand_over(batch)
        await self._queue.put(None)

    def stop(self) -> None:
        """Fetch no more; what was fetched is still applied and committed."""
        self._stopping = True

    async def _fetch(self) -> Fetched:
        fetched = await self._retrying(
            "fetch", lambda: self._source.fetch(max_records=self._limits.max_batch_records, timeout_s=_TICK_S)
        )
        if (trouble := self._source.trouble()) is not None:
            self._retrying.failed("connect", trouble)
        else:
            self._retrying.succeeded("connect")
        return fetched

    async def _start_partitions(self) -> None:
        """Decide where new partitions start; until that is known all stay paused, and polling goes on.

        Not so for what is offline: it is waited for while the others are read.  Records that come of it before it is
        started count once as well, and move no progress.
        """
        while self._progress.startable() and not self._stopping:
            self._pause()
            try:
                await self._progress.start()
            except TransientError as error:
                self._retrying.failed("start", error)
                await self._fetch()
            else:
                self._retrying.succeeded("start")
                if self._progress.startable():  # decided anew, with a poll in between
                    await self._fetch()
        if offline := sorted(self._progress.unstarted):
            names = ", ".join(f"{partition.topic}/{partition.number}" for partition in offline)
            self._retrying.failed("start", BrokerUnavailable(f"no broker leads {names}"))
        else:
            self._retrying.succeeded("start")  # also where what could not start was given up meanwhile
        self._resume()

    def _pause(self) -> None:
        self._paused = True
        self._source.pause()

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._source.resume()

    async def _decode(self, fetched: Fetched, batch: Batch) -> None:
        slice_bytes = 0
        began_s = started_s = self._clock.monotonic_s()
        spent_s = 0.0
        for partition, records in fetched.records.items():
            clock = self._progress.clock(partition)
            if clock is None:
                continue  # given up while the answer was under way; its new owner reads these records
            for record in records:
                self._decode_record(record, partition, clock, batch)
                slice_bytes += len(record.value or b"")
                if slice_bytes > _DECODE_SLICE_BYTES:
                    slice_bytes = 0
                    spent_s += self._clock.monotonic_s() - started_s
                    await asyncio.sleep(0)
                    started_s = self._clock.monotonic_s()
        if batch.last_log_ms:
            ended_s = self._clock.monotonic_s()
            self._metrics.observe_stage(Stage.DECODE, spent_s + ended_s - started_s)
            batch.trace.stage(Stage.DECODE, began_s, ended_s)

    def _decode_record(self, record: InputRecord, partition: Partition, clock: PartitionClock, batch: Batch) -> None:
        log_ms = clock.log_time_ms(record.timestamp, self._clock.now_ms())
        batch.last_log_ms[partition] = log_ms
        value = record.value
        if value is None:
            self._metrics.ignored([("record", "null")])
            return
        try:
            decoded = decode(value, log_ms=log_ms, conventions=self._conventions, encoding=self._encoding)
        except UndecodableRecord as error:
            item = DecodedRecord(record, log_ms, None, error.reason, error.detail)
        else:
            item = DecodedRecord(record, log_ms, decoded, decoded.partial_reason, decoded.partial_detail)
        batch.records.append(item)
        if item.reason:
            batch.rejects = True

    async def _hand_over(self, batch: Batch) -> None:
        """Give the batch to `apply`; while that is held up, pause the partitions and go on polling."""
        while True:
            try:
                async with asyncio.timeout(_HAND_OVER_S):
                    await self._queue.put(batch)
            except TimeoutError:
                self._pause()
                await self._fetch()
            else:
                return

    # --- apply -----------------------------------------------------------------------------------------------------

    async def apply(self) -> None:
        """Apply batches in order until `read` has ended."""
        while (batch := await self._queue.get()) is not None:
            await self._apply(batch)
            self._unfinished -= 1
            if not self._unfinished:
                self._drained.set()

    async def _apply(self, batch: Batch) -> None:
        if batch.epochs != self._epochs:
            # A redelivered put answers SAME: whether its session is still in the index, only its first owner knew.
            self.forget_index()
            self._epochs = batch.epochs
        await self._send_dead_letters(batch)
        failures = self._retrying.store_failures
        if batch.records:
            with self._metrics.stage(Stage.FOLD, batch.trace):
                self._fold(batch)
            with self._metrics.stage(Stage.STORE, batch.trace):
                await self._store_traces()
                await self._store_sessions()
            self._count(batch)
        with self._metrics.stage(Stage.COMMIT, batch.trace):
            lost = await self._progress.applied(
                batch.positions,
                batch.heads,
                batch.epochs,
                batch.last_log_ms,
                confirm=partial(self._confirm, failures),
            )
        left = sum(head.end_offset - batch.positions.get(one, head.end_offset) for one, head in batch.heads.items())
        self._indexing.backlog(left > self._limits.max_batch_records)
        if lost:
            await self._store_again()
            self._folder.forget()
        else:
            self._folder.finish()
        if batch.records:
            batch.trace.end(records=len(batch.records), partitions=len(batch.last_log_ms), lost=int(lost))

    async def _confirm(self, failures: int) -> None:
        """Store the batch again if Redis has failed since there were so many `failures`, until it no longer does.

        A replica that took over meanwhile may have missed what was stored first; it can't be told from its
        `agg:progress`, which had not been moved for this batch yet.
        """
        while failures != self._retrying.store_failures:
            failures = self._retrying.store_failures
            await self._store_again()

    async def _store_again(self) -> None:
        self.forget_index()
        self._folder.store_again()
        await self._store_traces()
        await self._store_sessions()

    def forget_index(self) -> None:
        """Believe of no session that it is in the deadline index: the next put of each writes it there."""
        self._known.clear()

    async def _send_dead_letters(self, batch: Batch) -> None:
        if not batch.rejects:
            if batch.records:
                self._rejected_run.end()
            return
        for item in batch.records:
            if item.decoded is not None:
                self._rejected_run.end()
                if not item.reason:
                    continue
            elif self._rejected_run.add(item.record) > self._limits.max_consecutive_dead_letters:
                await self._refuse(item)
            record = item.record
            await self._retrying("dead_letter", partial(self._send_dead_letter, item))
            self._metrics.dead_letter(item.reason)
            self._rejects.reject(
                item.reason,
                detail=item.detail,
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                partial=item.decoded is not None,
            )

    async def _refuse(self, item: DecodedRecord) -> None:
        """Stop, and let whoever starts next stop at the same place: else each restart would let so many through."""
        await self._progress.go_back(self._rejected_run.first_offsets)
        record = item.record
        raise TooManyDeadLetters(
            f"{self._rejected_run.length} records in a row could not be used, the last at {record.topic}/"
            f"{record.partition} offset {record.offset} ({item.reason}: {item.detail}); they are read again at the "
            "next start; check that AGGREGATOR_KAFKA__TOPICS names topics of OTLP spans, or raise "
            "AGGREGATOR_KAFKA__DEAD_LETTER_MAX_CONSECUTIVE"
        )

    async def _send_dead_letter(self, item: DecodedRecord) -> None:
        await self._dead_letters.send(
            item.record, reason=item.reason, detail=item.detail, partial=item.decoded is not None
        )

    def _fold(self, batch: Batch) -> None:
        self._folder.rebuilding = self._progress.rebuilding()
        add = self._folder.add
        for item in batch.records:
            decoded = item.decoded
            if decoded is not None and (spans := decoded.spans):
                add(spans, item.log_ms)

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

    def _count(self, batch: Batch) -> None:
        """Metrics of the batch, once everything in it is visible."""
        applied: Counter[str] = Counter()
        rejected: Counter[tuple[str, RecordOutcome]] = Counter()
        by_log_ms: Counter[int] = Counter()
        dropped = 0
        for item in batch.records:
            decoded = item.decoded
            by_log_ms[item.log_ms] += 1
            if decoded is None:
                rejected[item.record.topic, RecordOutcome.DEAD_LETTERED] += 1
                continue
            if item.reason:
                rejected[item.record.topic, RecordOutcome.PARTIAL] += 1
            else:
                applied[item.record.topic] += 1
            if decoded.ignored:
                self._metrics.ignored(decoded.ignored)
            if decoded.dropped:
                dropped += len(decoded.dropped)
                self._metrics.ignored([("span", reason) for reason in decoded.dropped])
        for topic, count in applied.items():
            self._metrics.records(topic, RecordOutcome.APPLIED, count)
        for (topic, outcome), count in rejected.items():
            self._metrics.records(topic, outcome, count)
        self._count_spans(dropped)
        now_ms = self._clock.now_ms()
        for log_ms, count in by_log_ms.items():
            self._metrics.end_to_end((now_ms - log_ms) / 1000, count)

    def _count_spans(self, dropped: int) -> None:
        merged = duplicate = folded = late = erased = 0
        for trace in self._folder.touched():
            if trace.erased:
                erased += len(trace.spans)
                continue
            merged += trace.merged
            duplicate += trace.duplicate
            folded += trace.folded
            late += trace.late
        self._metrics.spans(
            {
                SpanOutcome.MERGED: merged,
                SpanOutcome.DUPLICATE: duplicate,
                SpanOutcome.FOLDED: folded,
                SpanOutcome.TOO_LATE: late,
                SpanOutcome.DROPPED: dropped,
                SpanOutcome.ERASED: erased,
            }
        )

    # --- rebalance -------------------------------------------------------------------------------------------------

    async def on_revoked(self, partitions: Sequence[Partition]) -> None:
        """Finish and commit what is in flight before the partitions are given up.

        Bounded: if Redis is away just now, the group must not wait for it; the new owner reads the records again.
        """
        try:
            async with asyncio.timeout(self._limits.revoke_timeout_s):
                await self._drained.wait()
        except TimeoutError:
            log.warning(Event.REVOKED_UNFINISHED, partitions=len(partitions), unfinished=self._unfinished)
        self._progress.give_up(partitions)

    async def on_assigned(self, partitions: Sequence[Partition]) -> None:
        """Hold the new partitions until `read` has decided where they start."""
        self._indexing.catch_up()
        self._progress.take(partitions)
        self._pause()
