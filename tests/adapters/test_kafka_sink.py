"""Summaries and dead letters on a real broker: what they look like, and what happens to those it refuses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from aggregator.adapters.kafka.producer import Message, Producer
from aggregator.adapters.kafka.sink import KafkaDeadLetters, KafkaSummarySink
from aggregator.core.errors import BrokerUnavailable, FatalError, SummaryTooLarge
from aggregator.core.model import SessionRef
from aggregator.embedded.broker import EmbeddedBroker
from aggregator.embedded.process import LOCALHOST, free_port
from aggregator.ports import InputRecord
from tests.kafka_servers import Broker

REFUSED_ABOVE = "2000"


@dataclass(frozen=True, kw_only=True)
class Record:
    """An input record."""

    topic: str = "spans"
    partition: int = 3
    offset: int = 42
    timestamp: int = 1_700_000_000_123
    key: bytes | None = b"\xffkey"
    value: bytes | None = b"\x00not a span"
    headers: Sequence[tuple[str, bytes]] = field(default=(("a", b"1"), ("a", b"2"), ("none", b"")))


@asynccontextmanager
async def producing(bootstrap_servers: str, **arguments: Any) -> AsyncIterator[Producer]:
    producer = Producer(bootstrap_servers, **arguments)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.close()


async def read(bootstrap_servers: str, topic: str, count: int, partitions: int = 1) -> list[InputRecord]:
    """The first records of the topic, in order of partition and offset; fails if there are more."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, number) for number in range(partitions)])
        records: list[InputRecord] = []
        async with asyncio.timeout(10):
            while len(records) < count:
                for batch in (await consumer.getmany(timeout_ms=200)).values():
                    records += batch
        for batch in (await consumer.getmany(timeout_ms=200)).values():
            records += batch
        assert len(records) == count
        return sorted(records, key=lambda record: (record.partition, record.offset))
    finally:
        await consumer.stop()


@pytest.mark.parametrize("compression", [None, "gzip", "snappy", "lz4", "zstd"])
async def test_summaries_carry_key_and_headers(kafka_broker: Broker, compression: str | None) -> None:
    topic = await kafka_broker.create_topic("summaries", partitions=4)
    refs = [SessionRef("demo project", f"s/{number % 20}") for number in range(60)]
    async with producing(kafka_broker.bootstrap_servers, compression=compression) as producer:
        assert producer.idempotent is kafka_broker.is_apache
        sink = KafkaSummarySink(producer, topic)
        await sink.publish([(ref, json.dumps({"n": n}).encode()) for n, ref in enumerate(refs)])
        await sink.publish([])
    records = await read(kafka_broker.bootstrap_servers, topic, 60, partitions=4)
    assert {tuple(record.headers) for record in records} == {
        (("content-type", b"application/json"), ("schema", b"session-summary/1"))
    }
    seen: dict[bytes | None, list[tuple[int, int]]] = {}
    for record in records:
        seen.setdefault(record.key, []).append((record.partition, json.loads(record.value or b"")["n"]))
    assert set(seen) == {f"demo%20project/s%2F{number}".encode() for number in range(20)}
    for number in range(20):
        of_one = seen[f"demo%20project/s%2F{number}".encode()]
        assert len({partition for partition, _ in of_one}) == 1
        assert [n for _, n in of_one] == [number, number + 20, number + 40]


