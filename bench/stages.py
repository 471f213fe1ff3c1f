"""Each stage alone, in a process of its own: `python -m bench.stages` prints one JSON object of figures.

CPU is that of the process (user and system), so that other processes on the machine count little; of several rounds
the lowest counts, which is the one that was disturbed least.  Redis's CPU is what it says itself (`INFO cpu`).
The stages are the worker's own parts, given what the stage before them gives.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

import redis
import uvloop
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData
from prometheus_client import CollectorRegistry

from aggregator.adapters.clock import SystemClock
from aggregator.adapters.kafka.consumer import SourceOptions
from aggregator.adapters.kafka.producer import Producer
from aggregator.adapters.kafka.sink import KafkaSummarySink
from aggregator.adapters.kafka.source import KafkaSource
from aggregator.adapters.prices import GenaiPricer
from aggregator.adapters.redis.connections import connect
from aggregator.adapters.redis.index import RedisSessionIndex
from aggregator.adapters.redis.keys import Keys
from aggregator.adapters.redis.progress import RedisProgress
from aggregator.adapters.redis.schedule import RedisSchedule
from aggregator.adapters.redis.sessions import RedisSessions
from aggregator.adapters.redis.traces import RedisTraces
from aggregator.close import Close, CloseLimits
from aggregator.core.conventions import Conventions
from aggregator.core.decode import decode
from aggregator.core.fold import Folder
from aggregator.core.model import Partition, SessionRef, Span
from aggregator.index import Indexing, IndexLimits
from aggregator.ports import Applied, Clock, SessionPut, TraceWrite
from aggregator.retry import Retrying
from aggregator.telemetry import Metrics, core_flavour
from bench.figures import Redis, RedisFigures
from bench.spans import LARGE, PROJECT, SMALL, Record, Traffic

IDLE_TIMEOUT_MS: Final = 1_800_000
BATCH_RECORDS: Final = 500  # as the worker's default
CACHE_SPANS: Final = 50_000
_START_MS: Final = 1_760_000_000_000
_FETCH_QUIET_S: Final = 30.0

Figures = dict[str, float]


class _Lowest:
    """The figures of several rounds; of each the lowest is kept."""

    def __init__(self) -> None:
        self.figures: Figures = {}

    def note(self, name: str, value: float) -> None:
        self.figures[name] = min(value, self.figures.get(name, value))


class _Cpu:
    """CPU of this process between `with` and its end, in µs."""

    def __enter__(self) -> _Cpu:
        gc.collect()
        self._began_ns = time.process_time_ns()
        return self

    def __exit__(self, *_: object) -> None:
        self.us = (time.process_time_ns() - self._began_ns) / 1000


def _batches(records: Sequence[Record]) -> Iterator[list[Record]]:
    at = iter(records)
    while batch := list(islice(at, BATCH_RECORDS)):
        yield batch


# --- decode and fold -------------------------------------------------------------------------------------------------


def _folder() -> Folder:
    return Folder(max_trace_spans=10_000, cache_spans=CACHE_SPANS, pricer=GenaiPricer())


def decode_rounds(records: Sequence[Record], spans: int, rounds: int) -> Figures:
    """The official parser alone as a yardstick of the machine, and our decoder."""
    lowest = _Lowest()
    conventions = Conventions()
    for _ in range(rounds):
        with _Cpu() as cpu:
            for record in records:
                TracesData.FromString(record.value)
        lowest.note("yardstick", cpu.us / spans)
        with _Cpu() as cpu:
            for record in records:
                decode(record.value, log_ms=record.timestamp_ms, conventions=conventions)
        lowest.note("decode", cpu.us / spans)
    return lowest.figures


def _decoded(records: Sequence[Record]) -> list[list[tuple[list[Span], int]]]:
    conventions = Conventions()
    return [
        [(decode(one.value, log_ms=one.timestamp_ms, conventions=conventions).spans, one.timestamp_ms) for one in batch]
        for batch in _batches(records)
    ]


def fold_rounds(decoded: Sequence[Sequence[tuple[list[Span], int]]], spans: int, rounds: int) -> Figures:
    """Merging and encoding trace states, then rollups and what is put into sessions."""
    lowest = _Lowest()
    for _ in range(rounds):
        folder, merged_us, put_us = _folder(), 0.0, 0.0
        for batch in decoded:
            with _Cpu() as cpu:
                for items, log_ms in batch:
                    folder.add(items, log_ms)
                writes = folder.writes()
                folder.stored([None] * len(writes))
            merged_us += cpu.us
            with _Cpu() as cpu:
                folder.puts()
                folder.finish()
            put_us += cpu.us
        lowest.note("fold", (merged_us + put_us) / spans)
        lowest.note("fold: merge and encode", merged_us / spans)
        lowest.note("fold: rollups and puts", put_us / spans)
    return lowest.figures


# --- stores ----------------------------------------------------------------------------------------------------------


def _prepared(
    decoded: Sequence[Sequence[tuple[list[Span], int]]],
) -> list[tuple[list[TraceWrite], list[SessionPut]]]:
    """What the worker hands to the stores, per batch."""
    folder = _folder()
    prepared: list[tuple[list[TraceWrite], list[SessionPut]]] = []
    for batch in decoded:
        for items, log_ms in batch:
            folder.add(items, log_ms)
        writes = folder.writes()
        folder.stored([None] * len(writes))
        cas = [
            TraceWrite(one.trace_id, one.expected, one.stamp, one.state, IDLE_TIMEOUT_MS + 86_400_000) for one in writes
        ]
        prepared.append((cas, [SessionPut(ref, traces) for ref, traces in folder.puts().items()]))
        folder.finish()
    return prepared


class _Stores:
    """The worker's stores on one Redis."""

    def __init__(self, url: str) -> None:
        self.connections = connect(url)
        keys = Keys()
        self.traces = RedisTraces(self.connections, keys)
        self.schedule = RedisSchedule(self.connections, keys)
        self.progress = RedisProgress(self.connections, keys)
        self.sessions = RedisSessions(
            self.connections,
            keys,
            idle_timeout_ms=IDLE_TIMEOUT_MS,
            max_duration_ms=86_400_000,
            retention_ms=86_400_000,
            max_session_traces=1000,
            trace_life_ms=IDLE_TIMEOUT_MS + 86_400_000,
        )
        self._index = RedisSessionIndex(self.connections, keys, retention_ms=86_400_000)

    def indexing(self, clock: Clock, metrics: Metrics) -> Indexing:
        """The indexes, as the worker writes them."""
        retrying = Retrying(clock=clock, metrics=metrics)
        return Indexing(index=self._index, limits=IndexLimits(), clock=clock, retrying=retrying, metrics=metrics)


