"""Workers of two versions on one topic and one Redis, as docs/upgrade.md promises it."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any, Final

import pytest

from tests.builders import to_protobuf
from tests.e2e.deliveries import known_trace
from tests.e2e.pipeline import Pipeline, pipeline
from tests.e2e.test_whole_path import assert_ends_right, now, one_server, records_of_today
from tests.e2e.versions import BETWEEN, LATER, LATER_FORMAT, format_of, made
from tests.e2e.waiting import until
from tests.e2e.workers import Worker
from tests.kafka_servers import Broker
from tests.redis_servers import RedisServer

OF_0_1_0: Final = Path(__file__).with_name("state_of_0_1_0.json")
"""What a worker of 0.1.0 left in Redis of one session of one trace; of a trace state the bytes are in base64."""

_TODAY: Final[dict[str, str]] = {}


def start(deployment: Pipeline, version: dict[str, str], **settings: str) -> Worker:
    """Start a worker of that version."""
    path = deployment.log_dir / f"worker-{len(deployment.commands)}.log"
    worker = Worker(deployment.environment(**settings) | version, path)
    deployment.commands.append(worker)
    return worker


async def ready(worker: Worker) -> Worker:
    """Wait until it has its partitions."""
    await worker.listening()
    await until(f"{worker.child.name} is ready", worker.is_ready)
    return worker


async def assert_refused(worker: Worker, key: str) -> None:
    """It ends by itself, with a sentence that says of which key and what to do."""
    assert await worker.ended() == 1
    (said,) = {line["error"] for line in worker.events("task_died")}
    assert key in said
    assert "was written by another version of this program, which this one can't read; it stays as it is" in said
    assert "docs/upgrade.md" in said
    assert f"Stopped: {said}" in worker.output


def formats(deployment: Pipeline) -> set[int]:
    """In what formats there are trace states."""
    found = [deployment.redis.get(key) for key in deployment.redis.scan_iter("agg:trace:*", count=1000)]
    return {format_of(state) for state in found if state}


def everything(client: Any) -> dict[bytes, bytes]:
    """Every key and its value, less those that say how far a worker has read."""
    own = (b"agg:progress", b"agg:watermarks")
    return {key: client.dump(key) for key in client.scan_iter(count=1000) if not key.startswith(own)}


def put_state_of_0_1_0(client: Any) -> None:
    for key, value in json.loads(OF_0_1_0.read_text()).items():
        if key.startswith("agg:due:"):
            # A day from now: the time in the file goes by, and then it is closing that meets it.
            client.zadd(key, dict.fromkeys(value, now() + 86_400_000))
        elif key.startswith("agg:trace:"):
            client.hset(key, "s", base64.b64decode(value["s"]))
            client.pexpire(key, 89_000_000)
        else:
            client.hset(key, mapping=value)


@one_server
async def test_what_0_1_0_has_left_is_refused_and_stays_as_it_is(
    kafka_broker: Broker, redis_server: RedisServer, tmp_path: Path
) -> None:
    async with pipeline(kafka_broker, redis_server, tmp_path) as deployment:
        put_state_of_0_1_0(deployment.redis)
        before = everything(deployment.redis)
        # A day before it is due, so that it is the write path that meets it.
        worker = start(deployment, _TODAY, SESSION__IDLE_TIMEOUT_S="86400", INDEX__ENABLED="false")
        await ready(worker)
        await deployment.send_bytes(to_protobuf(known_trace(1, now(), session="a", spans=4)))
        await assert_refused(worker, "agg:trace:{00000000000000000000000000000001}")
        assert everything(deployment.redis) == before
        assert not any((await deployment.committed()).values())


@pytest.mark.heavy
@one_server
async def test_rolling_upgrades_and_a_rollback_in_the_order_of_the_docs(
    kafka_broker: Broker, redis_server: RedisServer, tmp_path: Path
) -> None:
    """From today's to the version that reads the later format, to the one that writes it, and back."""
    between, later = made(BETWEEN, tmp_path / "between"), made(LATER, tmp_path / "later")
    async with pipeline(kafka_broker, redis_server, tmp_path) as deployment:
        running = [await ready(start(deployment, _TODAY)) for _ in range(2)]
        records = records_of_today(seed=31)
        share = len(records) // 6 + 1
        parts = [records[begin : begin + share] for begin in range(0, len(records), share)]
        seen: list[set[int]] = []
        for version in (between, later, between):
            for _ in range(
                2
            ):  # as the chart's Deployment does it: the new one first, and when it is ready an old one ends
                sending = asyncio.create_task(deployment.send(parts.pop(0)))
                running.append(await ready(start(deployment, version)))
                await running.pop(0).terminate_within()
                await sending
            await deployment.wait_committed()
            seen.append(formats(deployment))
        await assert_ends_right(deployment, records, repeated=not kafka_broker.is_apache)
        assert not list(deployment.redis.scan_iter("agg:corrupt:*"))
        assert seen[0] == {LATER_FORMAT - 1}
        assert seen[1] == seen[2] == {LATER_FORMAT - 1, LATER_FORMAT}


@pytest.mark.heavy
@one_server
async def test_a_version_that_cannot_read_a_later_state_gives_its_partitions_up(
    kafka_broker: Broker, redis_server: RedisServer, tmp_path: Path
) -> None:
    later = made(LATER, tmp_path / "later")
    async with pipeline(kafka_broker, redis_server, tmp_path) as deployment:
        workers = [start(deployment, version) for version in (_TODAY, _TODAY, later, later)]
        for worker in workers:
            await ready(worker)
        await deployment.balanced(*workers)
        records = records_of_today(seed=32)
        await deployment.send(records)
        for worker in workers[:2]:
            await assert_refused(worker, "")
        await deployment.balanced(*workers[2:])
        await assert_ends_right(deployment, records, repeated=True)
        assert not list(deployment.redis.scan_iter("agg:corrupt:*"))


@pytest.mark.heavy
@one_server
async def test_a_rollback_to_a_version_that_cannot_read_the_state_commits_nothing(
    kafka_broker: Broker, redis_server: RedisServer, tmp_path: Path
) -> None:
    later = made(LATER, tmp_path / "later")
    async with pipeline(kafka_broker, redis_server, tmp_path) as deployment:
        # Without indexing, which writes a while after the rest.
        patient = {"SESSION__IDLE_TIMEOUT_S": "60", "INDEX__ENABLED": "false"}
        first = await ready(start(deployment, later, **patient))
        await deployment.send_bytes(to_protobuf(known_trace(1, now(), session="a", spans=2)))
        await deployment.wait_committed()
        await first.terminate_within()
        before, committed = everything(deployment.redis), await deployment.committed()

        back = start(deployment, _TODAY, **patient)
        await ready(back)
        await deployment.send_bytes(to_protobuf(known_trace(1, now(), session="a", spans=3)))
        await assert_refused(back, "the state of trace 00000000000000000000000000000001, in format 5 instead of 4")
        assert everything(deployment.redis) == before
        assert await deployment.committed() == committed
        assert deployment.applied() == sum(committed.values())

        await ready(start(deployment, later, SESSION__IDLE_TIMEOUT_S="2"))
        await deployment.wait_closed()
        (summary,) = await deployment.read(deployment.summary_topic)
        assert json.loads(summary.value)["span_count"] == 3
