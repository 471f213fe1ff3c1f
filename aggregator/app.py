"""The composition root: builds the parts of a worker, runs them, and ends them in order.

Stopping goes downstream: no more records are fetched and no more sessions claimed; what is in flight is finished and
committed; the worker leaves the group; then connections close.  All of it fits into `shutdown.grace_s`; what does not
finish by then is left to the next owner of the partitions, which loses nothing (law 3).
A task that dies ends the process: a worker never lives on half working.
"""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Awaitable, Sequence

from prometheus_client import CollectorRegistry

from aggregator.adapters.clock import SystemClock
from aggregator.adapters.http import HttpServer
from aggregator.adapters.kafka.admin import KafkaAdmin, output_problems
from aggregator.adapters.kafka.consumer import SourceOptions
from aggregator.adapters.kafka.producer import Producer
from aggregator.adapters.kafka.security import Security
from aggregator.adapters.kafka.sink import KafkaDeadLetters, KafkaSummarySink
from aggregator.adapters.kafka.source import KafkaSource, OffsetReset, log_reset
from aggregator.adapters.own_prices import OwnPricer
from aggregator.adapters.prices import GenaiPricer
from aggregator.adapters.redis.connections import connect_as_set
from aggregator.adapters.redis.corrupt import CorruptKeys
from aggregator.adapters.redis.index import RedisSessionIndex
from aggregator.adapters.redis.keys import Keys
from aggregator.adapters.redis.progress import RedisProgress
from aggregator.adapters.redis.schedule import RedisSchedule
from aggregator.adapters.redis.servers import servers
from aggregator.adapters.redis.sessions import RedisSessions
from aggregator.adapters.redis.time import RedisTime
from aggregator.adapters.redis.traces import RedisTraces
from aggregator.adapters.self_tracing import OtlpSelfTracing
from aggregator.agreed_clock import AgreedClock
from aggregator.check import named_topics, output_topics, own_prices, redis_problems
from aggregator.close import Close, CloseLimits
from aggregator.core.conventions import Conventions
from aggregator.core.errors import AggregatorError, ConfigurationError, FatalError, StoreUnavailable
from aggregator.core.fold import Folder
from aggregator.core.model import Partition
from aggregator.core.pricing import Pricer
from aggregator.dead_letter import DeadLettering
from aggregator.index import Indexing, IndexLimits
from aggregator.ingest import Ingest, IngestLimits
from aggregator.progress import PartitionProgress
from aggregator.retry import Retrying
from aggregator.settings import OnStateLoss, PricingSettings, SessionSettings, Settings
from aggregator.store import StoreLimits, Storing
from aggregator.telemetry import Event, Metrics, RejectLog, core_flavour, get_logger, package_version

log = get_logger()

_DRAIN_SHARE = 0.7  # of the grace period; the rest is for leaving the group and closing connections
_CLOSED_SHARE = 0.9  # by then connections are closed, as far as servers let them; the last tenth is for the exit
_CLOSE_LEAST_S = 0.1
_REBALANCE_TIMEOUT_S = 30.0
_CANCEL_AGAIN_S = 0.2  # a task that has taken its cancellation ends within milliseconds
_METADATA_MAX_AGE_MS = 30_000
_CLOSE_EACH_S = 3.0  # a server that is away must not keep the others from being told


async def run(settings: Settings) -> int:
    """Run a worker until SIGTERM or SIGINT; the exit code of the process.

    Raises `ConfigurationError` and other `FatalError`s, with the sentence that an operator needs.
    """
    worker = _Worker(settings)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await worker.http.start()
    host, port = worker.http.address
    log.info(Event.WORKER_STARTED, version=package_version(), core=core_flavour())
    log.info(Event.HTTP_LISTENING, host=host, port=port)
    try:
        return await worker.run(stop)
    finally:
        await worker.close()


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


class _Rebalances:
    """Passes on to the write path what the source tells; the source is built before it."""

    def __init__(self) -> None:
        self.ingest: Ingest | None = None
        self.joined = False

    async def on_revoked(self, partitions: Sequence[Partition]) -> None:
        log.info(Event.PARTITIONS_REVOKED, partitions=len(partitions))
        if self.ingest is not None:
            await self.ingest.on_revoked(partitions)

    async def on_assigned(self, partitions: Sequence[Partition]) -> None:
        self.joined = True  # also without a partition: a worker more than there are partitions stands by
        log.info(Event.PARTITIONS_ASSIGNED, partitions=len(partitions))
        if self.ingest is not None:
            await self.ingest.on_assigned(partitions)


