"""The source on a real broker: records, heads, positions, rebalances, resets and what goes wrong at start."""

from __future__ import annotations

import asyncio
import gzip
import operator
import os
import signal
import struct
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import RecordsToDelete
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBase, _DefaultRecordBatchBuilderPy
from aiokafka.record.util import calc_crc32c
from structlog.testing import capture_logs

from aggregator.adapters.kafka import source
from aggregator.adapters.kafka.consumer import SourceOptions
from aggregator.adapters.kafka.source import KafkaSource, OffsetReset
from aggregator.adapters.kafka.unreadable import unpack
from aggregator.core.conventions import Conventions
from aggregator.core.decode import decode
from aggregator.core.errors import (
    BrokerUnavailable,
    ConfigurationError,
    FatalError,
    StoreUnavailable,
    UndecodableRecord,
)
from aggregator.core.model import Partition
from aggregator.embedded.broker import EmbeddedBroker
from aggregator.embedded.process import LOCALHOST, free_port
from aggregator.ports import InputRecord
from tests.adapters.batches import CODECS, append, compressed
from tests.kafka_servers import Broker


class Listener:
    """Notes what it is told; the two hooks run inside the calls."""

    def __init__(self) -> None:
        self.told: list[tuple[str, list[Partition]]] = []
        self.when_assigned: Callable[[Sequence[Partition]], Awaitable[None]] | None = None
        self.when_revoked: Callable[[Sequence[Partition]], Awaitable[None]] | None = None

    async def on_assigned(self, partitions: Sequence[Partition]) -> None:
        self.told.append(("assigned", list(partitions)))
        if self.when_assigned:
            await self.when_assigned(partitions)

    async def on_revoked(self, partitions: Sequence[Partition]) -> None:
        self.told.append(("revoked", list(partitions)))
        if self.when_revoked:
            await self.when_revoked(partitions)


class Reader:
    """A started source with its listener and what it reported."""

    def __init__(self, broker: Broker, **options: Any) -> None:
        self.listener = Listener()
        self.resets: list[OffsetReset] = []
        defaults: dict[str, Any] = {
            "group_id": f"g-{uuid.uuid4().hex[:8]}",
            "session_timeout_ms": 6_000,
            "metadata_max_age_ms": 500,
            "fetch_wait_ms": 100,
        }
        self.options = SourceOptions(bootstrap_servers=broker.bootstrap_servers, **(defaults | options))
        self.source = KafkaSource(self.options, self.listener, on_reset=self.resets.append)

    async def until(self, done: Callable[[], object], *, seconds: float = 20) -> list[InputRecord]:
        """Fetch until `done`, and return what came."""
        came: list[InputRecord] = []
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, (self.listener.told, self.source.positions(), self.source.heads())
            fetched = await self.source.fetch(max_records=100, timeout_s=0.1)
            for partition, records in fetched.records.items():
                assert {(record.topic, record.partition) for record in records} == {partition}
                came += records
        return came

    async def read(self, count: int, *, seconds: float = 20) -> list[InputRecord]:
        """Fetch until that many records have come."""
        came: list[InputRecord] = []
        deadline = time.monotonic() + seconds
        while len(came) < count:
            assert time.monotonic() < deadline, (len(came), self.listener.told, self.source.positions())
            fetched = await self.source.fetch(max_records=100, timeout_s=0.1)
            for records in fetched.records.values():
                came += records
        assert len(came) == count
        return came

    async def joined(self) -> None:
        """Fetch until there is an assignment."""
        await self.until(self.source.assigned)


@asynccontextmanager
async def reading(broker: Broker, **options: Any) -> AsyncIterator[Reader]:
    reader = Reader(broker, **options)
    await reader.source.start()
    try:
        yield reader
    finally:
        await reader.source.close()


async def produce(broker: Broker, topic: str, *values: bytes, partition: int = 0, **settings: Any) -> None:
    async with broker.producer(**settings) as producer:
        for sent in [await producer.send(topic, value, partition=partition) for value in values]:
            await sent


def values(records: Sequence[InputRecord]) -> list[bytes | None]:
    return [record.value for record in records]


async def test_records_come_in_order_with_all_they_carry(kafka_broker: Broker) -> None:
    topic = await kafka_broker.create_topic(partitions=2)
    async with kafka_broker.producer() as producer:
        await producer.send_and_wait(topic, b"v", key=b"k", partition=1, timestamp_ms=1234, headers=[("h", b"1")])
        await producer.send_and_wait(topic, None, key=b"only a key", partition=1)
        await producer.send_and_wait(topic, b"", partition=1)
    async with reading(kafka_broker, topics=[topic]) as reader:
        first, second, third = await reader.read(3)
        assert (first.key, first.value, first.timestamp, list(first.headers)) == (b"k", b"v", 1234, [("h", b"1")])
        assert (second.key, second.value, third.key, third.value) == (b"only a key", None, None, b"")
        assert [record.offset for record in (first, second, third)] == [0, 1, 2]
        assert reader.source.assigned() == [(topic, 0), (topic, 1)]
        assert reader.source.positions() == {(topic, 0): 0, (topic, 1): 3}


