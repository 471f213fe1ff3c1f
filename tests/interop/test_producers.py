"""Each producer as it is, through Collector, Kafka and worker: Redis and the summaries show what the APIs charged."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from tests.e2e.comparing import last_summaries
from tests.e2e.deliveries import PARTITIONS
from tests.e2e.pipeline import Pipeline, pipeline
from tests.interop import captured
from tests.interop.catalogue import Producer, each_producer
from tests.interop.collector import Collector
from tests.interop.comparing import (
    Seen,
    assert_same,
    expected,
    flagged_traces,
    in_redis,
    in_summary,
    suspected_traces,
)
from tests.interop.results import Row
from tests.interop.running import Truth, run
from tests.interop.stubs import prices
from tests.kafka_servers import Broker
from tests.redis_servers import RedisServer, assert_every_key_lives_or_expires, redis_servers_available

# The first run of a group installs its packages.
pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]


@pytest.mark.parametrize("redis_server", sorted(redis_servers_available())[:1], indirect=True)
@each_producer(held_to_the_bill=True)
async def test_sessions_are_what_the_apis_charged(
    producer: Producer,
    kafka_broker: Broker,
    redis_server: RedisServer,
    tmp_path: Path,
    rows: list[Row],
    recapture: bool,
) -> None:
    async with pipeline(kafka_broker, redis_server, tmp_path) as deployment:
        truth, _ = await asyncio.gather(
            _produced(producer, deployment, tmp_path),
            deployment.workers(1, PRICING__ENABLED="true", PRICING__FILE=str(prices.FILE)),
        )
        records = await _records(deployment)
        await deployment.wait_closed()
        summaries = last_summaries(await deployment.read(deployment.summary_topic))
        if recapture:
            captured.keep(producer, truth, records)
        summarised = {(one["project"], one["session_id"]): in_summary(one) for one in summaries.values()}
        assert_same(summarised, expected(producer, truth))
        assert_same(_live(deployment), expected(producer, truth))
        assert flagged_traces(summaries.values()) == suspected_traces(producer)
        assert_every_key_lives_or_expires(deployment.redis, indexed=True, settled=True)
        messages = [TracesData.FromString(record) for record in records]
        rows.append(Row.of(producer, truth, messages, list(summaries.values())))


async def _produced(producer: Producer, deployment: Pipeline, scratch: Path) -> Truth:
    async with Collector(deployment.broker.bootstrap_servers, deployment.topic, scratch) as collector:
        truth = await run(
            producer,
            http_endpoint=collector.http_endpoint,
            grpc_endpoint=collector.grpc_endpoint,
            scratch=scratch,
        )
        await collector.flushed()
        return truth


async def _records(deployment: Pipeline) -> list[bytes]:
    """All that the Collector has written; tells the deployment how much there is to wait for."""
    found = await deployment.read(deployment.topic, partitions=PARTITIONS)
    for record in found:
        deployment.ends[record.partition] = max(deployment.ends[record.partition], record.offset + 1)
    assert found, "the producer has exported nothing"
    return [record.value for record in found]


def _live(deployment: Pipeline) -> dict[tuple[str, str], Seen]:
    found = {}
    for key in deployment.session_keys():
        session: dict[str, Any] = deployment.hash(key)
        found[session["project"], session["session_id"]] = in_redis(session, deployment.hash(f"{key}:models"))
    return found