async def test_a_dead_letter_is_the_record_and_says_why_and_whence(kafka_broker: Broker) -> None:
    topic = await kafka_broker.create_topic("dead")
    async with producing(kafka_broker.bootstrap_servers) as producer:
        dead_letters = KafkaDeadLetters(producer, topic)
        await dead_letters.send(Record(), reason="undecodable", detail="wire type 7 at byte 0 – ü", partial=False)
        await dead_letters.send(Record(key=None), reason="bad_trace_id", detail="2 spans", partial=True)
        await dead_letters.send(Record(value=None), reason="other", detail="", partial=False)
        await dead_letters.send(Record(key=None, value=None, headers=()), reason="other", detail="", partial=False)
    whole, partial, no_value, nothing = await read(kafka_broker.bootstrap_servers, topic, 4)
    assert (whole.key, whole.value) == (b"\xffkey", b"\x00not a span")
    assert list(whole.headers) == [
        ("a", b"1"),
        ("a", b"2"),
        ("none", b""),
        ("dead-letter-reason", b"undecodable"),
        ("dead-letter-detail", "wire type 7 at byte 0 – ü".encode()),
        ("source-topic", b"spans"),
        ("source-partition", b"3"),
        ("source-offset", b"42"),
        ("source-timestamp", b"1700000000123"),
    ]
    assert (partial.key, partial.value) == (None, b"\x00not a span")
    assert partial.headers[-1] == ("partial", b"true")
    assert dict(partial.headers)["dead-letter-reason"] == b"bad_trace_id"
    assert (no_value.key, no_value.value) == (b"\xffkey", None)
    assert (nothing.key, nothing.value, nothing.headers[-1]) == (None, b"", ("value-null", b"true"))


async def test_a_null_header_of_a_record_survives(apache_kafka: Broker) -> None:
    source, topic = await apache_kafka.create_topic(), await apache_kafka.create_topic("dead")
    async with apache_kafka.producer() as plain:
        await plain.send_and_wait(source, b"v", headers=[("null", None)])
    (record,) = await read(apache_kafka.bootstrap_servers, source, 1)
    null_header: Any = ("null", None)  # which the types don't allow for
    assert list(record.headers) == [null_header]
    async with producing(apache_kafka.bootstrap_servers) as producer:
        await KafkaDeadLetters(producer, topic).send(record, reason="other", detail="", partial=False)
    (letter,) = await read(apache_kafka.bootstrap_servers, topic, 1)
    assert letter.headers[0] == null_header


async def test_a_large_dead_letter_comes_through_where_the_topic_takes_it(apache_kafka: Broker) -> None:
    topic = await apache_kafka.create_topic("dead", config={"max.message.bytes": "8000000"})
    async with producing(apache_kafka.bootstrap_servers) as producer:
        await KafkaDeadLetters(producer, topic).send(
            Record(value=bytes(7_000_000)), reason="undecodable", detail="", partial=False
        )
    (letter,) = await read(apache_kafka.bootstrap_servers, topic, 1)
    assert letter.value == bytes(7_000_000)


async def test_a_dead_letter_that_is_refused_loses_its_value_and_blocks_nothing(apache_kafka: Broker) -> None:
    topic = await apache_kafka.create_topic("dead", config={"max.message.bytes": REFUSED_ABOVE})
    async with producing(apache_kafka.bootstrap_servers) as producer:
        dead_letters = KafkaDeadLetters(producer, topic)
        await dead_letters.send(Record(offset=1), reason="other", detail="", partial=False)
        await dead_letters.send(Record(offset=2, value=bytes(5_000)), reason="other", detail="", partial=False)
        await dead_letters.send(Record(offset=3, key=bytes(5_000)), reason="other", detail="", partial=False)
        await dead_letters.send(Record(offset=4), reason="other", detail="", partial=False)
        with pytest.raises(FatalError, match=r"AGGREGATOR_KAFKA__DEAD_LETTER_TOPIC.*max\.message\.bytes"):
            await dead_letters.send(Record(offset=5), reason="other", detail="x" * 5_000, partial=False)
    letters = await read(apache_kafka.bootstrap_servers, topic, 4)
    assert [dict(letter.headers)["source-offset"] for letter in letters] == [b"1", b"2", b"3", b"4"]
    assert [letter.value for letter in letters] == [b"\x00not a span", b"", b"", b"\x00not a span"]
    assert dict(letters[1].headers)["value-omitted"] == b"5000"
    assert letters[1].key == b"\xffkey"
    assert (letters[2].key, dict(letters[2].headers)["record-omitted"]) == (None, b"true")
    assert "a" not in dict(letters[2].headers)