@pytest.mark.parametrize("compression", [None, "gzip", "snappy", "lz4", "zstd"])
async def test_every_compression_is_read(kafka_broker: Broker, compression: str | None) -> None:
    topic = await kafka_broker.create_topic()
    sent = [f"record {number} ".encode() * 500 for number in range(20)]
    await produce(kafka_broker, topic, *sent, compression_type=compression, linger_ms=20)
    async with reading(kafka_broker, topics=[topic]) as reader:
        assert values(await reader.read(20)) == sent


async def test_a_record_larger_than_a_fetch_comes_through(kafka_broker: Broker) -> None:
    topic = await kafka_broker.create_topic(config={"max.message.bytes": "4000000"})
    large = bytes(3_000_000)
    await produce(kafka_broker, topic, b"before", large, b"after", max_request_size=4_000_000)
    async with reading(kafka_broker, topics=[topic], fetch_max_bytes=100_000, partition_fetch_bytes=50_000) as reader:
        assert values(await reader.read(3)) == [b"before", large, b"after"]


async def test_no_more_than_asked_for_is_handed_out(kafka_broker: Broker) -> None:
    topic = await kafka_broker.create_topic(partitions=2)
    for partition in (0, 1):
        await produce(kafka_broker, topic, *[b"x"] * 30, partition=partition)
    async with reading(kafka_broker, topics=[topic]) as reader:
        left = 60
        while left:
            fetched = await reader.source.fetch(max_records=7, timeout_s=1)
            came = sum(map(len, fetched.records.values()))
            assert came <= 7
            left -= came


async def test_fetch_keeps_its_time(kafka_broker: Broker) -> None:
    topic = await kafka_broker.create_topic()
    async with reading(kafka_broker, topics=[topic]) as reader:
        await reader.joined()
        began = time.monotonic()
        assert (await reader.source.fetch(max_records=10, timeout_s=0.3)).records == {}
        assert 0.25 < time.monotonic() - began < 5


async def test_the_head_of_an_idle_partition_moves_and_that_of_a_paused_one_does_not(kafka_broker: Broker) -> None:
    topic = await kafka_broker.create_topic()
    partition = Partition(topic, 0)
    await produce(kafka_broker, topic, b"a", b"b")
    async with reading(kafka_broker, topics=[topic]) as reader:
        await reader.read(2)
        await reader.until(lambda: partition in reader.source.heads())
        before = reader.source.heads()[partition]
        now_ms = time.time() * 1000
        assert before.end_offset == 2
        assert now_ms - 2_000 < before.polled_ms <= now_ms
        await reader.until(lambda: reader.source.heads()[partition].polled_ms > before.polled_ms + 500)
        assert reader.source.heads()[partition].end_offset == reader.source.positions()[partition] == 2

        reader.source.pause()
        await reader.source.fetch(max_records=1, timeout_s=3)  # the answer under way still counts
        at_pause = reader.source.heads()[partition]
        await produce(kafka_broker, topic, b"c")
        assert (await reader.source.fetch(max_records=1, timeout_s=1)).records == {}
        assert reader.source.heads()[partition] == at_pause
        reader.source.resume()
        assert values(await reader.read(1)) == [b"c"]
        await reader.until(lambda: reader.source.heads()[partition].polled_ms > at_pause.polled_ms)
        assert reader.source.heads()[partition].end_offset == 3


async def test_an_answer_that_lay_unread_does_not_move_time(
    kafka_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "_PROMPT_ANSWER_MS", 3_000)
    topic = await kafka_broker.create_topic()
    partition = Partition(topic, 0)
    async with reading(kafka_broker, topics=[topic], fetch_wait_ms=600, session_timeout_ms=30_000) as reader:
        await reader.until(lambda: partition in reader.source.heads())
        await asyncio.sleep(0.3)  # the next request is with the broker now
        before = reader.source.heads()[partition]
        time.sleep(5)  # noqa: ASYNC251 - stands for a process that is suspended
        suspended_until_ms = time.time() * 1000
        seen: list[int] = []
        while not seen or seen[-1] == before.polled_ms:
            await reader.source.fetch(max_records=1, timeout_s=0.05)
            seen.append(reader.source.heads()[partition].polled_ms)
        assert seen[0] == before.polled_ms
        assert seen[-1] > suspended_until_ms + 400, "only the answer to a request made afterwards is believed"


