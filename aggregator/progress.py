"""The partitions this worker has: where each starts, how far it has come, and whether Redis still knows.

Three records of progress are compared (DESIGN section 9): what this process believes, `agg:progress` in Redis, and
the offset committed to Kafka.  Redis may lose writes (a failover, a flush) without breaking a connection; then the
partition is read again from the earlier place, which is safe because spans count once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from aggregator.agreed_clock import AgreedClock
from aggregator.core.logtime import PartitionClock
from aggregator.core.model import Partition
from aggregator.ports import Applied, PartitionHead, Progress, Source
from aggregator.replays import Replays
from aggregator.retry import Retrying
from aggregator.telemetry import Event, Metrics, StartReason, get_logger

log = get_logger()


class Start(NamedTuple):
    """Where a partition starts, and why.

    `lost` records before it retention took before they were read; the first `again` from it on were applied once.
    """

    offset: int
    reason: StartReason
    lost: int = 0
    again: int = 0


def decide_start(
    *, applied: int | None, committed: int | None, beginning: int, end: int, rewind_on_loss: bool
) -> Start:
    """Where to start, from `agg:progress`, the committed offset and what the log holds.

    Kafka forgets what was committed for a topic that is deleted.  One of the same name may have grown beyond what was
    applied of the old one, so what Redis knows says nothing as long as Kafka does not confirm it.
    """
    if applied is None:
        if committed is None:
            return Start(beginning, StartReason.FIRST)
        start = Start(beginning if rewind_on_loss else committed, StartReason.STATE_LOST)
    elif committed is None:
        start = Start(beginning, StartReason.FIRST if applied == beginning else StartReason.NOT_COMMITTED)
    elif applied < committed:
        start = Start(applied, StartReason.REDIS_BEHIND)
    else:
        start = Start(committed, StartReason.COMMITTED)
    if not beginning <= start.offset <= end:
        start = Start(beginning, StartReason.LOG_CUT, lost=max(0, beginning - start.offset))
    known = max(applied or 0, committed or 0)
    return start._replace(again=max(0, known - start.offset) if known <= end else 0)  # else it is another log


class _Owned:
    """What is known of one partition while it is ours."""

    __slots__ = ("clock", "committed", "epoch", "rebuilt_at", "recorded")

    def __init__(self, clock: PartitionClock, epoch: int) -> None:
        self.clock = clock
        self.epoch = epoch
        self.recorded: int | None = None  # what we believe stands in agg:progress
        self.committed: int | None = None
        self.rebuilt_at = 0  # up to there a store that has lost its progress may show what was read before


class PartitionProgress:
    """Owns the clocks, epochs and offsets of the assigned partitions.

    A partition's epoch changes whenever reading jumps: what was fetched before a jump may still be applied, but must
    not move progress, since there is now a hole before it.
    """

    def __init__(
        self,
        *,
        source: Source,
        store: Progress,
        clock: AgreedClock,
        retrying: Retrying,
        metrics: Metrics,
        allowed_skew_ms: int,
        rewind_on_loss: bool,
    ) -> None:
        self._source = source
        self._store = store
        self._clock = clock
        self._retrying = retrying
        self._metrics = metrics
        self._allowed_skew_ms = allowed_skew_ms
        self._rewind_on_loss = rewind_on_loss
        self._replays = Replays(metrics)
        self._owned: dict[Partition, _Owned] = {}
        self._epoch = 0
        self.unstarted: set[Partition] = set()

    def take(self, partitions: Sequence[Partition]) -> None:
        """These partitions are ours now; `start` has to be called before anything of them is read."""
        self.unstarted.update(partitions)

    def give_up(self, partitions: Sequence[Partition]) -> None:
        """These partitions are no longer ours."""
        for partition in partitions:
            self.unstarted.discard(partition)
            if self._owned.pop(partition, None) is not None:
                self._metrics.forget_partition(partition.topic, partition.number)

    def restart(self, partition: Partition) -> None:
        """Decide anew where a partition of ours starts, since Redis or the log is no longer what it was.

        That happens before anything more is fetched; what was fetched already moves no progress.
        """
        owned = self._owned.get(partition)
        if owned is not None:
            owned.recorded = None
            self.unstarted.add(partition)

    def clock(self, partition: Partition) -> PartitionClock | None:
        """The log time of a partition, None where it is not ours."""
        owned = self._owned.get(partition)
        return owned.clock if owned else None

    def epochs(self) -> dict[Partition, int]:
        """The epoch of each partition at this moment."""
        return {partition: owned.epoch for partition, owned in self._owned.items()}

    def rebuilding(self) -> bool:
        """Whether any partition is being read again that a store may have forgotten, if only in part."""
        return any((owned.recorded or 0) < owned.rebuilt_at for owned in self._owned.values())

    def startable(self) -> list[Partition]:
        """The unstarted partitions but those that are offline, which must not hold up the others."""
        if not self.unstarted:
            return []
        return sorted(self.unstarted.difference(self._source.offline()))

    async def start(self) -> None:
        """Decide where the startable partitions begin, write that down and seek there.

        Those whose progress changes meanwhile stay unstarted.
        """
        await self._clock.agree()
        partitions = self.startable()
        applied = await self._store.read(partitions)
        committed = await self._source.committed(partitions)
        beginnings = await self._source.beginning_offsets(partitions)
        ends = await self._source.end_offsets(partitions)
        starts: dict[Partition, Start] = {}
        for partition in partitions:
            starts[partition] = decide_start(
                applied=applied[partition][0],
                committed=committed.get(partition),
                beginning=beginnings[partition],
                end=ends[partition],
                rewind_on_loss=self._rewind_on_loss,
            )
        # Compared with what was just read: a loss in between must not be painted over.
        refused = await self._store.write(
            {who: Applied(applied[who][0], start.offset, None) for who, start in starts.items()}
        )
        for partition, start in starts.items():
            if partition in refused or partition not in self.unstarted:
                continue  # decided anew by the next call, or given up while we asked
            announced_ms = self._announced_ms(partition, start.reason, applied[partition][1] or 0)
            self._begin(partition, start, announced_ms=announced_ms, committed=committed.get(partition))
            if start.reason is not StartReason.COMMITTED:
                self._owned[partition].rebuilt_at = ends[partition]

    def _announced_ms(self, partition: Partition, reason: StartReason, stored_ms: int) -> int:
        """The watermark that log times must not fall behind: the one in Redis, or one that Redis has lost.

        Where it is lost and nobody remembers it, the latest that can have been announced.  So whatever is read again
        after a loss makes sessions with a later `opened_at`, and consumers prefer their summaries to those of before.
        """
        owned = self._owned.get(partition)
        remembered_ms = owned.clock.watermark_ms if owned is not None else 0
        lost = reason in (StartReason.STATE_LOST, StartReason.REDIS_BEHIND)
        latest_ms = self._clock.now_ms() - self._allowed_skew_ms if lost else 0
        return max(stored_ms, remembered_ms, latest_ms)

    def _begin(self, partition: Partition, start: Start, *, announced_ms: int, committed: int | None) -> None:
        self._epoch += 1
        owned = _Owned(PartitionClock(allowed_skew_ms=self._allowed_skew_ms, announced_ms=announced_ms), self._epoch)
        owned.recorded = start.offset
        owned.committed = committed
        self._owned[partition] = owned
        self._source.seek(partition, start.offset)
        self.unstarted.discard(partition)
        again = self._replays.begin(partition, start.offset, again=start.again, reason=start.reason)
        self._metrics.partition_started(start.reason)
        self._metrics.records_lost(partition.topic, start.lost)  # also 0: an alert needs the series from the start
        if start.lost:
            log.error(
                Event.RECORDS_LOST,
                topic=partition.topic,
                partition=partition.number,
                offset=start.offset - start.lost,
                records=start.lost,
            )
        usual = start.reason in (StartReason.FIRST, StartReason.COMMITTED)
        (log.info if usual else log.warning)(
            Event.PARTITION_STARTED,
            topic=partition.topic,
            partition=partition.number,
            offset=start.offset,
            why=start.reason,
            replay_records=again,
        )

    async def applied(
        self,
        positions: Mapping[Partition, int],
        heads: Mapping[Partition, PartitionHead],
        epochs: Mapping[Partition, int],
        last_log_ms: Mapping[Partition, int],
        *,
        confirm: Callable[[], Awaitable[None]],
    ) -> bool:
        """Everything before `positions` is in Redis: write that down, announce watermarks, commit to Kafka.

        The arguments are as of one fetch answer.  `confirm` is awaited before the commit: it returns once everything
        is in the very Redis that answers now.  Where it is cut off, Redis is ahead of Kafka, whose place holds then.
        Says whether Redis turned out to have lost writes; the partitions concerned are then to be started anew.
        """
        await self._retrying("progress", self._clock.agree)
        writes: dict[Partition, Applied] = {}
        written: dict[Partition, _Owned] = {}
        for partition, next_offset in positions.items():
            owned = self._owned.get(partition)
            if owned is None or owned.epoch != epochs.get(partition) or owned.recorded is None:
                continue
            head = heads.get(partition)
            polled_ms = self._clock.agreed_ms(head.polled_ms) if head is not None else 0
            caught_up_ms = polled_ms if head is not None and next_offset >= head.end_offset else 0
            watermark_ms = owned.clock.applied(last_log_ms.get(partition, 0), caught_up_ms=caught_up_ms)
            self._show_lag(partition, head, next_offset, watermark_ms)
            if next_offset >= owned.recorded:  # else a slower owner has written beyond us: nothing to add yet
                writes[partition] = Applied(owned.recorded, next_offset, watermark_ms or None)
                written[partition] = owned
        if not writes:
            return False
        refused = await self._retrying("progress", lambda: self._store.write(writes))
        # What was given up and taken again meanwhile has been started anew: the answer is not about it.
        writes = {p: write for p, write in writes.items() if self._owned.get(p) is written[p]}
        lost = self._judge(writes, refused)
        await confirm()
        await self._commit({p: write.next_offset for p, write in writes.items() if p not in lost})
        return bool(lost)

    def _judge(self, writes: Mapping[Partition, Applied], refused: Mapping[Partition, int | None]) -> set[Partition]:
        """Which partitions have lost writes in Redis; the others are noted as written."""
        lost: set[Partition] = set()
        for partition, write in writes.items():
            owned = self._owned[partition]
            stored = refused.get(partition, write.next_offset)
            if stored is None or (write.previous is not None and stored < write.previous):
                lost.add(partition)
                self.restart(partition)
                log.error(
                    Event.STATE_LOST,
                    topic=partition.topic,
                    partition=partition.number,
                    expected=write.previous,
                    found=stored,
                )
            else:  # ours, perhaps one whose answer was lost; or one of a slower former owner: all are applied
                self._replays.applied(partition, write.previous or 0, stored)
                owned.recorded = stored
        return lost

    async def go_back(self, offsets: Mapping[Partition, int]) -> None:
        """Commit these offsets where later ones have been committed: whoever reads on meets those records again."""
        await self._commit(
            {
                partition: offset
                for partition, offset in offsets.items()
                if (owned := self._owned.get(partition)) is not None and (owned.committed or 0) > offset
            }
        )

    async def _commit(self, offsets: Mapping[Partition, int]) -> None:
        new = {
            partition: offset
            for partition, offset in offsets.items()
            if (owned := self._owned.get(partition)) is not None and owned.committed != offset
        }
        if new:
            await self._retrying("commit", lambda: self._source.commit(new))
            for partition, offset in new.items():
                if (owned := self._owned.get(partition)) is not None:
                    owned.committed = offset

    def _show_lag(self, partition: Partition, head: PartitionHead | None, next_offset: int, watermark_ms: int) -> None:
        if head is not None:
            self._metrics.partition_lag(
                partition.topic,
                partition.number,
                records=max(0, head.end_offset - next_offset),
                watermark_ms=watermark_ms or None,
                now_ms=self._clock.now_ms(),
            )