async def store_round(
    stores: _Stores, server: Redis, prepared: Sequence[tuple[list[TraceWrite], list[SessionPut]]], traffic: Traffic
) -> Figures:
    """Put everything into an empty Redis: trace states, deadline index and sessions, and weigh what came of it."""
    server.flush()
    spans, figures = traffic.spans, {}
    empty = server.figures()
    with _Cpu() as cpu:
        for writes, _ in prepared:
            await stores.traces.store(writes)
    traces = server.figures()
    figures["trace store"] = cpu.us / spans
    figures["trace store: Redis"] = (traces.cpu_us - empty.cpu_us) / spans
    known: set[SessionRef] = set()
    with _Cpu() as cpu:
        for _, puts in prepared:
            new = [put for put in puts if put.ref not in known]
            if new:
                await stores.schedule.add([(one.ref, one.traces[0].changed_ms + IDLE_TIMEOUT_MS) for one in new])
                known.update(one.ref for one in new)
            await stores.sessions.put(puts)
    sessions = server.figures()
    figures["session put"] = cpu.us / spans
    figures["session put: Redis"] = (sessions.cpu_us - traces.cpu_us) / spans
    figures |= _weights(server, empty, traces, sessions, traffic)
    return figures


def _weights(
    server: Redis, empty: RedisFigures, traces: RedisFigures, sessions: RedisFigures, traffic: Traffic
) -> Figures:
    total = sessions.memory_bytes - empty.memory_bytes
    return {
        "bytes per span": total / traffic.spans,
        "bytes per trace": (traces.memory_bytes - empty.memory_bytes) / traffic.traces,
        "bytes per session, without its traces": (sessions.memory_bytes - traces.memory_bytes) / traffic.sessions,
        "bytes per session, with its traces": total / traffic.sessions,
        "bytes of one session's keys": server.session_bytes(),
    }


# --- close -----------------------------------------------------------------------------------------------------------


class _AllAssigned:
    """What the read path asks of the source: a single worker has all partitions."""

    def __init__(self, partitions: Sequence[Partition]) -> None:
        self._partitions = partitions

    def assigned(self) -> Sequence[Partition]:
        return self._partitions

    async def input_partitions(self) -> Sequence[Partition]:
        return self._partitions


