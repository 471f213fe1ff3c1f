"""The read path: due -> hold -> claim -> publish -> settle.

A summary is published before its session is settled (law 5): a crash in between leaves the session `closing`, and
whoever owns its shard next publishes the same revision again, byte for byte.
An entry of the deadline index is held before anything is done by it, and only a held one is taken away: a session that
comes back meanwhile, even with the very deadline that it had, has an entry which nobody holds.
A session closes only by the global watermark, the minimum over all partitions of the input topics (law 4); a
partition that nobody has read yet holds it back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from aggregator.core.errors import SummaryTooLarge
from aggregator.core.model import Partition, SessionRef, SessionRollup
from aggregator.core.summary import summary
from aggregator.index import Indexing
from aggregator.ports import Claim, ClaimOutcome, Clock, DueEntry, Progress, Schedule, SessionStore, Source, SummarySink
from aggregator.retry import Retrying
from aggregator.telemetry import Event, Metrics, NoTracing, SelfTracing, Stage, get_logger

log = get_logger()

_PERIOD_S = 0.25  # how often the watermark is looked at when nothing is left to close


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseLimits:
    """What bounds the read path: shards of the deadline index, and how many sessions are closed at a time.

    A session of 1,000 traces takes some 2 MB on its way from Redis to its summary.
    """

    shards: int
    batch_sessions: int = 64


def shards_of(assigned: Sequence[Partition], partitions: Sequence[Partition], shards: int) -> list[int]:
    """The shards of the deadline index that belong to a worker with these partitions.

    Shard s belongs to whoever has partition number s mod n in the sorted list of all n input partitions, so that
    each shard has one owner and moves with its partition; no lock is needed.
    """
    ours = set(assigned)
    ordered = sorted(partitions)
    return [shard for shard in range(shards) if ordered and ordered[shard % len(ordered)] in ours]


class Close:
    """Owns the task of the read path."""

    def __init__(
        self,
        *,
        source: Source,
        sessions: SessionStore,
        schedule: Schedule,
        progress: Progress,
        sink: SummarySink,
        indexing: Indexing,
        limits: CloseLimits,
        clock: Clock,
        retrying: Retrying,
        metrics: Metrics,
        tracing: SelfTracing | None = None,
    ) -> None:
        self._source = source
        self._sessions = sessions
        self._schedule = schedule
        self._progress = progress
        self._sink = sink
        self._indexing = indexing
        self._limits = limits
        self._clock = clock
        self._retrying = retrying
        self._metrics = metrics
        self._tracing = tracing or NoTracing()
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Close what falls due until `stop`; a round under way is finished."""
        while not self._stopping.is_set():
            if not await self.round_until_done():
                await self._rest()

    def stop(self) -> None:
        """Begin no further round."""
        self._stopping.set()

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(_PERIOD_S):
                await self._stopping.wait()
        except TimeoutError:
            pass

    async def round_until_done(self) -> bool:
        """One round, repeated until it succeeds; says whether there may be more to close."""
        return await self._retrying("close", self.round)

    async def round(self) -> bool:
        """Close one batch of sessions; says whether there may be more.

        Safe to repeat at any point: a claimed session is claimed again unchanged, consumers keep the greatest
        revision, and a settled one answers so.
        """
        partitions = await self._source.input_partitions()
        shards = shards_of(self._source.assigned(), partitions, self._limits.shards)
        self._indexing.own(shards)
        self._metrics.open_sessions(await self._schedule.count(shards) if shards else 0)
        watermark_ms = await self._progress.watermarks(partitions) if shards else None
        if watermark_ms is None:
            return False
        due = await self._schedule.due(shards, watermark_ms=watermark_ms, limit=self._limits.batch_sessions)
        entries = await self._schedule.hold(due) if due else []
        if not entries:
            return False
        trace = self._tracing.begin("close")
        with self._metrics.stage(Stage.CLAIM, trace):
            claims = await self._sessions.claim([entry.ref for entry in entries], watermark_ms=watermark_ms)
        claimed = [claim.rollup for claim in claims if claim.rollup is not None]
        with self._metrics.stage(Stage.PUBLISH, trace):
            await self._publish(claimed, [claim.deadline_ms for claim in claims if claim.rollup is not None])
        with self._metrics.stage(Stage.SETTLE, trace):
            await self._settle(entries, claims, claimed)
        trace.end(due=len(entries), claimed=len(claimed))
        return True

    async def _publish(self, rollups: Sequence[SessionRollup], deadlines_ms: Sequence[int]) -> None:
        documents = {rollup.ref: summary(rollup) for rollup in rollups}
        if not documents:
            return
        try:
            await self._sink.publish(list(documents.items()))
        except SummaryTooLarge as error:
            log.warning(Event.SUMMARY_CUT, sessions=len(error.refs), error=str(error))
            cut = {rollup.ref: summary(rollup, detail=False) for rollup in rollups if rollup.ref in error.refs}
            await self._sink.publish(list(cut.items()))
            documents |= cut
        now_ms = self._clock.now_ms()
        for document, deadline_ms in zip(documents.values(), deadlines_ms, strict=True):
            self._metrics.summary_published(len(document), (now_ms - deadline_ms) / 1000)

    async def _settle(
        self, entries: Sequence[DueEntry], claims: Sequence[Claim], rollups: Sequence[SessionRollup]
    ) -> None:
        """Close what was published, then take it off the index; what was not due goes to its real deadline."""
        settled: dict[SessionRef, bool] = {}
        if rollups:
            answers = await self._sessions.settle([(rollup.ref, rollup.revision) for rollup in rollups])
            for rollup, answer in zip(rollups, answers, strict=True):
                settled[rollup.ref] = answer
                if answer:
                    self._metrics.session_closed(rollup)
        moves: list[tuple[DueEntry, int | None]] = []
        for entry, claim in zip(entries, claims, strict=True):
            if claim.outcome is ClaimOutcome.NOT_DUE:
                moves.append((entry, claim.deadline_ms))
            elif claim.outcome is not ClaimOutcome.CLAIMED or settled[entry.ref]:
                moves.append((entry, None))
            # else a span arrived in between: the session is open again, and its entry stays as an early hint
        # Before its entry goes: that is what a worker which dies now leaves of the session's having to be written.
        await self._indexing.write(
            [
                entry.ref
                for entry, claim in zip(entries, claims, strict=True)
                if claim.outcome is not ClaimOutcome.NOT_DUE
            ]
        )
        await self._schedule.move(moves)