async def test_a_summary_that_is_refused_is_named_and_the_others_are_sent(apache_kafka: Broker) -> None:
    topic = await apache_kafka.create_topic("summaries", config={"max.message.bytes": REFUSED_ABOVE})
    small = [(SessionRef("p", f"s-{number}"), b"%d" % number * 100) for number in range(40)]
    large = (SessionRef("p", "large"), bytes(4_000))
    async with producing(apache_kafka.bootstrap_servers) as producer:
        sink = KafkaSummarySink(producer, topic)
        with pytest.raises(SummaryTooLarge, match=r"p/large.*max\.message\.bytes") as caught:
            await sink.publish([*small[:20], large, *small[20:]])
        assert caught.value.refs == [large[0]]
        again = SessionRef("p", "again")
        await sink.publish([(again, b"the producer still works")])
    records = await read(apache_kafka.bootstrap_servers, topic, 41)
    assert {record.key for record in records} == {f"p/{ref.session_id}".encode() for ref, _ in [*small, (again, b"")]}


async def test_two_users_of_one_producer_outlive_a_refusal(apache_kafka: Broker) -> None:
    topic = await apache_kafka.create_topic("dead", config={"max.message.bytes": REFUSED_ABOVE})
    async with producing(apache_kafka.bootstrap_servers) as producer:
        results = await asyncio.gather(
            *(producer.send([Message(topic, None, bytes(4_000 if number % 3 else 10), ())]) for number in range(12))
        )
    assert results == [[0] if number % 3 else [] for number in range(12)]
    await read(apache_kafka.bootstrap_servers, topic, 4)


async def test_nothing_acknowledged_in_time_is_transient() -> None:
    async with (
        EmbeddedBroker(topics={"t": 1}) as broker,
        producing(broker.bootstrap_servers, delivery_timeout_s=5) as producer,
    ):
        assert not producer.idempotent, "the embedded broker has no producer ids"
        assert await producer.send([Message("t", b"k", b"v", ())]) == []
        await broker.stop()
        with pytest.raises(BrokerUnavailable):
            await producer.send([Message("t", b"k", b"v", ())])


async def test_an_idempotent_producer_gives_up_waiting_too(apache_kafka: Broker) -> None:
    async with producing(apache_kafka.bootstrap_servers, delivery_timeout_s=5) as producer:
        with pytest.raises(BrokerUnavailable):
            await producer.send([Message("no-such-topic", b"k", b"v", ())])


async def test_an_unreachable_broker_is_transient() -> None:
    producer = Producer(f"{LOCALHOST}:{free_port()}")
    with pytest.raises(BrokerUnavailable, match=LOCALHOST):
        await producer.start()
    with pytest.raises(BrokerUnavailable, match="not started"):
        await producer.send([Message("t", b"k", b"v", ())])
    await producer.close()


async def test_what_is_larger_than_any_request_is_refused_and_blocks_nothing(apache_kafka: Broker) -> None:
    topic, dead = await apache_kafka.create_topic("summaries"), await apache_kafka.create_topic("dead")
    huge = bytes(101 * 1024 * 1024)
    async with producing(apache_kafka.bootstrap_servers) as producer:
        with pytest.raises(SummaryTooLarge, match="p/large"):
            await KafkaSummarySink(producer, topic).publish(
                [(SessionRef("p", "large"), huge), (SessionRef("p", "small"), b"{}")]
            )
        await KafkaDeadLetters(producer, dead).send(Record(value=huge), reason="other", detail="", partial=False)
    (kept,) = await read(apache_kafka.bootstrap_servers, topic, 1)
    assert kept.key == b"p/small"
    (letter,) = await read(apache_kafka.bootstrap_servers, dead, 1)
    assert dict(letter.headers)["value-omitted"] == str(len(huge)).encode()
