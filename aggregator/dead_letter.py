"""Records of which nothing, or not everything, could be used: to the dead-letter topic, before anything is stored."""

from __future__ import annotations

from functools import partial

from aggregator.batch import Batch, DecodedRecord
from aggregator.core.errors import TooManyDeadLetters
from aggregator.core.model import Partition
from aggregator.ports import DeadLetters, InputRecord
from aggregator.progress import PartitionProgress
from aggregator.retry import Retrying
from aggregator.telemetry import Metrics, RejectLog


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


class DeadLettering:
    """Sends them, counts and logs them, and stops the worker where nothing at all can be used any more.

    May be repeated: dead letters may come twice.
    """

    def __init__(
        self,
        *,
        topic: DeadLetters,
        max_consecutive: int,
        progress: PartitionProgress,
        retrying: Retrying,
        metrics: Metrics,
        rejects: RejectLog,
    ) -> None:
        self._topic = topic
        self._max_consecutive = max_consecutive
        self._progress = progress
        self._retrying = retrying
        self._metrics = metrics
        self._rejects = rejects
        self._run = _RejectedRun()

    async def send(self, batch: Batch) -> None:
        """Send what has a reason; raise `TooManyDeadLetters` where nothing can be used of too many in a row."""
        if not batch.rejects:
            if batch.records:
                self._run.end()
            return
        for item in batch.records:
            if item.decoded is not None:
                self._run.end()
                if not item.reason:
                    continue
            elif self._run.add(item.record) > self._max_consecutive:
                await self._refuse(item)
            record = item.record
            await self._retrying("dead_letter", partial(self._send, item))
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
        await self._progress.go_back(self._run.first_offsets)
        record = item.record
        raise TooManyDeadLetters(
            f"{self._run.length} records in a row could not be used, the last at {record.topic}/"
            f"{record.partition} offset {record.offset} ({item.reason}: {item.detail}); they are read again at the "
            "next start; check that AGGREGATOR_KAFKA__TOPICS names topics of OTLP spans, or raise "
            "AGGREGATOR_KAFKA__DEAD_LETTER_MAX_CONSECUTIVE"
        )

    async def _send(self, item: DecodedRecord) -> None:
        await self._topic.send(item.record, reason=item.reason, detail=item.detail, partial=item.decoded is not None)
