"""The whole worker, as a process of its own exactly as in production, on a topic that was filled beforehand.

The records are two hours old, so that everything is a backlog: first the worker applies it, and as no partition's
watermark is past the sessions' deadlines before all is read, it then closes all sessions as one more backlog.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple
from urllib.request import urlopen

from aiokafka import AIOKafkaConsumer, TopicPartition

from aggregator.embedded.process import LOCALHOST, ChildProcess, free_port, wait_until_answering
from bench.builds import Build
from bench.figures import Process
from bench.servers import PARTITIONS, Servers, fill
from bench.spans import LARGE, LONE, TURNS, Shape, Traffic

AGE_MS: Final = 7_200_000
SPREAD_MS: Final = 600_000
_STUCK_S: Final = 60.0
_STEADY_S: Final = 30
_POLL_S: Final = 0.02
_WARM, _END = 0.25, 0.92  # shares of the records; before the end the pipeline is as full as it is in between

Figures = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preloaded:
    """A filled topic."""

    topic: str
    shape: Shape
    records: int
    sessions: int


async def preload(servers: Servers, shape: Shape, *, sessions: int, turns: int = 5, age_ms: int = AGE_MS) -> Preloaded:
    """Make a topic of four partitions and fill it."""
    topic = await servers.broker.create_topic("bench", partitions=PARTITIONS)
    start_ms = round(time.time() * 1000) - age_ms
    traffic = Traffic(shape, sessions=sessions, turns=turns, start_ms=start_ms, span_ms=min(SPREAD_MS, age_ms))
    records = await fill(servers.broker, topic, traffic.records())
    return Preloaded(topic=topic, shape=shape, records=records, sessions=sessions)


class _Sample(NamedTuple):
    """Where a run stood: work done, wall clock, CPU of the worker and of Redis in µs."""

    done: int
    at_s: float
    worker_us: float
    redis_us: float

    def per_unit(self, before: _Sample) -> tuple[float, float, float]:
        """CPU of the worker and of Redis per unit, units per second."""
        done = self.done - before.done
        if done <= 0:
            raise RuntimeError("the run was too short to be measured; take more sessions")
        return (
            (self.worker_us - before.worker_us) / done,
            (self.redis_us - before.redis_us) / done,
            done / (self.at_s - before.at_s),
        )


class _Worker:
    """A running worker."""

    def __init__(self, child: ChildProcess, servers: Servers, http_port: int, summary_topic: str) -> None:
        self.child = child
        self.process = Process(child.pid)
        self.summary_topic = summary_topic
        self._servers = servers
        self._metrics_url = f"http://{LOCALHOST}:{http_port}/metrics"

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        with urlopen(self._metrics_url, timeout=30) as answer:  # noqa: S310 - our own child
            text = answer.read().decode()
        return sum(float(one) for one in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))

    def sample(self, done: int) -> _Sample:
        return _Sample(done, time.monotonic(), self.process.cpu_us(), self._servers.redis.figures().cpu_us)

    async def watch(self, done: Callable[[], int], total: int) -> tuple[_Sample, _Sample]:
        """Samples from behind the warm-up and from shortly before the end; returns once all is done."""
        warm: _Sample | None = None
        end: _Sample | None = None
        deadline = time.monotonic() + _STUCK_S
        seen = -1
        while (count := done()) < total:
            if self.child.exit_code() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the worker came to {count} of {total}{self.child.log_end()}")
            if count != seen and _WARM * total <= count <= _END * total:  # looking costs Redis something
                end = self.sample(count)
                warm = warm or end
            if count != seen:
                seen, deadline = count, time.monotonic() + _STUCK_S
            await asyncio.sleep(_POLL_S)
        if warm is None or end is None:
            raise RuntimeError("the run was too short to be measured; take more sessions")
        return warm, end


@asynccontextmanager
async def _running(
    build: Build, servers: Servers, topic: str, directory: Path, extra: Mapping[str, str]
) -> AsyncIterator[_Worker]:
    summaries = await servers.broker.create_topic("summaries", partitions=PARTITIONS)
    dead_letters = await servers.broker.create_topic("dead-letters")
    http_port = free_port()
    name = uuid.uuid4().hex[:8]
    settings = {
        "KAFKA__BOOTSTRAP_SERVERS": servers.broker.bootstrap_servers,
        "KAFKA__TOPICS": topic,
        "KAFKA__GROUP_ID": f"bench-{name}",
        "KAFKA__SUMMARY_TOPIC": summaries,
        "KAFKA__DEAD_LETTER_TOPIC": dead_letters,
        "REDIS__URL": servers.redis_url,
        "HTTP__HOST": LOCALHOST,
        "HTTP__PORT": str(http_port),
        **extra,
    }
    command = [sys.executable, "-m", "aggregator", "run"]
    if not (build.directory / "aggregator").is_dir():
        raise RuntimeError(f"{build.directory} holds no copy of the package")
    child = ChildProcess(
        "worker",
        ["/bin/sh", "-c", 'cd "$0" && exec "$@"', str(build.directory), *command],
        log_path=directory / f"worker-{name}.log",
        environment=build.environment() | {f"AGGREGATOR_{key}": value for key, value in settings.items()},
    )

    async def answers() -> bool:
        try:
            _, writer = await asyncio.open_connection(LOCALHOST, http_port)
        except OSError:
            return False
        writer.close()
        return True

    try:
        await wait_until_answering(child, answers, timeout_s=30)
        yield _Worker(child, servers, http_port, summaries)
    finally:
        await child.stop(grace_s=30)


async def backlog(
    build: Build, servers: Servers, loaded: Preloaded, directory: Path, extra: Mapping[str, str] | None = None
) -> Figures:
    """Apply a filled topic, then close its sessions; `extra` are settings of the worker."""
    servers.redis.flush()
    async with _running(build, servers, loaded.topic, directory, extra or {}) as worker:
        warm, end = await worker.watch(servers.redis.applied, loaded.records)
        worker_us, redis_us, per_s = end.per_unit(warm)
        spans = loaded.shape.record_spans
        figures = {
            "worker": worker_us / spans,
            "worker: Redis": redis_us / spans,
            "worker: spans per second": per_s * spans,
            "worker: spans per second and core": 1_000_000 / worker_us * spans,
        }
        warm, end = await worker.watch(lambda: loaded.sessions - servers.redis.sessions(), loaded.sessions)
        figures["worker: close"], figures["worker: close, Redis"], figures["worker: closes per second"] = end.per_unit(
            warm
        )
        _, peak = worker.process.memory_bytes()
        figures["worker: RSS at its peak"] = peak
        published = worker.metric("aggregator_summaries_published_total")
        if published != loaded.sessions:
            raise RuntimeError(f"{published:.0f} summaries for {loaded.sessions} sessions{worker.child.log_end()}")
    return figures


async def steady(
    build: Build, servers: Servers, shape: Shape, directory: Path, extra: Mapping[str, str], *, spans_per_s: int
) -> Figures:
    """Apply records as they are produced, so many spans a second for `_STEADY_S`, by a worker that keeps up."""
    servers.redis.flush()
    topic = await servers.broker.create_topic("bench", partitions=PARTITIONS)
    spans = spans_per_s * _STEADY_S
    traffic = Traffic(
        shape,
        sessions=spans // (TURNS * shape.trace_spans),
        turns=TURNS,
        start_ms=round(time.time() * 1000),
        span_ms=_STEADY_S * 1000,
    )
    records = list(traffic.records())
    async with _running(build, servers, topic, directory, extra) as worker, servers.broker.producer() as producer:

        async def produce() -> None:
            began_s = time.monotonic()
            for number, record in enumerate(records):
                await asyncio.sleep(max(0.0, began_s + number * _STEADY_S / len(records) - time.monotonic()))
                await producer.send(topic, record.value, partition=number % PARTITIONS)

        producing = asyncio.create_task(produce())
        warm, end = await worker.watch(servers.redis.applied, len(records))
        await producing
    await servers.broker.delete_topic(topic)
    worker_us, redis_us, per_s = end.per_unit(warm)
    spans_each = shape.record_spans
    return {
        "worker": worker_us / spans_each,
        "worker: Redis": redis_us / spans_each,
        "worker: spans per second": per_s * spans_each,
    }


async def replay(build: Build, servers: Servers, loaded: Preloaded, directory: Path) -> tuple[Figures, Figures]:
    """Apply a filled topic, empty Redis, and let the same worker apply all of it again; no session closes meanwhile."""
    servers.redis.flush()
    found: list[Figures] = []
    async with _running(build, servers, loaded.topic, directory, {"SESSION__IDLE_TIMEOUT_S": "86400"}) as worker:
        for again in (False, True):
            if again:
                servers.redis.flush()
            warm, end = await worker.watch(servers.redis.applied, loaded.records)
            worker_us, redis_us, per_s = end.per_unit(warm)
            spans = loaded.shape.record_spans
            found.append(
                {"worker": worker_us / spans, "worker: Redis": redis_us / spans, "spans per second": per_s * spans}
            )
        count = worker.metric("aggregator_replayed_records_total")
        if count != loaded.records:
            raise RuntimeError(f"{count:.0f} of {loaded.records} records were read again{worker.child.log_end()}")
    first, second = found
    return first, second


async def delay(build: Build, servers: Servers, directory: Path, *, sessions: int) -> Figures:
    """From falling due to being received by a consumer of summaries, while the worker is caught up.

    Falling due is the record's log time plus the idle timeout; `allowed_skew` is set to 0, it would only be added.
    """
    servers.redis.flush()
    idle_s = 2.0
    topic = await servers.broker.create_topic("bench", partitions=PARTITIONS)
    extra = {"SESSION__IDLE_TIMEOUT_S": str(idle_s), "SESSION__ALLOWED_SKEW_S": "0"}
    async with _running(build, servers, topic, directory, extra) as worker:
        consumer = AIOKafkaConsumer(bootstrap_servers=servers.broker.bootstrap_servers, auto_offset_reset="earliest")
        await consumer.start()
        try:
            consumer.assign([TopicPartition(worker.summary_topic, number) for number in range(PARTITIONS)])
            due_ms = await _send_slowly(servers, topic, sessions, idle_s)
            delays: list[float] = []
            async with asyncio.timeout(60):
                async for message in consumer:
                    received_ms = time.time() * 1000
                    delays.append((received_ms - due_ms[json.loads(message.value)["session_id"]]) / 1000)
                    if len(delays) == sessions:
                        break
        finally:
            await consumer.stop()
    delays.sort()
    return {
        "due to received: median": delays[len(delays) // 2],
        "due to received: 99 %": delays[len(delays) * 99 // 100],
    }


async def _send_slowly(servers: Servers, topic: str, sessions: int, idle_s: float) -> dict[str, float]:
    """One trace a session, some 100 a second; when each session falls due."""
    traffic = Traffic(LARGE, sessions=sessions, turns=1, start_ms=round(time.time() * 1000), span_ms=1)
    due_ms: dict[str, float] = {}
    async with servers.broker.producer() as producer:
        for number, record in enumerate(traffic.records()):
            sent = await producer.send_and_wait(topic, record.value, partition=number % PARTITIONS)
            for session_id in traffic.session_ids(record):
                due_ms[session_id] = sent.timestamp + idle_s * 1000
            await asyncio.sleep(0.08)
    return due_ms


async def open_sessions(build: Build, servers: Servers, directory: Path, *, sessions: int) -> Figures:
    """Memory of the worker and of Redis while so many sessions are open, each of one trace of one span."""
    servers.redis.flush()
    loaded = await preload(servers, LONE, sessions=sessions, turns=1, age_ms=1000)
    empty = servers.redis.figures()
    async with _running(build, servers, loaded.topic, directory, {"SESSION__IDLE_TIMEOUT_S": "86400"}) as worker:
        warm, end = await worker.watch(servers.redis.applied, loaded.records)
        worker_us, redis_us, per_s = end.per_unit(warm)
        now, peak = worker.process.memory_bytes()
        opened = servers.redis.sessions()
        if opened != sessions:
            raise RuntimeError(f"{opened} of {sessions} sessions are open{worker.child.log_end()}")
        held = servers.redis.figures().memory_bytes - empty.memory_bytes
    return {
        "open sessions": opened,
        "RSS now": now,
        "RSS at its peak": peak,
        "Redis: bytes per session": held / opened,
        "worker: per session": worker_us / loaded.shape.record_spans,
        "worker: Redis per session": redis_us / loaded.shape.record_spans,
        "sessions per second": per_s * loaded.shape.record_spans,
    }