async def close_round(stores: _Stores, server: Redis, brokers: str, topic: str, sessions: int) -> Figures:
    """Close all sessions that the stores hold, as one backlog, with real acknowledgements."""
    partition = Partition("bench", 0)
    await stores.progress.write({partition: Applied(None, 1, _START_MS + 2 * 86_400_000)})
    clock = SystemClock()
    metrics = Metrics(CollectorRegistry(), monotonic_s=clock.monotonic_s)
    producer = Producer(brokers, client_id="bench", security=None)
    await producer.start()
    try:
        close = Close(
            source=_AllAssigned([partition]),  # type: ignore[arg-type]  # all that the read path asks for
            sessions=stores.sessions,
            schedule=stores.schedule,
            progress=stores.progress,
            sink=KafkaSummarySink(producer, topic),
            indexing=stores.indexing(clock, metrics),
            limits=CloseLimits(shards=64),
            clock=clock,
            retrying=Retrying(clock=clock, metrics=metrics),
            metrics=metrics,
        )
        before, began_s = server.figures(), time.monotonic()
        with _Cpu() as cpu:
            while await close.round():
                pass
        spent_s, after = time.monotonic() - began_s, server.figures()
    finally:
        await producer.close()
    closed = metrics.registry.get_sample_value("aggregator_summaries_published_total")
    if closed != sessions:
        raise RuntimeError(f"{closed} of {sessions} sessions were closed")
    return {
        "close": cpu.us / sessions,
        "close: Redis": (after.cpu_us - before.cpu_us) / sessions,
        "closes per second": sessions / spent_s,
    }


async def store_rounds(
    url: str, brokers: str, summaries: str, prepared: Sequence[tuple[list[TraceWrite], list[SessionPut]]],
    traffic: Traffic, rounds: int,
) -> Figures:  # fmt: skip
    """Stores and close, several times."""
    lowest, most_closes = _Lowest(), 0.0
    with redis.Redis.from_url(url, protocol=2, socket_timeout=60) as client:
        server = Redis(client)
        stores = _Stores(url)
        try:
            for _ in range(rounds):
                for name, value in (await store_round(stores, server, prepared, traffic)).items():
                    lowest.note(name, value)
                closing = await close_round(stores, server, brokers, summaries, traffic.sessions)
                most_closes = max(most_closes, closing.pop("closes per second"))
                for name, value in closing.items():
                    lowest.note(name, value)
        finally:
            await stores.connections.close()
    return lowest.figures | {"closes per second": most_closes}


# --- fetch -----------------------------------------------------------------------------------------------------------


class _Quiet:
    """Takes partitions as they come."""

    async def on_revoked(self, partitions: Sequence[Partition]) -> None:
        pass

    async def on_assigned(self, partitions: Sequence[Partition]) -> None:
        pass


async def fetch_round(brokers: str, topic: str, record_spans: int, records: int) -> Figures:
    """Read a topic from its start through the worker's source, with as many records as are wanted."""
    options = SourceOptions(bootstrap_servers=brokers, group_id=f"bench-fetch-{time.time_ns()}", topics=[topic])
    source = KafkaSource(options, _Quiet())
    await source.start()
    try:
        seen, began_ns, skipped = 0, 0, 0
        deadline = time.monotonic() + _FETCH_QUIET_S
        while seen < records:
            fetched = await source.fetch(max_records=BATCH_RECORDS, timeout_s=0.5)
            seen += sum(map(len, fetched.records.values()))
            if not began_ns and seen:  # what it took to join the group is over
                began_ns, skipped = time.process_time_ns(), seen
            if time.monotonic() > deadline:
                raise RuntimeError(f"only {seen} of {records} records came within {_FETCH_QUIET_S:g} s")
        cpu_us = (time.process_time_ns() - began_ns) / 1000
    finally:
        await source.close()
    return {"fetch": cpu_us / ((seen - skipped) * record_spans)}


# --- all of it -------------------------------------------------------------------------------------------------------


async def stages(options: argparse.Namespace) -> Figures:
    """All stages for one shape of records."""
    shape = LARGE if options.shape == "large" else SMALL
    traffic = Traffic(shape, sessions=options.sessions, start_ms=_START_MS, span_ms=600_000)
    records = list(traffic.records())
    figures = decode_rounds(records, traffic.spans, options.rounds)
    decoded = _decoded(records)
    figures |= fold_rounds(decoded, traffic.spans, options.rounds)
    figures |= await store_rounds(
        options.redis, options.brokers, options.summaries, _prepared(decoded), traffic, options.rounds
    )
    lowest = _Lowest()
    for _ in range(options.rounds):
        found = await fetch_round(options.brokers, options.topic, shape.record_spans, options.fetch_records)
        lowest.note("fetch", found["fetch"])
    return figures | lowest.figures | {"decode and fold": figures["decode"] + figures["fold"]}


def main() -> None:
    """Print the figures of the stages; times are µs of CPU per span, of `close` per session."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--shape", choices=("large", "small"), required=True)
    for name in ("--redis", "--brokers", "--topic", "--summaries"):
        parser.add_argument(name, required=True)
    for name in ("--sessions", "--fetch-records", "--rounds"):
        parser.add_argument(name, type=int, required=True)
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        figures = runner.run(stages(options))
    print(json.dumps({"core": core_flavour(), "project": PROJECT, "figures": figures}))


if __name__ == "__main__":
    main()