async def test_positions_pass_transaction_markers_and_aborted_records(apache_kafka: Broker) -> None:
    topic = await apache_kafka.create_topic()
    partition = Partition(topic, 0)
    async with apache_kafka.producer(transactional_id=topic) as producer:
        async with producer.transaction():
            await producer.send_and_wait(topic, b"kept", partition=0)
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"aborted", partition=0)
        await producer.abort_transaction()
        await produce(apache_kafka, topic, b"plain")
        async with reading(apache_kafka, topics=[topic]) as reader:
            assert values(await reader.read(2)) == [b"kept", b"plain"]
            await reader.until(lambda: reader.source.positions()[partition] == 5)
            assert reader.source.heads()[partition].end_offset == 5

            await producer.begin_transaction()
            await producer.send_and_wait(topic, b"open", partition=0)
            await reader.until(lambda: reader.source.heads()[partition].end_offset == 6)
            assert reader.source.positions()[partition] == 5, "time must not move past what can't be read yet"
            assert await reader.source.end_offsets([partition]) == {partition: 5}
            await producer.commit_transaction()
            assert values(await reader.read(1)) == [b"open"]
            await reader.until(lambda: reader.source.positions()[partition] == 7)
            assert reader.source.heads()[partition].end_offset == 7


async def test_positions_pass_what_compaction_removed(apache_kafka: Broker) -> None:
    topic = await apache_kafka.create_topic(
        config={
            "cleanup.policy": "compact",
            "min.cleanable.dirty.ratio": "0.001",
            "segment.ms": "100",
            "min.compaction.lag.ms": "0",
        }
    )
    partition = Partition(topic, 0)
    async with apache_kafka.producer() as producer:
        for number in range(20):
            await producer.send_and_wait(topic, b"%d" % number, key=b"same", partition=0)
        deadline = time.monotonic() + 30
        while True:  # each new record rolls a segment that may then be compacted
            await asyncio.sleep(0.3)
            await producer.send_and_wait(topic, b"last", key=b"other", partition=0)
            async with reading(apache_kafka, topics=[topic]) as reader:
                await reader.until(lambda r=reader: r.source.positions().get(partition, 0) > 20)  # type: ignore[misc]
                await reader.source.commit({partition: 0})
                reader.source.seek(partition, 0)
                head = reader.source.heads()[partition].end_offset
                came = await reader.until(lambda r=reader, h=head: r.source.positions().get(partition) == h)  # type: ignore[misc]
                if len(came) < 20:
                    assert b"19" in values(came)
                    break
            assert time.monotonic() < deadline, "never compacted"


async def test_a_seek_at_assignment_is_where_reading_starts(kafka_broker: Broker) -> None:
    topic = await kafka_broker.create_topic()
    partition = Partition(topic, 0)
    await produce(kafka_broker, topic, *[b"%d" % number for number in range(10)])
    reader = Reader(kafka_broker, topics=[topic])

    async def seek(partitions: Sequence[Partition]) -> None:
        assert reader.source.assigned() == []
        assert not reader.source.positions()
        assert not reader.source.heads()
        assert await reader.source.committed(partitions) == {}
        assert await reader.source.beginning_offsets(partitions) == {partition: 0}
        await asyncio.sleep(0.3)  # enough to fetch from the committed offset, were that handed out
        reader.source.seek(partition, 7)

    reader.listener.when_assigned = seek
    await reader.source.start()
    try:
        assert values(await reader.read(3)) == [b"7", b"8", b"9"]
        reader.source.seek(partition, 2)
        assert reader.source.positions() == {partition: 2}
        assert values(await reader.read(8)) == [b"%d" % number for number in range(2, 10)]
    finally:
        await reader.source.close()


async def test_offsets_are_committed_and_gone_on_from(kafka_broker: Broker) -> None:
    topic = await kafka_broker.create_topic(partitions=2)
    partitions = [Partition(topic, 0), Partition(topic, 1)]
    await produce(kafka_broker, topic, b"a", b"b", b"c")
    async with reading(kafka_broker, topics=[topic]) as reader:
        await reader.read(3)
        await reader.source.commit({partitions[0]: 2})
        assert await reader.source.committed(partitions) == {partitions[0]: 2}
        await reader.source.commit({})
    async with reading(kafka_broker, topics=[topic], group_id=reader.options.group_id) as reader:
        assert values(await reader.read(1)) == [b"c"]


