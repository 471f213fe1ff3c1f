"""What an operator sees of a worker and can do with it: health, metrics, refusals at start, and orderly ends."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest

from aggregator.embedded.process import free_port
from tests.builders import joined, record, span, to_json, to_protobuf
from tests.e2e.deliveries import PARTITIONS, known_trace
from tests.e2e.pipeline import Pipeline, pipeline
from tests.e2e.waiting import until
from tests.e2e.workers import Metrics, Worker
from tests.kafka_servers import Broker
from tests.redis_servers import RedisServer, redis_servers_available

SERVERS: Final = redis_servers_available()

one_server = pytest.mark.parametrize("redis_server", sorted(SERVERS)[:1], indirect=True)

COUNTERS: Final = {
    "spans_total": {"outcome"},
    "records_total": {"topic", "outcome"},
    "records_lost_total": {"topic"},
    "sessions_opened_total": set(),
    "sessions_reopened_total": set(),
    "sessions_closed_total": {"reason"},
    "summaries_published_total": set(),
    "dead_letters_total": {"reason"},
    "ignored_values_total": {"field", "reason"},
    "redis_retries_total": set(),
    "trace_conflicts_total": set(),
    "corrupt_keys_total": {"kind"},
    "replay_records": {"topic", "partition", "reason"},
    "replayed_records_total": {"reason"},
    "open_sessions": set(),
    "consumer_lag_records": {"topic", "partition"},
    "watermark_lag_seconds": {"topic", "partition"},
    "watermark_timestamp_seconds": {"topic", "partition"},
    "partition_starts_total": {"reason"},
    "stage_seconds_count": {"stage"},
    "end_to_end_seconds_count": set(),
    "close_delay_seconds_count": set(),
    "summary_bytes_count": set(),
    "session_duration_seconds_count": set(),
    "session_tokens_count": set(),
    "session_cost_usd_count": set(),
}
"""What dashboards rely on, with the labels of each."""


@pytest.fixture
async def deployment(kafka_broker: Broker, redis_server: RedisServer, tmp_path: Path) -> AsyncIterator[Pipeline]:
    async with pipeline(kafka_broker, redis_server, tmp_path) as made:
        yield made


@contextmanager
def suspended(server: RedisServer) -> Iterator[None]:
    """The server hangs: it takes connections and answers nothing."""
    assert server.process is not None
    with hanging(server.process.pid):
        yield


@contextmanager
def hanging(pid: int) -> Iterator[None]:
    """That process stands still, with its connections open."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def not_ready(worker: Worker, *words: str) -> str:
    """Wait until `/readyz` refuses with all these words; returns what it says."""

    async def look() -> str:
        answer = await worker.get("/readyz")
        return answer.text if answer.status == 503 and all(word in answer.text for word in words) else ""

    return await until(f"/readyz says {' and '.join(words)}", look)


# --- a worker at work ------------------------------------------------------------------------------------------------


@one_server
async def test_metrics_count_what_really_happened(deployment: Pipeline) -> None:
    (worker,) = await deployment.workers(1, REDIS__TIMEOUT_S="10")  # on a busy machine nothing is to be tried again
    now_ms = round(time.time() * 1000)
    two = joined([known_trace(1, now_ms, session="a"), known_trace(2, now_ms, session="b", spans=3)])
    bad = joined([record([span(9, trace=0)]), known_trace(3, now_ms, session="a", spans=1)])
    odd = record([span(1, {"session.id": "a", "llm.token_count.prompt": -1}, trace=4, start=1, end=2)])
    sent = [to_protobuf(two), to_json(two), to_protobuf(bad), to_protobuf(odd), b"{", b"\xff", b"\xff", b"{}"]
    await deployment.send_bytes(*sent)
    await deployment.wait_closed()

    async def shows_none_open() -> bool:
        return (await worker.metrics()).value("open_sessions") == 0

    await until("the round after the last has counted the open sessions", shows_none_open)
    assert (await worker.get("/livez")) == (await worker.get("/readyz")) == (200, "ok\n")
    found = await worker.metrics()
    outcomes = {name: found.value("records_total", topic=deployment.topic, outcome=name) for name in RECORDS}
    assert outcomes == RECORDS
    assert {name: found.value("spans_total", outcome=name) for name in SPANS} == SPANS
    for series, value in SINGLE.items():
        assert found.value(series) == value, series
    assert found.value("sessions_closed_total", reason="idle") == 2
    assert found.value("sessions_closed_total", reason="max_duration") == 0
    for reason, count in {"not_json": 1, "not_protobuf": 2, "bad_id": 1}.items():
        assert found.value("dead_letters_total", reason=reason) == count
    assert found.total("dead_letters_total") == 4
    assert found.value("ignored_values_total", field="usage", reason="negative") == 1
    assert found.value("ignored_values_total", field="span", reason="bad_trace_id") == 1
    assert_complete(found)


