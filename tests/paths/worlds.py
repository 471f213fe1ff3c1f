"""Whole workers over a log in memory and any stores, whose every call can be made to fail.

A `World` is what outlives workers: the log, the stores, the clock.  A `Life` is some workers at once; it ends when
everything is applied, or when one of them crashes, which takes the process with all its memory.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry

from aggregator.adapters.redis.index import LOOK_EVERY_MS
from aggregator.agreed_clock import AgreedClock
from aggregator.close import Close, CloseLimits
from aggregator.core.conventions import Conventions
from aggregator.core.errors import StoreUnavailable
from aggregator.core.fold import Folder
from aggregator.core.model import Partition, SessionRef
from aggregator.core.pricing import Pricer
from aggregator.dead_letter import DeadLettering
from aggregator.index import Indexing, IndexLimits
from aggregator.ingest import Ingest, IngestLimits
from aggregator.ports import Progress, Schedule, SessionIndex, SessionStore, TraceStore
from aggregator.progress import PartitionProgress
from aggregator.retry import Retrying
from aggregator.store import StoreLimits, Storing
from aggregator.telemetry import Metrics, RejectLog, SelfTracing, get_logger
from tests.builders import BASE_MS, to_protobuf
from tests.core.trees import FlatPricer
from tests.fake_log import (
    Crash,
    FakeDeadLetters,
    FakeLog,
    FakeSharedClock,
    FakeSink,
    FakeSource,
    Faults,
    Faulty,
    ManualClock,
    SkewedClock,
)
from tests.oracle import Price, comparable_summary, expected_sessions, flat_price
from tests.summaries import check_summary
from tests.workloads import Record, oracle_input

TOPIC = "otlp_spans"
IDLE_MS = 2_500  # log times of a workload are a second apart: sessions close and reopen within it
SKEW_MS = 500
RETENTION_MS = 3_600_000
SHARDS = 4
_LIFE_S = 60.0  # a life takes some 20 ms; one that does not end is a finding, with the example that shows it


@dataclass(frozen=True, kw_only=True)
class Stores:
    """The state, as the ports see it; `lose` empties it, as FLUSHALL does."""

    traces: TraceStore
    sessions: SessionStore
    schedule: Schedule
    progress: Progress
    index: SessionIndex
    lose: Callable[[], Awaitable[None]]


@dataclass(kw_only=True)
class World:
    """What is there whoever works."""

    stores: Stores
    pricer: Pricer = field(default_factory=FlatPricer)
    clock: ManualClock = field(default_factory=lambda: ManualClock(BASE_MS))
    max_consecutive_dead_letters: int = 1000
    max_batch_records: int = 3
    tracing: SelfTracing | None = None
    log: FakeLog = field(init=False)
    sink: FakeSink = field(init=False)

    def __post_init__(self) -> None:
        self.log = FakeLog(self.clock)
        self.sink = FakeSink(self.log)

    def write(self, records: Sequence[Record], partitions: int) -> None:
        """Put the records on the log; the clock goes on to the last of them."""
        for number in range(partitions):
            self.log.partitions.setdefault(Partition(TOPIC, number), [])
        for record in records:
            self.log.append(Partition(TOPIC, record.partition), to_protobuf(record.message), record.log_ms)
        self.clock.time_ms = max([self.clock.time_ms, *(record.log_ms for record in records)])


class Worker:
    """One process: both paths, with memory of its own."""

    def __init__(
        self, world: World, assigned: Sequence[Partition], plan: Mapping[int, str], *, crash: bool, skew_ms: int = 0
    ) -> None:
        faults = Faults(plan, world.stores.lose)

        def faulty(port: object) -> Any:
            return Faulty(port, faults, Crash if crash else lambda: StoreUnavailable("cut on purpose"))

        own_clock = SkewedClock(world.clock, skew_ms)
        metrics = Metrics(CollectorRegistry(), monotonic_s=own_clock.monotonic_s)
        clock = AgreedClock(own_clock, faulty(FakeSharedClock(world.clock)), metrics)
        retrying = Retrying(clock=own_clock, metrics=metrics)
        stores = world.stores
        self.source = FakeSource(world.log, assigned, own_clock)
        source = faulty(self.source)
        progress = faulty(stores.progress)
        sessions, schedule = faulty(stores.sessions), faulty(stores.schedule)
        self.indexing = Indexing(
            index=faulty(stores.index),
            limits=IndexLimits(batch_sessions=3, looks=4, caught_up=5, waiting=8),
            clock=clock,
            retrying=retrying,
            metrics=metrics,
            tracing=world.tracing,
        )
        self.metrics = metrics
        self.faults = faults
        self.progress = PartitionProgress(
            source=source,
            store=progress,
            clock=clock,
            retrying=retrying,
            metrics=metrics,
            allowed_skew_ms=SKEW_MS,
            rewind_on_loss=True,
        )
        folder = Folder(max_trace_spans=10_000, cache_spans=20, pricer=world.pricer)
        self.storing = Storing(
            traces=faulty(stores.traces),
            sessions=sessions,
            schedule=schedule,
            indexing=self.indexing,
            folder=folder,
            limits=StoreLimits(claimed_ttl_ms=RETENTION_MS, unclaimed_ttl_ms=RETENTION_MS, idle_timeout_ms=IDLE_MS),
            retrying=retrying,
            metrics=metrics,
        )
        self.ingest = Ingest(
            source=source,
            dead_lettering=DeadLettering(
                dead_letters=faulty(FakeDeadLetters(world.log)),
                max_consecutive=world.max_consecutive_dead_letters,
                progress=self.progress,
                retrying=retrying,
                metrics=metrics,
                rejects=RejectLog(get_logger(), clock.monotonic_s),
            ),
            folder=folder,
            storing=self.storing,
            progress=self.progress,
            indexing=self.indexing,
            conventions=Conventions(),
            encoding="auto",
            limits=IngestLimits(max_batch_records=world.max_batch_records, revoke_timeout_s=1),
            clock=clock,
            retrying=retrying,
            metrics=metrics,
            tracing=world.tracing,
        )
        self.close = Close(
            source=source,
            sessions=sessions,
            schedule=schedule,
            progress=progress,
            sink=faulty(world.sink),
            indexing=self.indexing,
            limits=CloseLimits(shards=SHARDS, batch_sessions=3),
            clock=clock,
            retrying=retrying,
            metrics=metrics,
            tracing=world.tracing,
        )
        self._assigned = assigned
        self._world = world

    async def run(self) -> None:
        """Read until everything assigned is committed and nothing is due any more."""
        await self.ingest.on_assigned(self._assigned)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.ingest.read(), name="read")
            tasks.create_task(self.ingest.apply(), name="apply")
            tasks.create_task(self._close(), name="close")

    async def _close(self) -> None:
        idle = 0
        while idle < 3:  # a few looks after the end: the last watermarks have to be announced
            busy = await self.close.round_until_done()
            caught_up = all(
                self._world.log.committed.get(partition, 0) == len(self._world.log.partitions[partition])
                for partition in self._assigned
            )
            idle = idle + 1 if caught_up and not busy else 0
            if not busy:
                await self.indexing.round()
            for _ in range(20):
                await asyncio.sleep(0)
        self.ingest.stop()


@dataclass(frozen=True, kw_only=True)
class Life:
    """Some workers at once: who reads what, which of their calls fail, and how long nobody works afterwards.

    `skews_ms` is how far each one's clock is off; where it is empty all are right.
    """

    assigned: list[list[int]]
    plans: list[dict[int, str]]
    crash: bool
    rest_ms: int = 0
    skews_ms: Sequence[int] = ()


async def live(world: World, life: Life) -> bool:
    """Run the workers of one life; says whether they came to their end, rather than to a crash."""
    workers = [
        Worker(world, [Partition(TOPIC, number) for number in numbers], plan, crash=life.crash, skew_ms=skew_ms)
        for numbers, plan, skew_ms in zip(
            life.assigned, life.plans, life.skews_ms or [0] * len(life.plans), strict=True
        )
    ]
    async with asyncio.timeout(_LIFE_S):
        results = await asyncio.gather(*(worker.run() for worker in workers), return_exceptions=True)
    for result in results:
        if result is not None and not is_crash(result):
            raise result
    world.clock.time_ms += life.rest_ms
    return not any(results)


def is_crash(error: BaseException) -> bool:
    """Whether nothing but the crashes that were planned ended a worker."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_crash(inner) for inner in error.exceptions)
    return isinstance(error, Crash)