async def test_the_log_tells_where_it_begins_and_ends(apache_kafka: Broker) -> None:
    topic = await apache_kafka.create_topic(partitions=2)
    partitions = [Partition(topic, 0), Partition(topic, 1)]
    await produce(apache_kafka, topic, b"a", b"b", b"c")
    async with apache_kafka.admin() as admin:
        await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=2)})
    async with reading(apache_kafka, topics=[topic]) as reader:
        assert await reader.source.beginning_offsets(partitions) == {partitions[0]: 2, partitions[1]: 0}
        assert await reader.source.end_offsets(partitions) == {partitions[0]: 3, partitions[1]: 0}


async def test_work_in_flight_is_committed_before_partitions_move(kafka_broker: Broker) -> None:
    topic = await kafka_broker.create_topic(partitions=4)
    for partition in range(4):
        await produce(kafka_broker, topic, *[b"x"] * 5, partition=partition)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(reading(kafka_broker, topics=[topic]))
        await first.read(20)
        in_flight = first.source.positions()

        async def finish(partitions: Sequence[Partition]) -> None:
            assert first.source.assigned() == []
            await asyncio.sleep(1)  # the work
            await first.source.commit(in_flight)

        first.listener.when_revoked = finish
        going_on = asyncio.create_task(first.until(lambda: len(first.source.assigned()) == 2))
        second = await stack.enter_async_context(reading(kafka_broker, topics=[topic], group_id=first.options.group_id))
        assert await second.until(lambda: len(second.source.assigned()) == 2) == []
        assert await going_on == [], "committed work came again"
        everything = sorted(in_flight)
        assert first.listener.told[0] == ("assigned", everything)
        assert first.listener.told[1] == ("revoked", everything)
        assert sorted([*first.source.assigned(), *second.source.assigned()]) == everything
        assert await second.source.committed(everything) == in_flight
        await first.source.commit(in_flight)  # two of them are not ours: passed over, and no error
        assert await first.source.fetch(max_records=10, timeout_s=0.5) == ({},)
        assert await second.source.fetch(max_records=10, timeout_s=0.5) == ({},)


async def test_fetch_comes_back_in_time_during_a_rebalance(kafka_broker: Broker) -> None:
    topic = await kafka_broker.create_topic(partitions=2)
    async with reading(kafka_broker, topics=[topic]) as first:
        await first.joined()
        may_go_on = asyncio.Event()

        async def wait_for_the_reader(partitions: Sequence[Partition]) -> None:
            await may_go_on.wait()

        first.listener.when_revoked = wait_for_the_reader
        async with reading(kafka_broker, topics=[topic], group_id=first.options.group_id):
            await first.until(lambda: first.listener.told[-1][0] == "revoked")
            await produce(kafka_broker, topic, b"arrives meanwhile")
            for _ in range(3):
                began = time.monotonic()
                assert (await first.source.fetch(max_records=10, timeout_s=0.3)).records == {}
                assert time.monotonic() - began < 5
            may_go_on.set()
            await first.joined()


async def test_a_rebalance_while_paused_stays_paused(kafka_broker: Broker) -> None:
    topic = await kafka_broker.create_topic(partitions=2)
    async with reading(kafka_broker, topics=[topic]) as first:
        await first.joined()
        first.source.pause()
        async with reading(kafka_broker, topics=[topic], group_id=first.options.group_id) as second:
            going_on = asyncio.create_task(first.until(lambda: len(first.source.assigned()) == 1))
            await second.until(lambda: len(second.source.assigned()) == 1)
            await going_on
            (mine,) = first.source.assigned()
            await produce(kafka_broker, topic, b"x", partition=mine.number)
            assert (await first.source.fetch(max_records=10, timeout_s=1)).records == {}
            first.source.resume()
            assert values(await first.read(1)) == [b"x"]


async def test_a_paused_member_stays_in_the_group(kafka_broker: Broker) -> None:
    topic = await kafka_broker.create_topic()
    async with reading(kafka_broker, topics=[topic], session_timeout_ms=6_000) as reader:
        await reader.joined()
        reader.source.pause()
        until = time.monotonic() + 8
        while time.monotonic() < until:
            await reader.source.fetch(max_records=1, timeout_s=1)
        assert [what for what, _ in reader.listener.told] == ["assigned"]
        await reader.source.commit({Partition(topic, 0): 0})
        assert await reader.source.committed([Partition(topic, 0)]) == {Partition(topic, 0): 0}


async def test_a_member_that_was_thrown_out_commits_nothing_and_comes_back(apache_kafka: Broker) -> None:
    topic = await apache_kafka.create_topic()
    partition = Partition(topic, 0)
    await produce(apache_kafka, topic, b"a")
    async with reading(apache_kafka, topics=[topic], session_timeout_ms=3_000) as reader:
        await reader.read(1)
        time.sleep(6)  # noqa: ASYNC251 - no heartbeat goes out
        await reader.source.commit({partition: 1})
        assert await reader.source.committed([partition]) == {}
        assert values(await reader.read(1)) == [b"a"], "what was not committed comes again"
        assert [what for what, _ in reader.listener.told] == ["assigned", "revoked", "assigned"]
        await reader.source.commit({partition: 1})
        assert await reader.source.committed([partition]) == {partition: 1}


