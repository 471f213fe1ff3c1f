"""What is being read again, and why: shown as `aggregator_replay_records`, and told in the log when it is done."""

from __future__ import annotations

from typing import NamedTuple

from aggregator.core.model import Partition
from aggregator.telemetry import Event, Metrics, StartReason, get_logger

log = get_logger()


class _Replay(NamedTuple):
    """From where, up to where, and why."""

    offset: int
    until: int
    reason: StartReason


class Replays:
    """By partition; one is remembered also while its partition is elsewhere, which may come back before its end.

    A worker that has not seen the beginning does not know of it.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._replays: dict[Partition, _Replay] = {}

    def begin(self, partition: Partition, offset: int, *, again: int, reason: StartReason) -> int:
        """It is read from `offset`, of which the first `again` records were applied once; gives how many come again.

        That is more where another replay has not come to its end, unless the log is no longer the one that it was of.
        """
        before = self._replays.pop(partition, None)
        until = offset + again
        if before is not None and before.until > until and reason is not StartReason.LOG_CUT:
            until, reason = before.until, reason if again else before.reason
        if until > offset:
            self._replays[partition] = _Replay(offset, until, reason)
        self._metrics.replay(partition.topic, partition.number, reason, left=until - offset)
        return until - offset

    def applied(self, partition: Partition, before: int, offset: int) -> None:
        """What lies from `before` up to `offset` has been applied, and Redis knows."""
        replay = self._replays.get(partition)
        if replay is None:
            return
        again, left = max(0, min(offset, replay.until) - before), max(0, replay.until - offset)
        self._metrics.replay(partition.topic, partition.number, replay.reason, left=left, done=again)
        if not left:
            del self._replays[partition]
            log.info(
                Event.REPLAYED,
                topic=partition.topic,
                partition=partition.number,
                offset=replay.offset,
                why=replay.reason,
                records=replay.until - replay.offset,
            )
