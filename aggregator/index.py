"""The third path: touched -> read -> index, so that people find sessions within a second of a change.

The indexes are derived from the session hashes, and written beside the two paths rather than by them: once a second
for each session that a put or a settle has touched, many at a time.  In a backlog, where that would take more than its
share of the worker, every half minute, so that what a session goes through meanwhile is written once.
What a crash keeps from being written is caught up.  A session whose entry in the deadline index is still there is read
again by whoever owns its shard, after each rebalance; and the read path writes a session here before it takes that
entry away.  Beside that each session in the indexes is looked at every few minutes, which also finds those that
have expired.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from aggregator.core.model import SessionRef
from aggregator.ports import Clock, SessionIndex
from aggregator.retry import Retrying
from aggregator.telemetry import Metrics, NoTracing, SelfTracing, Stage

_PERIOD_S: Final = 1.0  # how far the indexes may be behind, and how often a session is written at most
_BACKLOG_PERIOD_S: Final = 30.0  # while the log is behind by more than a batch: what is shown is old anyway


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexLimits:
    """What bounds the work: sessions of one call, sessions read again per second, and sessions waiting in memory.

    Where it is not `enabled`, nothing is written; what was written expires.
    """

    batch_sessions: int = 500
    looks: int = 500
    caught_up: int = 1000
    waiting: int = 50_000
    enabled: bool = True


class Indexing:
    """Owns the task that keeps the indexes up to date, and what it has still to write."""

    def __init__(
        self,
        *,
        index: SessionIndex,
        limits: IndexLimits,
        clock: Clock,
        retrying: Retrying,
        metrics: Metrics,
        tracing: SelfTracing | None = None,
    ) -> None:
        self._index = index
        self._limits = limits
        self._clock = clock
        self._retrying = retrying
        self._metrics = metrics
        self._tracing = tracing or NoTracing()
        self._touched: dict[SessionRef, None] = {}
        self._shards: Sequence[int] = ()
        self._unread: dict[int, None] = {}  # own shards whose open sessions are still to be read again
        self._catching_up: deque[SessionRef] = deque()
        self._stopping = asyncio.Event()
        self._behind = False

    # what the two paths tell

    async def touched(self, refs: Iterable[SessionRef]) -> None:
        """These sessions may have changed; they are written within a second, or now if too many wait for it."""
        if not self._limits.enabled:
            return
        self._touched.update(dict.fromkeys(refs))
        if len(self._touched) > self._limits.waiting:
            await self._write_touched()

    def backlog(self, behind: bool) -> None:
        """Whether much of the log is still to be read."""
        self._behind = behind

    async def write(self, refs: Sequence[SessionRef]) -> None:
        """Write these now; raises `TransientError` as the index does."""
        if not self._limits.enabled:
            return
        now_ms = self._clock.now_ms()
        for start in range(0, len(refs), self._limits.batch_sessions):
            await self._index.write(refs[start : start + self._limits.batch_sessions], now_ms=now_ms)

    def own(self, shards: Sequence[int]) -> None:
        """These shards of the deadline index are ours now; those that are new are caught up with."""
        if self._limits.enabled and shards != self._shards:
            self._unread.update(dict.fromkeys(shard for shard in shards if shard not in self._shards))
            self._shards = list(shards)

    def catch_up(self) -> None:
        """A worker may have died with something unwritten: read all open sessions of our shards again."""
        self._unread.update(dict.fromkeys(self._shards))

    # the task

    async def run(self) -> None:
        """Write what was touched once a second until `stop`, in a backlog less often; then what is left of it."""
        written_s = self._clock.monotonic_s()
        while not self._stopping.is_set():
            started_s = self._clock.monotonic_s()
            if not self._behind or started_s - written_s >= _BACKLOG_PERIOD_S:
                written_s = started_s
                await self.round()
            await self._rest(_PERIOD_S - (self._clock.monotonic_s() - started_s))
        await self._write_touched()

    def stop(self) -> None:
        """Write what was touched so far, and end."""
        self._stopping.set()

    async def round(self) -> None:
        """Write what was touched since the last round, then look after some of the rest."""
        await self._write_touched()
        await self._retrying("index", self._look)
        await self._retrying("index", self._catch_up)

    async def _write_touched(self) -> None:
        if not self._touched:
            return
        touched, self._touched = list(self._touched), {}
        trace = self._tracing.begin("index")
        with self._metrics.stage(Stage.INDEX, trace):
            await self._retrying("index", partial(self.write, touched))
        trace.end(sessions=len(touched))

    async def _look(self) -> None:
        shards = [shard for shard in self._shards if shard not in self._unread]
        if shards:
            now_ms = self._clock.now_ms()
            entries = await self._index.due(shards, now_ms=now_ms, limit=self._limits.looks)
            if entries:
                await self._index.look(entries, now_ms=now_ms)

    async def _catch_up(self) -> None:
        """Read some of the open sessions again; a shard that has gone to another worker is its matter."""
        while self._unread and len(self._catching_up) < self._limits.caught_up:
            shard = next(iter(self._unread))
            if shard in self._shards:
                self._catching_up.extend(await self._index.open_sessions(shard))
            del self._unread[shard]
        refs = [self._catching_up[at] for at in range(min(self._limits.caught_up, len(self._catching_up)))]
        await self.write(refs)
        for _ in refs:
            self._catching_up.popleft()

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(seconds, 0.0)):
                await self._stopping.wait()
        except TimeoutError:
            pass
