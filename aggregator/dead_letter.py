"""Sends what could not be used, or not wholly, to the dead-letter topic, before anything of its batch is stored."""

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
    """Sends the records that have a reason, counts and logs them; refuses too many in a row of no use at all.

    A letter may come twice: after a crash its batch is read again.
    """

    def __init__(
        self,
        *,
        dead_letters: DeadLetters,
        max_consecutive: int,
        progress: PartitionProgress,
        retrying: Retrying,
        metrics: Metrics,
        rejects: RejectLog,
    ) -> None:
        self._dead_letters = dead_letters
        self._max_consecutive = max_consecutive
        self._progress = progress
        self._retrying = retrying
        self._metrics = metrics
        self._rejects = rejects
        self._rejected_run = _RejectedRun()

    async def send(self, batch: Batch) -> None:
        """Send what has a reason; raise `TooManyDeadLetters` after more than `max_consecutive` of no use in a row."""
        if not batch.rejects:
            if batch.records:
                self._rejected_run.end()
            return
        for item in batch.records:
            if item.decoded is not None:
                self._rejected_run.end()
                if not item.reason:
                    continue
            elif self._rejected_run.add(item.record) > self._max_consecutive:
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
        await self._progress.go_back(self._rejected_run.first_offsets)
        record = item.record
        raise TooManyDeadLetters(
            f"{self._rejected_run.length} records in a row could not be used, the last at {record.topic}/"
            f"{record.partition} offset {record.offset} ({item.reason}: {item.detail}); they are read again at the "
            "next start; check that AGGREGATOR_KAFKA__TOPICS names topics of OTLP spans, or raise "
            "AGGREGATOR_KAFKA__DEAD_LETTER_MAX_CONSECUTIVE"
        )

    async def _send(self, item: DecodedRecord) -> None:
        await self._dead_letters.send(
            item.record, reason=item.reason, detail=item.detail, partial=item.decoded is not None
        )