def pricer(pricing: PricingSettings) -> Pricer:
    """What prices calls that report no cost: the list, the operator's own prices before it, or nothing.

    Raises `ConfigurationError` for a file that can't be used.
    """
    if not pricing.enabled:
        return Pricer()
    listed = GenaiPricer()
    own = own_prices(pricing)
    return OwnPricer(own, listed) if own else listed


class _Worker:
    """All parts of one worker."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pricer = pricer(settings.pricing)  # first, since its file may be refused
        kafka, session = settings.kafka, settings.session
        self._claimed_ttl_ms = _ms(session.idle_timeout_s + session.late_ttl_s)
        own_clock = SystemClock()
        self._registry = CollectorRegistry()
        self._metrics = metrics = Metrics(self._registry, monotonic_s=own_clock.monotonic_s)
        endpoint = settings.tracing.endpoint
        self._tracing = tracing = None if endpoint is None else OtlpSelfTracing(endpoint, own_clock)
        self._retrying = retrying = Retrying(clock=own_clock, metrics=metrics)
        self._rejects = RejectLog(log, own_clock.monotonic_s)
        self._work: asyncio.Task[None] | None = None
        self._paths: list[asyncio.Task[None]] = []
        self._closed_by_s: float | None = None
        self._ready = False
        self.http = HttpServer(
            host=settings.http.host,
            port=settings.http.port,
            registry=self._registry,
            liveness=self._liveness,
            readiness=self._readiness,
        )
        self._redis = connect_as_set(settings.redis)
        keys = Keys(settings.redis.key_prefix, closing_shards=session.closing_shards)
        self._clock = clock = AgreedClock(own_clock, RedisTime(self._redis, keys), metrics)
        self._brokers = ",".join(kafka.bootstrap_servers)
        self._security = Security.of(kafka)
        self._producer = Producer(
            self._brokers,
            client_id=kafka.client_id,
            delivery_timeout_s=kafka.request_timeout_ms / 1000,
            security=self._security,
        )
        self._rebalances = rebalances = _Rebalances()
        self._source = source = KafkaSource(
            self._source_options(), rebalances, security=self._security, on_reset=self._on_reset
        )
        corrupt = CorruptKeys(self._redis, keys, ttl_ms=_ms(session.retention_s), count=metrics.corrupt_key)
        sessions = RedisSessions(
            self._redis,
            keys,
            idle_timeout_ms=_ms(session.idle_timeout_s),
            max_duration_ms=_ms(session.max_duration_s),
            retention_ms=_ms(session.retention_s),
            max_session_traces=session.max_session_traces,
            trace_life_ms=self._claimed_ttl_ms,
            corrupt=corrupt,
        )
        schedule = RedisSchedule(self._redis, keys, corrupt)
        progress = RedisProgress(self._redis, keys, corrupt)
        self._indexing = indexing = Indexing(
            index=RedisSessionIndex(self._redis, keys, retention_ms=_ms(session.retention_s), corrupt=corrupt),
            limits=IndexLimits(enabled=settings.index.enabled),
            clock=clock,
            retrying=retrying,
            metrics=metrics,
            tracing=tracing,
        )
        self._partitions = PartitionProgress(
            source=source,
            store=progress,
            clock=clock,
            retrying=retrying,
            metrics=metrics,
            allowed_skew_ms=_ms(session.allowed_skew_s),
            rewind_on_loss=settings.redis.on_state_loss == OnStateLoss.REWIND,
        )
        folder = self._folder()
        self._ingest = rebalances.ingest = Ingest(
            source=source,
            dead_lettering=DeadLettering(
                dead_letters=KafkaDeadLetters(self._producer, kafka.dead_letter_topic),
                max_consecutive=kafka.dead_letter_max_consecutive,
                progress=self._partitions,
                retrying=retrying,
                metrics=metrics,
                rejects=self._rejects,
            ),
            folder=folder,
            storing=Storing(
                traces=RedisTraces(self._redis, keys, corrupt),
                sessions=sessions,
                schedule=schedule,
                indexing=indexing,
                folder=folder,
                limits=self._store_limits(session),
                retrying=retrying,
                metrics=metrics,
            ),
            progress=self._partitions,
            indexing=indexing,
            conventions=Conventions(
                session_id_attributes=session.id_attributes,
                project_attributes=session.project_attributes,
                user_attributes=session.user_attributes,
                ignored_attributes=session.ignored_attributes,
            ),
            encoding=kafka.encoding,
            limits=self._ingest_limits(),
            clock=clock,
            retrying=retrying,
            metrics=metrics,
            tracing=tracing,
        )
        self._close = Close(
            source=source,
            sessions=sessions,
            schedule=schedule,
            progress=progress,
            sink=KafkaSummarySink(self._producer, kafka.summary_topic),
            indexing=indexing,
            limits=CloseLimits(shards=session.closing_shards),
            clock=clock,
            retrying=retrying,
            metrics=metrics,
            tracing=tracing,
        )

    def _source_options(self) -> SourceOptions:
        kafka, ingest = self._settings.kafka, self._settings.ingest
        return SourceOptions(
            bootstrap_servers=self._brokers,
            group_id=kafka.group_id,
            client_id=kafka.client_id,
            group_instance_id=kafka.group_instance_id,
            topics=() if kafka.topic_pattern else kafka.topics,
            pattern=kafka.topic_pattern,
            fetch_max_bytes=ingest.fetch_max_bytes,
            inflated_bytes=ingest.max_inflated_bytes,
            session_timeout_ms=kafka.session_timeout_ms,
            rebalance_timeout_ms=_ms(_REBALANCE_TIMEOUT_S),
            request_timeout_ms=kafka.request_timeout_ms,
            # A new partition must hold the global watermark back before a session of its records can fall due.
            metadata_max_age_ms=min(_METADATA_MAX_AGE_MS, _ms(self._settings.session.idle_timeout_s / 2)),
        )

    def _on_reset(self, reset: OffsetReset) -> None:
        """The log does not hold what was to be read: progress that points there is worth nothing."""
        if reset.recreated:  # else records are lost, which is reported where it is decided how many
            log_reset(reset)
        self._partitions.restart(reset.partition)

    def _folder(self) -> Folder:
        return Folder(
            max_trace_spans=self._settings.session.max_trace_spans,
            cache_spans=self._settings.ingest.trace_cache_spans,
            pricer=self._pricer,
        )

    def _store_limits(self, session: SessionSettings) -> StoreLimits:
        return StoreLimits(
            claimed_ttl_ms=self._claimed_ttl_ms,
            unclaimed_ttl_ms=_ms(session.unclaimed_ttl_s),
            idle_timeout_ms=_ms(session.idle_timeout_s),
        )

    def _ingest_limits(self) -> IngestLimits:
        return IngestLimits(
            max_batch_records=self._settings.ingest.max_batch_records,
            # The group throws out a member that takes longer than its rebalance time-out.
            revoke_timeout_s=min(self._settings.shutdown.grace_s, _REBALANCE_TIMEOUT_S) * _DRAIN_SHARE,
        )

    # --- life ------------------------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> int:
        """Work until told to stop, or until a task dies, whose error is raised."""
        self._work = asyncio.create_task(self._run_paths(), name="work")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        try:
            await asyncio.wait({self._work, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not self._work.done():
                await self._drain(self._work)
            return self._outcome(self._work)
        finally:
            stopping.cancel()

    async def _run_paths(self) -> None:
        await self._retrying("redis", self._check_redis)
        await self._retrying("clock", self._clock.agree)  # before any path looks at the time
        await self._retrying("kafka", self._check_kafka)
        await self._retrying("producer", self._producer.start)
        await self._retrying("source", self._source.start)
        self._ready = True
        log.info(Event.WORKER_READY)
        _calm_garbage_collector()
        paths = [
            asyncio.create_task(self._ingest.read(), name="read"),
            asyncio.create_task(self._ingest.apply(), name="apply"),
            asyncio.create_task(self._close.run(), name="close"),
        ]
        for path in paths:  # the indexing ends behind them, with what they touched last
            path.add_done_callback(lambda _: self._indexing.stop() if all(path.done() for path in paths) else None)
        self._paths = tasks = [*paths, asyncio.create_task(self._indexing.run(), name="index")]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            await _cancelled(tasks)

    async def _drain(self, work: asyncio.Task[None]) -> None:
        """Let both paths finish what they hold, within their share of the grace period."""
        grace_s = self._settings.shutdown.grace_s
        self._closed_by_s = self._clock.monotonic_s() + grace_s * _CLOSED_SHARE
        log.info(Event.WORKER_STOPPING, reason="signal")
        self._ingest.stop()
        self._close.stop()
        if self._ready:
            await asyncio.wait({work}, timeout=grace_s * _DRAIN_SHARE)
        if not work.done():
            if self._ready:
                log.warning(Event.GRACE_EXCEEDED, grace_s=grace_s)
            # The paths first: their parent would else be cancelled while it waits for them.
            await _cancelled(self._paths)
            await _cancelled([work])

    def _outcome(self, work: asyncio.Task[None]) -> int:
        if work.cancelled():
            return 0
        error = work.exception()
        if error is None:
            return 0
        log.error(Event.TASK_DIED, error=str(error), exc_info=None if isinstance(error, AggregatorError) else error)
        if isinstance(error, FatalError):
            raise error
        return 1

    async def close(self) -> None:
        """Leave the group and close everything, each within its time."""
        self._ready = False
        self._rejects.flush()
        parts = [self._source.close, self._producer.close, self._redis.close, self.http.stop]
        for part in parts if self._tracing is None else [*parts, self._tracing.close]:
            left_s = _CLOSE_EACH_S if self._closed_by_s is None else self._closed_by_s - self._clock.monotonic_s()
            await _bounded(part(), min(_CLOSE_EACH_S, max(left_s, _CLOSE_LEAST_S)))
        log.info(Event.WORKER_STOPPED)

    async def _check_redis(self) -> None:
        found = await servers(self._redis)
        for server in found:
            if server.is_replica:  # perhaps only until a failover is over: waited for
                raise StoreUnavailable(f"Redis at {server.address}: a replica, which takes no writes; name the primary")
        problems = [problem for server in found for problem in redis_problems(self._settings.redis, server)]
        if problems:
            raise ConfigurationError("\n".join(problems))
        for server in found:
            log.info(Event.REDIS_CONNECTED, address=server.address, version=server.version, cluster=server.cluster)

    async def _check_kafka(self) -> None:
        """The source looks for the input topics; the output topics are looked for here, before anything is read."""
        kafka = self._settings.kafka
        admin = KafkaAdmin(self._brokers, security=self._security)
        outputs = output_topics(kafka)
        if kafka.create_topics:
            await admin.create_topics(list(outputs.values()), like=kafka.topics[0])
        elif problems := output_problems(outputs, (await admin.cluster(topics=named_topics(kafka))).topics):
            raise ConfigurationError("\n".join(problems))

    # --- health ----------------------------------------------------------------------------------------------------

    def _liveness(self) -> list[str]:
        """Alive as long as no task has died: servers that are away are waited for, not restarted against."""
        return ["a task has died"] if self._work is not None and self._work.done() else []

    def _readiness(self) -> list[str]:
        """Ready as long as nothing is waited for: a lag is none of it, or rollouts would stand still in a backlog."""
        if not self._ready:
            reasons = ["starting or stopping"]
        elif not self._rebalances.joined:
            reasons = ["waiting for the consumer group to hand out partitions"]
        else:
            reasons = []
        return [*reasons, *self._retrying.trouble()]


def _calm_garbage_collector() -> None:
    """Look for cyclic garbage seldom, and never among what was there at the start.

    Spans and states hold no cycles and go by reference counts, but they come by the ten thousand, and each 700 new
    ones would have the collector walk over them: that took a third of the worker's CPU.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


async def _cancelled(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel until all have ended: in Python 3.11 `asyncio.wait_for`, which libraries use, may lose a cancellation.

    A TaskGroup cancels once, and would then wait for ever for the others when one task has died.
    """
    running = {task for task in tasks if not task.done()}
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=_CANCEL_AGAIN_S)


async def _bounded(closing: Awaitable[object], seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await closing
    except (TimeoutError, AggregatorError) as error:
        log.warning(Event.CLOSE_UNFINISHED, error=str(error) or "timed out")