async def test_what_the_listener_raises_comes_out_of_fetch(kafka_broker: Broker) -> None:
    topic = await kafka_broker.create_topic()
    await produce(kafka_broker, topic, b"a")
    reader = Reader(kafka_broker, topics=[topic])
    failures: list[Exception] = [StoreUnavailable("away"), StoreUnavailable("still away")]

    async def fail(partitions: Sequence[Partition]) -> None:
        if failures:
            raise failures.pop(0)

    reader.listener.when_assigned = fail
    await reader.source.start()
    try:
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await reader.joined()
            assert reader.source.assigned() == []
        assert values(await reader.read(1)) == [b"a"]

        async def stop(partitions: Sequence[Partition]) -> None:
            raise FatalError("no use")

        reader.listener.when_revoked = stop
        async with reading(kafka_broker, topics=[topic], group_id=reader.options.group_id) as second:
            joining = asyncio.create_task(second.until(lambda: second.listener.told))
            with pytest.raises(FatalError, match="no use"):
                await reader.until(lambda: False)
            await reader.until(lambda: reader.listener.told[-1][0] == "assigned")
            await joining
    finally:
        await reader.source.close()


async def test_a_group_that_deals_otherwise_is_a_wrong_setting(apache_kafka: Broker) -> None:
    topic = await apache_kafka.create_topic()
    other = AIOKafkaConsumer(
        topic,
        bootstrap_servers=apache_kafka.bootstrap_servers,
        group_id=topic,
        partition_assignment_strategy=(RangePartitionAssignor,),
    )
    await other.start()
    try:
        async with reading(apache_kafka, topics=[topic], group_id=topic) as reader:
            with pytest.raises(ConfigurationError, match="AGGREGATOR_KAFKA__GROUP_ID"):
                await reader.joined()
    finally:
        await other.stop()


@pytest.mark.parametrize("task", ["_fetcher._fetch_task", "_coordinator._coordination_task"])
async def test_a_task_of_aiokafka_that_died_ends_the_worker(kafka_broker: Broker, task: str) -> None:
    topic = await kafka_broker.create_topic()
    async with reading(kafka_broker, topics=[topic], ask_timeout_s=2) as reader:
        await reader.joined()
        assert reader.source._started
        operator.attrgetter(f"_consumer.{task}")(reader.source._started).cancel()
        with pytest.raises(FatalError, match="restart the worker"):
            await reader.until(lambda: False)


async def test_a_fetch_that_waits_to_be_tried_again_is_no_cancellation_of_ours(kafka_broker: Broker) -> None:
    """As after a broker has refused it: aiokafka cancels it at the end, and lets that out of its `stop`."""
    topic = await kafka_broker.create_topic()
    async with reading(kafka_broker, topics=[topic]) as reader:
        await reader.joined()
        started = reader.source._started
        assert started
        waiting = asyncio.create_task(asyncio.sleep(60))
        started._consumer._fetcher._pending_tasks.add(waiting)
        await reader.source.close()
        assert waiting.cancelled()
        assert not any(one.connected() for one in started._consumer._client._conns.values())


async def test_new_partitions_are_noticed(kafka_broker: Broker) -> None:
    topic = await kafka_broker.create_topic()
    async with reading(kafka_broker, topics=[topic]) as reader:
        await reader.joined()
        assert await reader.source.input_partitions() == [(topic, 0)]
        if not kafka_broker.is_apache:
            return  # the embedded broker's topics don't grow
        await kafka_broker.add_partitions(topic, 3)
        await reader.until(lambda: len(reader.source.assigned()) == 3)
        assert await reader.source.input_partitions() == [(topic, 0), (topic, 1), (topic, 2)]
        await produce(kafka_broker, topic, b"new", partition=2)
        assert values(await reader.read(1)) == [b"new"]


async def test_a_pattern_takes_topics_that_come_later(apache_kafka: Broker) -> None:
    prefix = f"many-{uuid.uuid4().hex[:8]}"
    first = await apache_kafka.create_topic(name=f"{prefix}-a")
    async with reading(apache_kafka, pattern=f"{prefix}-.*") as reader:
        await reader.joined()
        assert await reader.source.input_partitions() == [(first, 0)]
        second = await apache_kafka.create_topic(name=f"{prefix}-b")
        await reader.until(lambda: len(reader.source.assigned()) == 2)
        assert await reader.source.input_partitions() == [(first, 0), (second, 0)]
        assert ("revoked", [(first, 0)]) in reader.listener.told
        await produce(apache_kafka, second, b"x")
        assert values(await reader.read(1)) == [b"x"]


