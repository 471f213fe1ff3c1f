"""From records to Redis, summaries and dead letters, through real servers: what comes out is what the oracle says.

The workers are processes; they share four partitions over which traces are torn apart, repeated and mixed with records
that are wrong.  Whatever is done to the workers and to Redis meanwhile, the end is the same.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.comparing import assert_dead_letters, assert_equals_oracle
from tests.e2e.deliveries import WORKLOADS, Delivery, deliveries, todays_spans
from tests.e2e.pipeline import Pipeline, pipeline
from tests.e2e.waiting import until
from tests.e2e.workers import Worker
from tests.kafka_servers import Broker
from tests.oracle import comparable_hash
from tests.redis_servers import Cluster, RedisServer, redis_servers_available

SERVERS: Final = sorted(redis_servers_available())

one_server = pytest.mark.parametrize("redis_server", SERVERS[-1:], indirect=True)


def now() -> int:
    return round(time.time() * 1000)


def records_of_today(*, seed: int, workloads: int = WORKLOADS) -> list[Delivery]:
    return deliveries(todays_spans(workloads, now()), now(), seed=seed)


async def assert_ends_right(
    deployment: Pipeline, records: Sequence[Delivery], *, repeated: bool = False, lost: bool = False
) -> None:
    await deployment.wait_closed()
    await assert_equals_oracle(deployment, [record.message for record in records], now(), lost=lost)
    await assert_dead_letters(deployment, repeated=repeated)


async def share_of(worker: Worker) -> set[int]:
    """The partitions that a worker reports on."""
    return {int(series["partition"]) for series in (await worker.metrics()).series("consumer_lag_records")}


async def test_two_workers_on_four_partitions_make_what_the_oracle_says(
    kafka_broker: Broker, redis_server: RedisServer, tmp_path: Path
) -> None:
    async with pipeline(kafka_broker, redis_server, tmp_path) as deployment:
        workers = await deployment.workers(2)
        records = records_of_today(seed=1)
        await deployment.send(records)
        await assert_ends_right(deployment, records)
        for worker in workers:
            assert (await worker.metrics()).total("records_total") > len(records) / 5, "one has done nothing"


async def test_two_workers_on_redis_cluster_make_what_the_oracle_says(
    kafka_broker: Broker, redis_cluster: Cluster, tmp_path: Path
) -> None:
    async with pipeline(kafka_broker, redis_cluster, tmp_path) as deployment:
        await deployment.workers(2)
        records = records_of_today(seed=2, workloads=40)
        await deployment.send(records)
        await assert_ends_right(deployment, records)


@one_server
async def test_a_worker_killed_midway_and_its_heir_make_what_the_oracle_says(
    kafka_broker: Broker, redis_server: RedisServer, tmp_path: Path
) -> None:
    async with pipeline(kafka_broker, redis_server, tmp_path) as deployment:
        doomed, survivor = await deployment.workers(2, KAFKA__SESSION_TIMEOUT_MS="3000")
        share = await share_of(doomed)
        records = records_of_today(seed=3)
        half = len(records) // 2
        sending = asyncio.create_task(deployment.send(records[:half]))
        await deployment.wait_applied(len(records) // 3)
        more = asyncio.create_task(deployment.send(records[half:]))  # however fast it was, something is left to do
        await doomed.kill()
        applied = deployment.progress()
        await asyncio.gather(sending, more)
        behind = [partition for partition in share if applied.get(partition, 0) < deployment.ends[partition]]
        assert behind, "it had nothing left to do when it was killed"
        (heir,) = await deployment.workers(1, beside=[survivor])
        assert await share_of(survivor) | await share_of(heir) > share
        await assert_ends_right(deployment, records, repeated=True)


@one_server
async def test_a_worker_told_to_stop_midway_ends_in_order_and_nothing_is_read_twice(
    kafka_broker: Broker, redis_server: RedisServer, tmp_path: Path
) -> None:
    async with pipeline(kafka_broker, redis_server, tmp_path) as deployment:
        leaving, _ = await deployment.workers(2)
        records = records_of_today(seed=4)
        sending = asyncio.create_task(deployment.send(records))
        await deployment.wait_applied(len(records) // 3)
        await leaving.terminate_within()
        assert leaving.events("worker_stopped")
        assert not leaving.events("grace_exceeded")
        await sending
        # The embedded broker tells a heir ends of the log that are too low, so that it begins at the beginning.
        await assert_ends_right(deployment, records, repeated=not kafka_broker.is_apache)


@pytest.mark.parametrize(
    ("redis_server", "restart"), [(SERVERS[0], False), (SERVERS[-1], True)], indirect=["redis_server"]
)
async def test_when_redis_loses_everything_midway_the_log_is_read_again(
    kafka_broker: Broker, redis_server: RedisServer, restart: bool, tmp_path: Path
) -> None:
    async with pipeline(kafka_broker, redis_server, tmp_path) as deployment:
        workers = await deployment.workers(2, REDIS__ON_STATE_LOSS="rewind")
        records = records_of_today(seed=5)
        half = len(records) // 2
        await deployment.send(records[:half])
        await deployment.wait_committed()
        if restart:
            redis_server.stop()
            await asyncio.to_thread(redis_server.start)
        else:
            deployment.redis.flushall()
        await deployment.send(records[half:])
        await assert_ends_right(deployment, records, repeated=True, lost=True)
        assert all(worker.events("state_lost") for worker in workers)
        scrapes = [await worker.metrics() for worker in workers]
        assert all(scrape.value("partition_starts_total", reason="state_lost") for scrape in scrapes)


def figures(deployment: Pipeline) -> dict[str, dict[str, str]]:
    """All that Redis shows of each session with a trace, but for how the log was read."""
    shown = {key: deployment.hash(key) for key in deployment.session_keys()}
    return {
        key: comparable_hash(fields)
        | {name: value for name, value in deployment.hash(f"{key}:models").items() if value != "0"}
        | {trace: json.dumps(entry) for trace, entry in deployment.traces(f"{key}:traces").items()}
        for key, fields in shown.items()
        if fields["trace_count"] != "0"
    }


async def replayed(deployment: Pipeline, worker: Worker, records: int) -> None:
    """All of the log has been read again, and the worker says so, how much it was and why."""

    async def look() -> bool:
        scrape = await worker.metrics()
        assert scrape.total("replay_records") <= records
        return scrape.value("replayed_records_total", reason="state_lost") >= records

    await until(f"{records} records are read again", look)
    starts = [line for line in worker.events("partition_started") if line["why"] == "state_lost"]
    assert sum(line["replay_records"] for line in starts) == records
    assert sum(line["records"] for line in worker.events("replayed")) == records
    series = (await worker.metrics()).series("replay_records")
    assert {one["reason"] for one in series} == {"state_lost"}
    assert (await worker.metrics()).total("replay_records") == 0
    await deployment.wait_closed()


@one_server
async def test_a_replay_changes_no_figure_of_a_full_redis_and_gives_an_empty_one_the_same(
    kafka_broker: Broker, redis_server: RedisServer, tmp_path: Path
) -> None:
    async with pipeline(kafka_broker, redis_server, tmp_path) as deployment:
        (worker,) = await deployment.workers(1)
        records = records_of_today(seed=6)
        await deployment.send(records)
        await assert_ends_right(deployment, records)
        before, merged = figures(deployment), (await worker.metrics()).value("spans_total", outcome="merged")
        deployment.redis.delete("agg:progress")  # with all that it tells of still there
        await replayed(deployment, worker, len(records))
        assert figures(deployment) == before
        assert (await worker.metrics()).value("spans_total", outcome="merged") == merged
        await worker.terminate_within()
        deployment.redis.flushall()
        heir = deployment.worker()
        await heir.listening()
        await replayed(deployment, heir, len(records))
        assert figures(deployment) == before
        await assert_ends_right(deployment, records, repeated=True, lost=True)
