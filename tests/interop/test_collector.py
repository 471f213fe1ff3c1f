"""What goes through the Collector, configured as we recommend, comes out as the oracle says, in every variation.

Spans of the property tests' workloads go over OTLP/HTTP into the real Collector, over real Kafka to a worker process.
"""

from __future__ import annotations

import io
import random
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import aiohttp
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from tests.builders import joined
from tests.e2e.comparing import assert_equals_oracle
from tests.e2e.deliveries import PARTITIONS, known_trace, todays_spans
from tests.e2e.pipeline import Pipeline, pipeline
from tests.e2e.waiting import until
from tests.interop.collector import Collector
from tests.kafka_servers import Broker
from tests.redis_servers import RedisServer, redis_servers_available

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

one_server = pytest.mark.parametrize("redis_server", sorted(redis_servers_available())[:1], indirect=True)

COMPRESSIONS: Final = ("none", "gzip", "snappy", "lz4", "zstd")
NOWHERE: Final = "127.0.0.1:1"
KAFKA: Final = "exporters::kafka::"
WITH_BATCH_PROCESSOR: Final = Path(__file__).with_name("collector_batch_processor.yaml")


def now() -> int:
    return round(time.time() * 1000)


def requests_of_today(*, seed: int, workloads: int = 30) -> list[TracesData]:
    """What exporters send: spans of many traces in pieces, some of them twice."""
    dice = random.Random(seed)
    spans = todays_spans(workloads, now())
    spans += dice.sample(spans, len(spans) // 5)
    dice.shuffle(spans)
    made: list[TracesData] = []
    while spans:
        size = dice.choice((1, 2, 5, 20))
        made.append(joined(spans[:size]))
        del spans[:size]
    return made


async def post(collector: Collector, message: TracesData) -> int:
    """Export once; returns the status of the answer."""
    url, headers = f"{collector.http_endpoint}/v1/traces", {"Content-Type": "application/x-protobuf"}
    body = io.BytesIO(message.SerializeToString())
    async with aiohttp.ClientSession() as http, http.post(url, data=body, headers=headers) as answer:
        return answer.status


async def export(collector: Collector, messages: Sequence[TracesData]) -> list[TracesData]:
    """Export all as an SDK does, which tries again while nobody answers; returns those that were taken."""
    taken = []
    for message in messages:

        async def look(message: TracesData = message) -> int:
            try:
                status = await post(collector, message)
            except aiohttp.ClientError:
                return 0
            return 0 if status == 503 else status

        status = await until("the Collector answers", look)
        assert status in (200, 400)
        # The Collector refuses requests with ids of a wrong length; such spans exist on Kafka only where others write.
        assert (status == 400) == _has_ids_of_wrong_length(message)
        if status == 200:
            taken.append(message)
    return taken


def _has_ids_of_wrong_length(message: TracesData) -> bool:
    spans = [span for one in message.resource_spans for scope in one.scope_spans for span in scope.spans]
    return any(
        len(span.trace_id) not in (0, 16) or len(span.span_id) not in (0, 8) or len(span.parent_span_id) not in (0, 8)
        for span in spans
    )


async def arrived(deployment: Pipeline) -> int:
    """Let the deployment expect all records that are on its topic now; returns how many there are."""
    consumer = AIOKafkaConsumer(bootstrap_servers=deployment.broker.bootstrap_servers)
    await consumer.start()
    try:
        partitions = [TopicPartition(deployment.topic, number) for number in range(PARTITIONS)]
        ends = await consumer.end_offsets(partitions)
    finally:
        await consumer.stop()
    deployment.ends.update({partition.partition: end for partition, end in ends.items()})
    return sum(ends.values())


async def assert_ends_right(deployment: Pipeline, collector: Collector, taken: list[TracesData]) -> None:
    await collector.flushed()
    assert await arrived(deployment)
    await deployment.wait_closed()
    await assert_equals_oracle(deployment, taken, now())


@one_server
@pytest.mark.parametrize("keyed", [False, True], ids=["unkeyed", "keyed"])
@pytest.mark.parametrize("encoding", ["otlp_proto", "otlp_json"])
async def test_every_compression_carries_what_the_oracle_says(
    encoding: str, keyed: bool, apache_kafka: Broker, redis_server: RedisServer, tmp_path: Path
) -> None:
    taken: list[TracesData] = []
    messages = requests_of_today(seed=1)
    async with pipeline(apache_kafka, redis_server, tmp_path) as deployment:
        await deployment.workers(1)
        for number, compression in enumerate(COMPRESSIONS):
            settings = {
                f"{KAFKA}traces::encoding": encoding,
                f"{KAFKA}partition_traces_by_id": str(keyed).lower(),
                f"{KAFKA}producer::compression": compression,
            }
            async with Collector(apache_kafka.bootstrap_servers, deployment.topic, tmp_path, settings=settings) as one:
                taken += await export(one, messages[number :: len(COMPRESSIONS)])
                await one.flushed()
                assert await one.metric("kafka_exporter_records", compression_codec=compression) > 0
        await arrived(deployment)
        await deployment.wait_closed()
        await assert_equals_oracle(deployment, taken, now())
        records = await deployment.read(deployment.topic, partitions=PARTITIONS)
        assert {record.key is not None for record in records} == {keyed}
        assert {record.value.startswith(b"{") for record in records} == {encoding == "otlp_json"}


@one_server
async def test_a_batch_processor_in_front_makes_no_difference(
    apache_kafka: Broker, redis_server: RedisServer, tmp_path: Path
) -> None:
    async with pipeline(apache_kafka, redis_server, tmp_path) as deployment:
        await deployment.workers(1)
        bootstrap_servers, topic = apache_kafka.bootstrap_servers, deployment.topic
        async with Collector(bootstrap_servers, topic, tmp_path, overlay=WITH_BATCH_PROCESSOR) as collector:
            taken = await export(collector, requests_of_today(seed=2))
            # Stopped in order it gives away what it holds; while it runs nobody can tell how much that is.
            await collector.terminate()
            await collector.start_again()
            await assert_ends_right(deployment, collector, taken)


@one_server
async def test_what_a_killed_collector_had_accepted_is_sent_by_its_heir(
    apache_kafka: Broker, redis_server: RedisServer, tmp_path: Path
) -> None:
    async with pipeline(apache_kafka, redis_server, tmp_path) as deployment:
        await deployment.workers(1)
        async with Collector(NOWHERE, deployment.topic, tmp_path) as collector:  # Kafka is away
            taken = await export(collector, requests_of_today(seed=3))
            await collector.kill()
        assert await arrived(deployment) == 0
        async with Collector(apache_kafka.bootstrap_servers, deployment.topic, tmp_path) as heir:
            await assert_ends_right(deployment, heir, taken)


@one_server
async def test_a_collector_that_is_killed_while_it_sends_changes_nothing(
    apache_kafka: Broker, redis_server: RedisServer, tmp_path: Path
) -> None:
    # Without a pause for batches, so that some are on their way to Kafka at any moment.
    settings = {f"{KAFKA}sending_queue::batch::flush_timeout": "1ms"}
    messages = requests_of_today(seed=4)
    async with pipeline(apache_kafka, redis_server, tmp_path) as deployment:
        await deployment.workers(1)
        bootstrap_servers, topic = apache_kafka.bootstrap_servers, deployment.topic
        async with Collector(bootstrap_servers, topic, tmp_path, settings=settings) as collector:
            taken: list[TracesData] = []
            third = len(messages) // 3
            for part in (messages[:third], messages[third : 2 * third], messages[2 * third :]):
                taken += await export(collector, part)
                await collector.kill()
                await collector.start_again()
            await assert_ends_right(deployment, collector, taken)


def large(number: int, *, spans: int, bytes_each: int) -> TracesData:
    """A trace whose LLM spans have prompts of that size, which do not compress."""
    message = known_trace(number, now() - 60_000, session="s-large", spans=spans)
    dice = random.Random(number)
    for span in message.resource_spans[0].scope_spans[0].spans[1:]:
        span.attributes.add(key="input.value").value.string_value = dice.randbytes(bytes_each // 2).hex()
    return message


@one_server
@pytest.mark.parametrize(
    ("encoding", "batch_max_bytes"), [("otlp_proto", "900000"), ("otlp_json", "400000")], ids=["proto", "json"]
)
async def test_an_export_larger_than_a_record_may_be_is_split(
    encoding: str, batch_max_bytes: str, apache_kafka: Broker, redis_server: RedisServer, tmp_path: Path
) -> None:
    settings = {f"{KAFKA}traces::encoding": encoding}
    variables = {"KAFKA_BATCH_MAX_BYTES": batch_max_bytes}
    async with pipeline(apache_kafka, redis_server, tmp_path) as deployment:
        await deployment.workers(1)
        bootstrap_servers, topic = apache_kafka.bootstrap_servers, deployment.topic
        async with Collector(bootstrap_servers, topic, tmp_path, settings=settings, variables=variables) as collector:
            taken = await export(collector, [large(1, spans=300, bytes_each=20_000)])
            await assert_ends_right(deployment, collector, taken)
            assert await collector.metric("exporter_send_failed_spans") == 0
            assert await arrived(deployment) > 6


@one_server
async def test_a_span_that_is_too_large_is_lost_alone_and_raising_the_limits_lets_it_through(
    apache_kafka: Broker, redis_server: RedisServer, tmp_path: Path
) -> None:
    raised = {"KAFKA_BATCH_MAX_BYTES": "4000000", "KAFKA_MAX_MESSAGE_BYTES": "4100000"}
    small, too_large = large(1, spans=5, bytes_each=1000), large(2, spans=2, bytes_each=2_000_000)
    config = {"max.message.bytes": "4200000"}
    async with pipeline(apache_kafka, redis_server, tmp_path, config=config) as deployment:
        await deployment.workers(1)
        async with Collector(apache_kafka.bootstrap_servers, deployment.topic, tmp_path) as collector:
            await export(collector, [joined([small, too_large])])
            await collector.flushed()
            assert await collector.metric("exporter_sent_spans") == 6  # with the root of the second trace
            assert "single span exceeds the max size limit" in collector.child.log_tail(200)
        async with Collector(apache_kafka.bootstrap_servers, deployment.topic, tmp_path, variables=raised) as collector:
            taken = await export(collector, [too_large])
            await assert_ends_right(deployment, collector, [small, *taken])


async def test_a_full_queue_tells_senders_to_try_again(tmp_path: Path) -> None:
    settings = {f"{KAFKA}sending_queue::queue_size": "300000", f"{KAFKA}sending_queue::batch::min_size": "1000"}
    async with Collector(NOWHERE, "anywhere", tmp_path, settings=settings) as collector:
        messages = [large(number, spans=5, bytes_each=20_000) for number in range(1, 5)]
        assert [await post(collector, message) for message in messages] == [200, 200, 200, 503]


async def test_a_topic_that_is_missing_is_waited_for(apache_kafka: Broker, tmp_path: Path) -> None:
    topic = f"late-{uuid.uuid4().hex[:12]}"
    brokers = f"{NOWHERE},{apache_kafka.bootstrap_servers}"  # one of the two can't be reached
    async with Collector(brokers, topic, tmp_path) as collector:
        assert await post(collector, known_trace(1, now(), session="s-early", spans=3)) == 200

        async def refused() -> bool:
            return "UNKNOWN_TOPIC_OR_PARTITION" in collector.child.log_tail(200)

        await until("Kafka has refused it", refused)
        await apache_kafka.create_topic(name=topic)
        await collector.flushed()
        assert await collector.metric("exporter_sent_spans") == 3