async def test_a_topic_made_again_is_read_from_its_beginning_and_reported(apache_kafka: Broker) -> None:
    topic = await apache_kafka.create_topic()
    partition = Partition(topic, 0)
    await produce(apache_kafka, topic, *[b"old"] * 5)
    # Metadata so rarely that the deletion itself goes unnoticed.
    async with reading(apache_kafka, topics=[topic], metadata_max_age_ms=60_000) as reader:
        await reader.read(5)
        reader.source.pause()
        await reader.source.fetch(max_records=1, timeout_s=0.5)
        await apache_kafka.delete_topic(topic)
        await apache_kafka.create_topic(name=topic)
        await produce(apache_kafka, topic, b"new")
        reader.source.resume()
        assert values(await reader.read(1)) == [b"new"]
        assert reader.resets == [OffsetReset(partition, 5, 0, 1)]
        assert reader.resets[0].recreated


async def test_a_topic_may_be_away_for_a_while(apache_kafka: Broker) -> None:
    topic = await apache_kafka.create_topic()
    await produce(apache_kafka, topic, b"old")
    async with reading(apache_kafka, topics=[topic]) as reader:
        await reader.read(1)
        await apache_kafka.delete_topic(topic)
        await reader.until(lambda: reader.listener.told[-1] == ("assigned", []))
        with pytest.raises(BrokerUnavailable, match=topic):
            await reader.source.input_partitions()
        await apache_kafka.create_topic(name=topic)
        await produce(apache_kafka, topic, b"new")
        assert values(await reader.read(1)) == [b"new"]


async def test_records_that_expired_unread_are_reported(apache_kafka: Broker) -> None:
    topic = await apache_kafka.create_topic()
    partition = Partition(topic, 0)
    await produce(apache_kafka, topic, *[b"%d" % number for number in range(6)])
    async with reading(apache_kafka, topics=[topic]) as reader:
        await reader.joined()
        await reader.source.commit({partition: 1})
    async with apache_kafka.admin() as admin:
        await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=4)})
    async with reading(apache_kafka, topics=[topic], group_id=reader.options.group_id) as reader:
        assert values(await reader.read(2)) == [b"4", b"5"]
        assert reader.resets == [OffsetReset(partition, 1, 4, 6)]
        assert not reader.resets[0].recreated


async def test_brokers_that_do_not_answer_do_not_move_time(apache_kafka: Broker) -> None:
    topic = await apache_kafka.create_topic()
    partition = Partition(topic, 0)
    async with reading(apache_kafka, topics=[topic], ask_timeout_s=1, session_timeout_ms=30_000) as reader:
        await reader.until(lambda: partition in reader.source.heads())
        os.kill(apache_kafka.pid, signal.SIGSTOP)
        try:
            await reader.source.fetch(max_records=1, timeout_s=0.3)  # an answer may have been on its way
            before = reader.source.heads()
            began = time.monotonic()
            assert (await reader.source.fetch(max_records=1, timeout_s=1.5)).records == {}
            assert time.monotonic() - began < 10
            assert reader.source.heads() == before
            for question in (reader.source.commit({partition: 0}), reader.source.committed([partition])):
                with pytest.raises(BrokerUnavailable):
                    await question
        finally:
            os.kill(apache_kafka.pid, signal.SIGCONT)
        await produce(apache_kafka, topic, b"a")
        assert values(await reader.read(1)) == [b"a"]
        await reader.until(lambda: partition in reader.source.heads() and reader.source.heads() != before)


def test_it_runs_on_uvloop(kafka_broker: Broker) -> None:
    async def read() -> list[bytes | None]:
        assert isinstance(asyncio.get_running_loop(), uvloop.Loop)
        topic = await kafka_broker.create_topic()
        await produce(kafka_broker, topic, b"a", b"b")
        async with reading(kafka_broker, topics=[topic]) as reader:
            came = values(await reader.read(2))
            await reader.source.commit({Partition(topic, 0): 2})
            return came

    with ThreadPoolExecutor(1) as pool:  # pytest keeps a loop of another kind in this thread
        assert pool.submit(uvloop.run, read()).result() == [b"a", b"b"]