async def live_through(world: World, records: Sequence[Record], history: Sequence[Life], partitions: int) -> None:
    """Let the records arrive in as many parts as there are lives and one, each part before its life."""
    share = -(-len(records) // (len(history) + 1))
    for number, life in enumerate(history):
        world.write(records[number * share : (number + 1) * share], partitions)
        await live(world, life)
    world.write(records[len(history) * share :], partitions)
    await finish(world, partitions)


async def finish(world: World, partitions: int) -> None:
    """Let one sound worker read the rest, and time pass until every session is over."""
    everything = Life(assigned=[list(range(partitions))], plans=[{}], crash=False)
    await live(world, everything)
    world.clock.time_ms += 10 * IDLE_MS
    await live(world, everything)


async def look_at_all(world: World, partitions: int) -> None:
    """Let the time pass in which each session in the indexes is looked at once more."""
    worker = Worker(world, [Partition(TOPIC, number) for number in range(partitions)], {}, crash=False)
    world.clock.time_ms += LOOK_EVERY_MS
    worker.indexing.own(range(SHARDS))
    for _ in range(30):
        await worker.indexing.round()


def last_summaries(world: World) -> dict[SessionRef, dict[str, Any]]:
    """The summary of each session that its consumers keep; on the way, law 5: one revision has one content."""
    contents: dict[tuple[str, str, str, int], bytes] = {}
    last: dict[SessionRef, dict[str, Any]] = {}
    for ref, document in world.log.summaries:
        check_summary(document)
        summary = json.loads(document)
        order = (summary["opened_at"], summary["revision"])
        assert contents.setdefault((*ref, *order), document) == document
        kept = last.get(ref)
        if kept is None or order >= (kept["opened_at"], kept["revision"]):
            last[ref] = summary
    return last


def assert_equals_oracle(
    world: World, records: Sequence[Record], *, lost: bool = False, price: Price = flat_price
) -> None:
    """The last summaries are what the oracle says, apart from empty ones of sessions that all traces have left.

    Where the stores have `lost` that such a session was ever published, nobody can tell that it is empty now.
    `price` is that of the world's pricer.
    """
    found = expected_sessions(oracle_input(records), price=price)
    expected = {SessionRef(*ref): session for ref, session in found.items()}
    last = last_summaries(world)
    for ref, summary in last.items():
        if ref not in expected and not lost:
            assert summary["trace_count"] == 0, f"{ref} should have been left by all its traces"
            assert summary["span_count"] == summary["tokens"]["total"] == 0
    assert set(expected) <= set(last), "a session was never summarised"
    for ref, session in expected.items():
        assert comparable_summary(last[ref]) == session.summary
