"""The write path: source -> decode -> fold -> store -> commit.

Two tasks share it.  `read` fetches and decodes; `apply` folds, stores and commits, one batch at a time and in order,
so that decoding the next batch overlaps the round trips of the last.  At most three batches are in memory: one in
each task and one between them.

An offset is committed only after everything before it is in Redis or on the dead-letter topic (law 3).  Every step of
`apply` may be repeated: states merge, puts carry versions, dead letters may come twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from aggregator.batch import Batch, DecodedRecord, count_batch
from aggregator.core.conventions import Conventions
from aggregator.core.decode import decode
from aggregator.core.errors import BrokerUnavailable, TransientError, UndecodableRecord
from aggregator.core.fold import Folder
from aggregator.core.logtime import PartitionClock
from aggregator.core.model import Partition
from aggregator.dead_letter import DeadLettering
from aggregator.index import Indexing
from aggregator.ports import Clock, Fetched, InputRecord, Source
from aggregator.progress import PartitionProgress
from aggregator.retry import Retrying
from aggregator.store import Storing
from aggregator.telemetry import Event, Metrics, NoTracing, SelfTracing, Stage, get_logger

log = get_logger()

_TICK_S = 0.25  # how long a fetch waits for records: idle partitions' watermarks move at this pace
_HAND_OVER_S = 1.0  # after this long without room for a batch, partitions are paused and polling goes on
_DECODE_SLICE_BYTES = 262_144  # between slices the replies of the batch before are taken up


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestLimits:
    """How many records are fetched at once, and how long a rebalance waits for what is in flight."""

    max_batch_records: int
    revoke_timeout_s: float


class Ingest:
    """Owns the two tasks of the write path and what they share; also what the source tells of rebalances.

    `folder` and `retrying` must be those of `storing`: what it folds and fails at is finished and confirmed here.
    """

    def __init__(
        self,
        *,
        source: Source,
        dead_lettering: DeadLettering,
        folder: Folder,
        storing: Storing,
        progress: PartitionProgress,
        indexing: Indexing,
        conventions: Conventions,
        encoding: str,
        limits: IngestLimits,
        clock: Clock,
        retrying: Retrying,
        metrics: Metrics,
        tracing: SelfTracing | None = None,
    ) -> None:
        self._source = source
        self._dead_lettering = dead_lettering
        self._folder = folder
        self._storing = storing
        self._progress = progress
        self._indexing = indexing
        self._conventions = conventions
        self._encoding = encoding
        self._limits = limits
        self._clock = clock
        self._retrying = retrying
        self._metrics = metrics
        self._tracing = tracing or NoTracing()
        self._queue: asyncio.Queue[Batch | None] = asyncio.Queue(maxsize=1)
        self._unfinished = 0
        self._drained = asyncio.Event()
        self._drained.set()
        self._stopping = False
        self._paused = False
        self._epochs: Mapping[Partition, int] = {}

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
            self._storing.forget_index()
            self._epochs = batch.epochs
        await self._dead_lettering.send(batch)
        failures = self._retrying.store_failures
        if batch.records:
            with self._metrics.stage(Stage.FOLD, batch.trace):
                self._fold(batch)
            with self._metrics.stage(Stage.STORE, batch.trace):
                await self._storing.store()
            count_batch(batch, self._folder, self._metrics, self._clock.now_ms())
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
            await self._storing.store_again()
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
            await self._storing.store_again()

    def _fold(self, batch: Batch) -> None:
        self._folder.rebuilding = self._progress.rebuilding()
        add = self._folder.add
        for item in batch.records:
            decoded = item.decoded
            if decoded is not None and (spans := decoded.spans):
                add(spans, item.log_ms)

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