async def test_a_cluster_that_creates_topics_is_given_time_to() -> None:
    async with EmbeddedBroker() as broker:
        options = SourceOptions(
            bootstrap_servers=broker.bootstrap_servers, group_id="g", topics=["made-by-asking"], ask_timeout_s=1
        )
        asking = KafkaSource(options, Listener())
        await asking.start()
        try:
            assert {partition.topic for partition in await asking.input_partitions()} == {"made-by-asking"}
        finally:
            with capture_logs() as said:
                await asking.close()  # joining takes five seconds there, and is not waited for
            assert [line["event"] for line in said] == ["group_not_left"]


async def test_a_missing_topic_names_the_setting_and_the_remedy(apache_kafka: Broker) -> None:
    existing = await apache_kafka.create_topic("aaa")
    missing = Reader(apache_kafka, topics=[existing, "not-there"], topic_wait_s=0.3)
    with pytest.raises(ConfigurationError, match=rf"AGGREGATOR_KAFKA__TOPICS.*'not-there'.*create it.*{existing}"):
        await missing.source.start()
    unmatched = Reader(apache_kafka, pattern="nothing-like-this", topic_wait_s=0.3)
    with pytest.raises(ConfigurationError, match=r"AGGREGATOR_KAFKA__TOPIC_PATTERN.*nothing-like-this"):
        await unmatched.source.start()


async def test_an_unreachable_broker_is_transient() -> None:
    address = f"{LOCALHOST}:{free_port()}"
    options = SourceOptions(bootstrap_servers=address, group_id="g", topics=["t"])
    lonely = KafkaSource(options, Listener())
    with pytest.raises(BrokerUnavailable, match=address):
        await lonely.start()
    with pytest.raises(BrokerUnavailable):
        await lonely.fetch(max_records=1, timeout_s=0)
    await lonely.close()


def test_topics_or_a_pattern() -> None:
    for wrong in ({}, {"topics": ["t"], "pattern": "t"}):
        with pytest.raises(ValueError, match="either topics or a pattern"):
            SourceOptions(bootstrap_servers="b:1", group_id="g", **wrong)  # type: ignore[arg-type]