RECORDS: Final = {"applied": 4, "partial": 1, "dead_lettered": 3}
SPANS: Final = {"merged": 7, "duplicate": 5, "dropped": 1, "too_late": 0, "folded": 0}
SINGLE: Final = {
    "sessions_opened_total": 2,
    "sessions_reopened_total": 0,
    "summaries_published_total": 2,
    "summary_bytes_count": 2,
    "close_delay_seconds_count": 2,
    "end_to_end_seconds_count": 8,
    "open_sessions": 0,
    "redis_retries_total": 0,
    "trace_conflicts_total": 0,
    "corrupt_keys_total": 0,
}


def assert_complete(found: Metrics) -> None:
    """Every metric that dashboards rely on is there, with its labels, and those of time are plausible."""
    for name, labels in COUNTERS.items():
        series = found.series(name)
        assert series, f"aggregator_{name} is missing"
        assert all(set(one) == labels for one in series), name
    for stage in ("decode", "fold", "store", "commit", "claim", "publish", "settle", "index"):
        assert found.value("stage_seconds_count", stage=stage) > 0, stage
        assert 0 < found.value("stage_seconds_sum", stage=stage) < 10, stage
    assert len(found.series("consumer_lag_records")) == PARTITIONS
    assert found.total("consumer_lag_records") == 0
    assert 0 < found.total("watermark_lag_seconds") < PARTITIONS * 5
    assert 0 < found.value("end_to_end_seconds_sum") < 8 * 5
    assert found.value("close_delay_seconds_sum") < 2 * 5


@pytest.mark.parametrize("redis_server", sorted(SERVERS)[-1:], indirect=True)
async def test_while_redis_hangs_the_worker_lives_says_so_and_goes_on_afterwards(
    deployment: Pipeline, redis_server: RedisServer
) -> None:
    (worker,) = await deployment.workers(1, SESSION__IDLE_TIMEOUT_S="30")
    trace = to_protobuf(known_trace(1, round(time.time() * 1000), session="s", spans=4))
    with suspended(redis_server):
        await deployment.send_bytes(trace)
        said = await not_ready(worker, str(redis_server.port))
        assert (await worker.get("/livez")) == (200, "ok\n")
        assert worker.child.exit_code() is None
    assert "Traceback" not in said
    await until("the worker is ready again", worker.is_ready)
    await deployment.wait_committed()
    assert deployment.hash("agg:session:{default/s}")["span_count"] == "4"
    assert (await worker.metrics()).value("redis_retries_total") > 0
    await worker.terminate_within()


@one_server
async def test_a_worker_ends_in_time_and_with_0_also_while_redis_hangs(
    deployment: Pipeline, redis_server: RedisServer
) -> None:
    (worker,) = await deployment.workers(1, SHUTDOWN__GRACE_S="8")
    with suspended(redis_server):
        await deployment.send_bytes(to_protobuf(known_trace(1, round(time.time() * 1000), session="s")))
        await not_ready(worker, str(redis_server.port))
        await worker.terminate_within(8)
    committed = await deployment.committed()
    assert not any(committed.values()), "an offset was committed that Redis knows nothing of"


@one_server
@pytest.mark.parametrize("redis_too", [False, True])
async def test_a_worker_ends_in_time_and_with_0_also_while_kafka_hangs(
    deployment: Pipeline, redis_server: RedisServer, redis_too: bool
) -> None:
    """`tests/faults/leaving.py` has the other ways in which servers can be away."""
    (worker,) = await deployment.workers(1, SHUTDOWN__GRACE_S="12")
    await deployment.send_bytes(to_protobuf(known_trace(1, round(time.time() * 1000), session="s")))
    with ExitStack() as stack:
        stack.enter_context(hanging(deployment.broker.pid))
        if redis_too:
            stack.enter_context(suspended(redis_server))
        await worker.terminate_within(12)


# --- starting --------------------------------------------------------------------------------------------------------


