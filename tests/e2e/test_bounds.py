"""Input without bounds, on a whole worker: its memory, what it goes on with, and what says where exactness ended."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from aggregator.settings import Settings
from tests.adapters.batches import CODECS, append, compressed
from tests.builders import joined, record, span, to_protobuf
from tests.e2e.deliveries import known_trace
from tests.e2e.pipeline import Pipeline, pipeline
from tests.e2e.test_operation import not_ready, one_server
from tests.e2e.waiting import until
from tests.e2e.workers import Worker
from tests.kafka_servers import Broker
from tests.redis_servers import RedisServer, assert_every_key_lives_or_expires

MIB: Final = 1024 * 1024
INFLATED_BYTES: Final = Settings().ingest.max_inflated_bytes
CHART_LIMIT_BYTES: Final = 512 * MIB


@pytest.fixture
async def deployment(apache_kafka: Broker, redis_server: RedisServer, tmp_path: Path) -> AsyncIterator[Pipeline]:
    """With one partition."""
    async with pipeline(apache_kafka, redis_server, tmp_path, partitions=1) as made:
        yield made


async def one_worker(deployment: Pipeline, **settings: str) -> Worker:
    worker = deployment.worker(**settings)
    await worker.listening()
    await until("the worker is ready", worker.is_ready)
    return worker


def peak_bytes(worker: Worker) -> int:
    """The most memory that it ever had."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{worker.child.pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


def now_ms() -> int:
    return round(time.time() * 1000)


async def applied_behind(deployment: Pipeline, offset: int) -> None:
    deployment.ends[0] = offset
    await deployment.wait_committed()


# --- batches that inflate, and large records -------------------------------------------------------------------------


@one_server
async def test_bombs_go_to_the_dead_letters_and_their_partition_goes_on(deployment: Pipeline) -> None:
    worker = await one_worker(deployment)
    before = peak_bytes(worker)
    inside = bytes(4 * INFLATED_BYTES)
    bombs = {codec: compressed(codec, inside) for codec in CODECS}
    await append(deployment.broker, deployment.topic, *bombs.values())
    await deployment.send_bytes(to_protobuf(known_trace(1, now_ms(), session="s")))
    await applied_behind(deployment, len(bombs) + 1)
    print(f"{before:,} bytes before, {peak_bytes(worker):,} at most")
    assert peak_bytes(worker) - before < 3 * INFLATED_BYTES
    assert deployment.hash("agg:session:{default/s}")["span_count"] == "2"
    letters = await deployment.read(deployment.dead_letter_topic)
    for letter, (codec, bomb), offset in zip(letters, bombs.items(), range(len(bombs)), strict=True):
        headers = dict(letter.headers)
        assert headers["source-offset"] == str(offset).encode()
        assert f"{codec} inflates {len(bomb) - 61} bytes".encode() in headers["unreadable"]
        assert letter.value[61:] == bomb[61:] or headers["value-omitted"] == str(len(bomb)).encode()
    assert (await worker.metrics()).total("dead_letters_total") == len(bombs)
    assert [line["offset"] for line in worker.events("records_unreadable")] == list(range(len(bombs)))


@pytest.mark.heavy
@one_server
async def test_batches_that_just_may_inflate_so_far_are_too_few_at_once_to_do_harm(deployment: Pipeline) -> None:
    """Undecodable ones, which are the dearest: each stays in memory until it is on the dead-letter topic."""
    just, count = compressed("zstd", bytes(INFLATED_BYTES - 1000)), 5
    await append(deployment.broker, deployment.topic, *[just] * count)
    worker = await one_worker(deployment, INGEST__MAX_BATCH_RECORDS="500")

    async def committed() -> bool:
        return (await deployment.committed()).get(0) == count

    await until("all of them are committed", committed, timeout_s=150)
    print(f"{peak_bytes(worker):,} bytes at most")
    assert peak_bytes(worker) < CHART_LIMIT_BYTES
    letters = await deployment.read(deployment.dead_letter_topic)
    assert [dict(letter.headers)["source-offset"] for letter in letters] == [b"%d" % offset for offset in range(count)]


@one_server
async def test_records_as_large_as_the_broker_takes(deployment: Pipeline) -> None:
    """Far larger than what is fetched at once, beside small ones; one of them is no spans at all."""
    large = [
        to_protobuf(joined([record([span(1, {"session.id": "s", "input.value": "x" * 8_380_000}, trace=number + 1)])]))
        for number in range(6)
    ]
    large[3] = bytes(8_380_000)
    worker = await one_worker(deployment, INGEST__FETCH_MAX_BYTES="65536")
    async with deployment.broker.producer(max_request_size=9_000_000) as producer:
        for number, value in enumerate(large):
            await producer.send_and_wait(deployment.topic, value)
            await producer.send_and_wait(
                deployment.topic, to_protobuf(known_trace(100 + number, now_ms(), session="small"))
            )
    await applied_behind(deployment, 12)
    print(f"{peak_bytes(worker):,} bytes at most")
    assert peak_bytes(worker) < CHART_LIMIT_BYTES
    assert deployment.hash("agg:session:{default/s}")["trace_count"] == "5"
    assert deployment.hash("agg:session:{default/small}")["trace_count"] == "6"
    (letter,) = await deployment.read(deployment.dead_letter_topic)
    assert letter.value == large[3] or dict(letter.headers)["value-omitted"] == b"8380000"