async def test_what_was_taken_before_an_answer_that_can_not_be_unpacked_is_read_again(
    kafka_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiokafka has moved on in one partition when the next one's answer fails, and throws its records away."""
    topic = await kafka_broker.create_topic()
    await produce(kafka_broker, topic, b"1", b"2", b"3")
    async with reading(kafka_broker, topics=[topic]) as reader:
        await reader.joined()
        original = AIOKafkaConsumer.getmany

        async def corrupt(consumer: AIOKafkaConsumer, **arguments: Any) -> Any:
            taken = await original(consumer, **arguments)
            if taken:
                monkeypatch.undo()
                raise CorruptRecordException("Invalid CRC")
            return taken

        monkeypatch.setattr(AIOKafkaConsumer, "getmany", corrupt)
        with pytest.raises(BrokerUnavailable, match="Invalid CRC"):
            await reader.until(lambda: False)
        assert [record.value for record in await reader.read(3)] == [b"1", b"2", b"3"]


async def produce_beside_broken(broker: Broker, topic: str, *, compression: str | None) -> None:
    """One batch of three records, the second with a header key that is not UTF-8; brokers and Java take that."""
    async with broker.producer(compression_type=None) as producer:
        batch = producer.create_batch()
        for value in (b"1", b"2", b"3"):
            headers = [("zz", b"v")] if value == b"2" else []
            batch.append(key=b"k", value=value, timestamp=1000, headers=headers)
        batch.close()
        plain = bytearray(bytes(batch._build()).replace(b"zz", b"\xff\xff"))
        if compression == "gzip":
            head = DefaultRecordBase.HEADER_STRUCT.size
            plain = plain[:head] + bytearray(gzip.compress(plain[head:]))
            struct.pack_into(">h", plain, 21, 1)
            struct.pack_into(">i", plain, 8, len(plain) - 12)
        struct.pack_into(">I", plain, 17, calc_crc32c(bytes(plain[21:])))
        batch._buffer = plain
        await (await producer.send_batch(batch, topic, partition=0))


@pytest.mark.parametrize("compression", [None, "gzip"])
async def test_a_record_that_aiokafka_can_not_unpack_is_set_aside_raw(
    apache_kafka: Broker, compression: str | None
) -> None:
    topic = await apache_kafka.create_topic(partitions=2)
    await produce(apache_kafka, topic, b"0")
    await produce(apache_kafka, topic, b"other", partition=1)
    await produce_beside_broken(apache_kafka, topic, compression=compression)
    await produce(apache_kafka, topic, b"4")
    async with reading(apache_kafka, topics=[topic]) as reader:
        came: list[InputRecord] = []
        deadline = time.monotonic() + 20
        while len(came) < 6:
            assert time.monotonic() < deadline, came
            with suppress(BrokerUnavailable):  # the first few times it may be an accident on the way
                fetched = await reader.source.fetch(max_records=100, timeout_s=0.1)
                came += [record for records in fetched.records.values() for record in records]
        by_offset = {record.offset: record for record in came if record.partition == 0}
        assert sorted(by_offset) == [0, 1, 2, 3, 4]
        assert [by_offset[offset].value for offset in (0, 1, 3, 4)] == [b"0", b"1", b"3", b"4"]
        broken = by_offset[2]
        assert broken.value is not None
        assert b"\xff\xff" in broken.value
        assert [name for name, _ in broken.headers] == ["unreadable"]
        with pytest.raises(UndecodableRecord):
            decode(broken.value, log_ms=1, conventions=Conventions(), encoding="auto")
        assert reader.source.positions()[Partition(topic, 0)] == 5


def batch_of(*values: bytes) -> bytearray:
    """A batch as it lies in the log, its first record at offset 7."""
    builder = _DefaultRecordBatchBuilderPy(2, 0, False, -1, -1, 0, 10_000)
    for offset, value in enumerate(values):
        builder.append(offset, 1000, None, value, [])
    data = bytearray(builder.build())
    struct.pack_into(">q", data, 0, 7)
    return data


def test_a_batch_with_a_wrong_checksum_is_set_aside_whole() -> None:
    partition = TopicPartition("t", 0)
    good, bad = batch_of(b"a", b"b"), batch_of(b"c", b"d")
    struct.pack_into(">q", bad, 0, 9)
    bad[-2] ^= 1
    found = unpack(partition, bytes(good + bad + good), 8)
    assert [record.offset for record in found.records] == [8, 9]
    assert [record.value for record in found.records] == [b"b", bytes(bad)]
    assert found.next_offset == 11
    with pytest.raises(CorruptRecordException):
        unpack(partition, b"\x00" * 40, 8)


async def fetched(reader: Reader, count: int) -> tuple[list[InputRecord], list[int]]:
    """That many records, over whatever can't be unpacked at first; and how many came at once."""
    came: list[InputRecord] = []
    sizes: list[int] = []
    deadline = time.monotonic() + 20
    while len(came) < count:
        assert time.monotonic() < deadline, [record.offset for record in came]
        with suppress(BrokerUnavailable):
            answer = await reader.source.fetch(max_records=100, timeout_s=0.1)
            found = [record for records in answer.records.values() for record in records]
            came += found
            sizes += [len(found)] if found else []
    return came, sizes


async def test_batches_that_inflate_are_taken_as_far_as_there_is_room(apache_kafka: Broker) -> None:
    """Each of them fits, five together do not: in order, each once, and no more at a time than may be."""
    topic = await apache_kafka.create_topic(partitions=2)
    inside = [bytes([number]) * 300_000 for number in range(20)]
    batches = [compressed(list(CODECS)[number % 4], value) for number, value in enumerate(inside)]
    await append(apache_kafka, topic, *batches[:10])
    await append(apache_kafka, topic, *batches[10:], partition=1)
    async with reading(apache_kafka, topics=[topic], inflated_bytes=1_300_000) as reader:
        came, sizes = await fetched(reader, 20)
    assert max(sizes) <= 4
    for partition in (0, 1):
        assert [(record.offset, record.value) for record in came if record.partition == partition] == list(
            enumerate(inside[10 * partition : 10 * partition + 10])
        )


@pytest.mark.parametrize("codec", CODECS)
async def test_a_batch_that_inflates_too_far_is_set_aside_raw(apache_kafka: Broker, codec: str) -> None:
    topic = await apache_kafka.create_topic(partitions=2)
    bomb = compressed(codec, b"before", bytes(2_000_000))
    await append(apache_kafka, topic, compressed(codec, b"0"), bomb, compressed(codec, b"3"), bomb)
    await append(apache_kafka, topic, compressed(codec, b"other"), partition=1)
    await produce(apache_kafka, topic, b"6")
    async with reading(apache_kafka, topics=[topic], inflated_bytes=1_000_000) as reader:
        came, _ = await fetched(reader, 6)
        assert reader.source.positions()[Partition(topic, 0)] == 7
    found = {record.offset: record for record in came if record.partition == 0}
    assert sorted(found) == [0, 1, 3, 4, 6]
    assert [found[offset].value for offset in (0, 3, 6)] == [b"0", b"3", b"6"]
    raw = found[1]
    assert raw.value is not None
    assert raw.value[61:] == bomb[61:], "the broker rewrites no more than the head"
    ((name, detail),) = raw.headers
    assert name == "unreadable"
    assert b"batch of offsets 1 to 2 that can't be decompressed" in detail
    assert b"AGGREGATOR_INGEST__MAX_INFLATED_BYTES" in detail
