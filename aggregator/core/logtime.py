"""Log time: when a record was appended to its partition, and up to when a partition has been applied.

DESIGN section 5.  All times are milliseconds since the epoch.
"""

from __future__ import annotations

from mypy_extensions import i64


class PartitionClock:
    """The log time of one partition's records and its watermark; neither ever falls.

    `announced_ms` is the watermark that a former owner of the partition wrote (0: none).
    """

    __slots__ = ("_allowed_skew_ms", "_applied_ms", "_latest_ms", "_watermark_ms")

    def __init__(self, *, allowed_skew_ms: i64, announced_ms: i64 = 0) -> None:
        self._allowed_skew_ms: i64 = allowed_skew_ms
        self._watermark_ms: i64 = announced_ms
        self._latest_ms: i64 = announced_ms
        self._applied_ms: i64 = 0

    @property
    def watermark_ms(self) -> int:
        """The watermark as last announced, 0 where nothing is known yet."""
        return self._watermark_ms

    def log_time_ms(self, timestamp_ms: i64, now_ms: i64) -> i64:
        """The log time of the partition's next record.

        Its Kafka timestamp (now where it has none), but not later than now, and not earlier than an earlier record
        or an announced watermark.  The lower bound wins: it was set by what is in Redis already.
        """
        time_ms = timestamp_ms if 0 <= timestamp_ms < now_ms else now_ms
        if time_ms < self._latest_ms:
            time_ms = self._latest_ms
        self._latest_ms = time_ms
        return time_ms

    def applied(self, log_ms: i64, *, caught_up_ms: i64 = 0) -> i64:
        """Everything up to a record of that log time (0: no record) is in Redis; gives the watermark to announce.

        `caught_up_ms` is the moment of the fetch answer that showed the partition's end, if the end was reached.
        """
        if log_ms > self._applied_ms:
            self._applied_ms = log_ms
        if caught_up_ms > self._applied_ms:
            self._applied_ms = caught_up_ms
        reached_ms = self._applied_ms - self._allowed_skew_ms
        if reached_ms > self._watermark_ms:
            self._watermark_ms = reached_ms
        if self._watermark_ms > self._latest_ms:
            self._latest_ms = self._watermark_ms
        return self._watermark_ms