# --- a dead-letter topic that can't be written -----------------------------------------------------------------------


@asynccontextmanager
async def missing(broker: Broker, topic: str) -> AsyncIterator[None]:
    await broker.delete_topic(topic)
    yield
    await broker.create_topic(name=topic)


def denied(broker: Broker, topic: str) -> AbstractAsyncContextManager[None]:
    return broker.write_denied(topic)


@one_server
@pytest.mark.parametrize("away", [missing, denied])
async def test_a_dead_letter_topic_that_can_not_be_written_is_waited_for(
    deployment: Pipeline, away: Callable[[Broker, str], AbstractAsyncContextManager[None]]
) -> None:
    worker = await one_worker(deployment, KAFKA__REQUEST_TIMEOUT_MS="1500")
    async with away(deployment.broker, deployment.dead_letter_topic):
        good = to_protobuf(known_trace(1, now_ms(), session="s"))
        await deployment.send_bytes(b"no spans at all", good)
        said = await not_ready(worker, "dead_letter", deployment.dead_letter_topic)
        print(said)
        assert (await worker.get("/livez")).status == 200
        await asyncio.sleep(2)
        assert not any((await deployment.committed()).values())
        assert worker.child.exit_code() is None
    await until("the worker is ready again", worker.is_ready)
    await applied_behind(deployment, 2)
    letters = await deployment.read(deployment.dead_letter_topic)
    assert {letter.value for letter in letters} == {b"no spans at all"}
    assert deployment.hash("agg:session:{default/s}")["span_count"] == "2"


# --- sessions and traces without end ---------------------------------------------------------------------------------


@one_server
async def test_what_has_no_end_is_truncated_and_says_so_and_others_stay_exact(deployment: Pipeline) -> None:
    traces, spans = 120, 25
    worker = await one_worker(
        deployment,
        SESSION__MAX_SESSION_TRACES="20",
        SESSION__MAX_TRACE_SPANS="20",
        SESSION__IDLE_TIMEOUT_S="5",
        INGEST__MAX_BATCH_RECORDS="100",
    )
    started_ms = now_ms()
    values = [to_protobuf(known_trace(number + 1, started_ms, session="default")) for number in range(traces)]
    values += [to_protobuf(known_trace(1000 + number, started_ms, session=f"s-{number % 5}")) for number in range(20)]
    values += [to_protobuf(known_trace(2000, started_ms, session="long", spans=spans))]
    await deployment.send_bytes(*values)
    await applied_behind(deployment, len(values))
    # The traces of a batch are never folded by its own put: only the next one may be held to the bound.
    await deployment.send_bytes(to_protobuf(known_trace(traces + 1, started_ms, session="default")))
    await applied_behind(deployment, len(values) + 1)
    traces += 1
    shared = deployment.hash("agg:session:{default/default}")
    assert (shared["trace_count"], shared["span_count"], shared["truncated"]) == (str(traces), str(2 * traces), "1")
    assert len(deployment.traces("agg:session:{default/default}:traces")) <= 20
    found = await worker.metrics()
    assert found.value("spans_total", outcome="folded") == spans - 20
    await deployment.wait_closed()
    assert_every_key_lives_or_expires(deployment.redis, indexed=True, settled=True)
    said = {one["session_id"]: one for one in map(json.loads, await summaries(deployment))}
    assert {name for name, one in said.items() if one["truncated"]} == {"default", "long"}
    assert said["default"]["tokens"]["total"] == 10 * traces
    assert said["long"]["span_count"] == 20
    for number in range(5):
        assert (said[f"s-{number}"]["trace_count"], said[f"s-{number}"]["tokens"]["total"]) == (4, 40)


async def summaries(deployment: Pipeline) -> list[bytes]:
    return [found.value for found in await deployment.read(deployment.summary_topic)]


@one_server
async def test_a_topic_of_unclaimed_spans_leaves_nothing_behind(deployment: Pipeline) -> None:
    worker = await one_worker(
        deployment,
        SESSION__UNCLAIMED_TTL_S="2",
        INGEST__TRACE_CACHE_SPANS="100",
        INGEST__MAX_BATCH_RECORDS="100",
    )
    traces = 200
    values = [to_protobuf(record([span(1, {}, trace=number + 1)])) for number in range(traces)]
    await deployment.send_bytes(*values)
    await applied_behind(deployment, traces)
    assert (await worker.metrics()).value("spans_total", outcome="merged") == traces
    assert not deployment.session_keys()
    keys = list(deployment.redis.scan_iter(match="agg:trace:*", count=1000))
    assert all(deployment.redis.pttl(key) <= 2_000 for key in keys)

    async def gone() -> bool:
        return not list(deployment.redis.scan_iter(match="agg:trace:*", count=1000))

    await until("all of them have expired", gone)
    assert_every_key_lives_or_expires(deployment.redis, indexed=True, settled=True)