@one_server
async def test_what_is_wrong_at_start_is_one_message_that_names_the_setting(deployment: Pipeline) -> None:
    evicting = RedisServer(next(iter(SERVERS.values())), "--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru")
    nowhere = f"nowhere-{deployment.topic}"
    wrong = {
        f"AGGREGATOR_KAFKA__SUMMARY_TOPIC: there is no topic '{nowhere}'": {"KAFKA__SUMMARY_TOPIC": nowhere},
        f"AGGREGATOR_KAFKA__DEAD_LETTER_TOPIC: there is no topic '{nowhere}'": {"KAFKA__DEAD_LETTER_TOPIC": nowhere},
        "AGGREGATOR_REDIS__ALLOW_EVICTION": {"REDIS__URL": evicting.url},
        "AGGREGATOR_REDIS__CLUSTER: this is a single server": {"REDIS__CLUSTER": "true"},
    }
    try:
        workers = {message: deployment.worker(**settings) for message, settings in wrong.items()}
        for message, worker in workers.items():
            await assert_refuses(worker, message)
    finally:
        evicting.remove()


@one_server
async def test_a_missing_input_topic_is_a_matter_of_settings(apache_kafka: Broker, deployment: Pipeline) -> None:
    """The embedded broker would make the topic, as some clusters do."""
    assert apache_kafka is deployment.broker
    worker = deployment.worker(KAFKA__TOPICS=f"nowhere-{deployment.topic}")
    await assert_refuses(worker, f"AGGREGATOR_KAFKA__TOPICS: there is no topic 'nowhere-{deployment.topic}'")


async def assert_refuses(worker: Worker, message: str) -> None:
    assert await worker.ended() == 2, worker.output
    told = [line for line in worker.output.splitlines() if not line.startswith("{")]
    assert sum(message in line for line in told) == 1, worker.output
    assert "Traceback" not in worker.output


@one_server
async def test_wrong_settings_are_told_all_at_once(deployment: Pipeline) -> None:
    wrong = {"SESSION__IDLE_TIMEOUT_S": "soon", "HTTP__PORT": "99999", "KAFKA__TOPIK": "x", "REDIS__URL": "somewhere"}
    worker = deployment.worker(**wrong)
    assert await worker.ended() == 2
    for name in wrong:
        assert f"AGGREGATOR_{name}: " in worker.output
    assert "Traceback" not in worker.output


@one_server
async def test_a_broker_that_is_away_is_waited_for(deployment: Pipeline) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    worker = deployment.worker(KAFKA__BOOTSTRAP_SERVERS=nobody)
    await worker.listening()
    await not_ready(worker, nobody)
    assert (await worker.get("/livez")) == (200, "ok\n")
    await worker.terminate_within()
    assert "Traceback" not in worker.output


@one_server
async def test_a_redis_that_is_away_at_start_is_waited_for(deployment: Pipeline, redis_server: RedisServer) -> None:
    redis_server.stop()
    try:
        worker = deployment.worker()
        await worker.listening()
        await not_ready(worker, str(redis_server.port))
    finally:
        await asyncio.to_thread(redis_server.start)
    await until("the worker is ready", worker.is_ready)
    await worker.terminate_within()


@one_server
async def test_a_redis_that_is_a_replica_at_start_is_waited_for(
    deployment: Pipeline, redis_server: RedisServer
) -> None:
    """A failover may be under way; afterwards nothing has to be started again."""
    with redis_server.client() as client:
        client.replicaof("127.0.0.1", free_port())
        try:
            worker = deployment.worker()
            await worker.listening()
            await not_ready(worker, str(redis_server.port), "a replica", "name the primary")
            assert (await worker.get("/livez")).status == 200
        finally:
            client.replicaof("NO", "ONE")
    await until("the worker is ready", worker.is_ready)


@one_server
async def test_check_tells_what_a_worker_would_find(deployment: Pipeline) -> None:
    good = deployment.command("check")
    nowhere = f"nowhere-{deployment.topic}"
    bad = deployment.command("check", KAFKA__TOPICS=nowhere)
    away = deployment.command("check", REDIS__URL=f"redis://127.0.0.1:{free_port()}/0")
    assert await good.ended() == 0, good.output
    assert f"{deployment.topic}: {PARTITIONS} partitions" in good.output
    assert "ready to run" in good.output
    assert await bad.ended() == 2
    assert f"PROBLEM AGGREGATOR_KAFKA__TOPICS: there is no topic '{nowhere}'" in bad.output
    assert await away.ended() == 1
    assert "check AGGREGATOR_REDIS__URL" in away.output
    for command in (good, bad, away):
        assert "Traceback" not in command.output
