"""What one answer of the source comes to: its records with what was in them, and what is counted of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from aggregator.core.fold import Folder
from aggregator.core.model import Decoded, Partition
from aggregator.ports import InputRecord, PartitionHead
from aggregator.telemetry import NO_TRACE, BatchTrace, Metrics, RecordOutcome, SpanOutcome


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


def count_batch(batch: Batch, folder: Folder, metrics: Metrics, now_ms: int) -> None:
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
            metrics.ignored(decoded.ignored)
        if decoded.dropped:
            dropped += len(decoded.dropped)
            metrics.ignored([("span", reason) for reason in decoded.dropped])
    for topic, count in applied.items():
        metrics.records(topic, RecordOutcome.APPLIED, count)
    for (topic, outcome), count in rejected.items():
        metrics.records(topic, outcome, count)
    _count_spans(folder, metrics, dropped)
    for log_ms, count in by_log_ms.items():
        metrics.end_to_end((now_ms - log_ms) / 1000, count)


def _count_spans(folder: Folder, metrics: Metrics, dropped: int) -> None:
    merged = duplicate = folded = late = erased = 0
    for trace in folder.touched():
        if trace.erased:
            erased += len(trace.spans)
            continue
        merged += trace.merged
        duplicate += trace.duplicate
        folded += trace.folded
        late += trace.late
    metrics.spans(
        {
            SpanOutcome.MERGED: merged,
            SpanOutcome.DUPLICATE: duplicate,
            SpanOutcome.FOLDED: folded,
            SpanOutcome.TOO_LATE: late,
            SpanOutcome.DROPPED: dropped,
            SpanOutcome.ERASED: erased,
        }
    )
