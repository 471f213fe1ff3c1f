"""One deployment of a test: topics of its own, a Redis, and the workers between them."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Protocol, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import ConsumerRecord

from tests.e2e.deliveries import PARTITIONS, Delivery
from tests.e2e.waiting import until
from tests.e2e.workers import Command, Worker
from tests.kafka_servers import Broker
from tests.redis_servers import Cluster, RedisServer

IDLE_S: Final = 2.0
_COMPRESSIONS: Final = ("gzip", "gzip", None, "snappy", "lz4", "zstd")

C = TypeVar("C", bound=Command)


class Place(Protocol):
    """Where the state is kept, as tests see it."""

    @property
    def url(self) -> str:
        """Where workers find it."""

    def client(self) -> Any:
        """A plain client, for tests to look with."""


class Pipeline:
    """What a test needs to run workers and to look at what they do; made by `pipeline`."""

    def __init__(self, broker: Broker, place: Place, topic: str, log_dir: Path) -> None:
        self.broker = broker
        self.place = place
        self.topic = topic
        self.log_dir = log_dir
        self.redis: Any = place.client()
        self.sent: dict[tuple[int, int], Delivery] = {}
        self.commands: list[Command] = []
        self.ends: Counter[int] = Counter()

    @property
    def summary_topic(self) -> str:
        return f"{self.topic}-summaries"

    @property
    def dead_letter_topic(self) -> str:
        return f"{self.topic}-rejects"

    def environment(self, **settings: str) -> dict[str, str]:
        """The variables of a worker; `settings` are more of them, as in `SESSION__IDLE_TIMEOUT_S="3"`."""
        own = {
            "KAFKA__BOOTSTRAP_SERVERS": self.broker.bootstrap_servers,
            "KAFKA__TOPICS": self.topic,
            "KAFKA__GROUP_ID": f"{self.topic}-group",
            "KAFKA__SUMMARY_TOPIC": self.summary_topic,
            "KAFKA__DEAD_LETTER_TOPIC": self.dead_letter_topic,
            "KAFKA__SESSION_TIMEOUT_MS": "10000",  # one that is thrown out on a busy machine publishes twice
            "REDIS__URL": self.place.url,
            "REDIS__CLUSTER": str(isinstance(self.place, Cluster)).lower(),
            "REDIS__TIMEOUT_S": "1",
            "SESSION__IDLE_TIMEOUT_S": f"{IDLE_S:g}",
            "SESSION__ALLOWED_SKEW_S": "0.5",
            "PRICING__ENABLED": "false",
            # So small that a few hundred records are many batches, and something can happen between them.
            "INGEST__MAX_BATCH_RECORDS": "4",
        }
        return {f"AGGREGATOR_{name}": value for name, value in (own | settings).items()}

    # --- processes -------------------------------------------------------------------------------------------------

    def worker(self, **settings: str) -> Worker:
        """Start a worker and look no further."""
        return self._kept(Worker(self.environment(**settings), self.log_dir / f"worker-{len(self.commands)}.log"))

    def command(self, *arguments: str, **settings: str) -> Command:
        """Start another command with the environment of a worker."""
        path = self.log_dir / f"{arguments[0]}-{len(self.commands)}.log"
        return self._kept(Command(arguments, self.environment(**settings), path))

    def _kept(self, command: C) -> C:
        self.commands.append(command)
        return command

    async def workers(self, count: int, *, beside: Sequence[Worker] = (), **settings: str) -> list[Worker]:
        """Start workers, and wait until each of them and of those `beside` them has its share of the partitions."""
        started = [self.worker(**settings) for _ in range(count)]
        for worker in started:
            await worker.listening()
            await until(f"{worker.child.name} is ready", worker.is_ready)
        await self.balanced(*beside, *started)
        return started

    async def balanced(self, *workers: Worker) -> None:
        """Wait until these workers share the partitions evenly."""

        async def look() -> bool:
            scrapes = [await worker.metrics() for worker in workers]
            return all(len(scrape.series("consumer_lag_records")) == PARTITIONS // len(workers) for scrape in scrapes)

        await until(f"{len(workers)} workers share the partitions", look)

    # --- in --------------------------------------------------------------------------------------------------------

    async def send(self, records: Iterable[Delivery]) -> None:
        """Append to the input topic, in all of Kafka's compressions; notes where each record went."""
        async with AsyncExitStack() as stack:
            producers: list[AIOKafkaProducer] = [
                await stack.enter_async_context(self.broker.producer(compression_type=compression, linger_ms=5))
                for compression in _COMPRESSIONS
            ]
            waiting = []
            for number, record in enumerate(records):
                producer = producers[number % len(producers)]
                key = None if record.value is not None else b"k"  # a client takes no record of neither
                append = await producer.send(self.topic, record.value, key=key, partition=record.partition)
                waiting.append((record, append))
            for record, append in waiting:
                place = await append
                self.sent[place.partition, place.offset] = record
                self.ends[place.partition] = max(self.ends[place.partition], place.offset + 1)

    async def send_bytes(self, *values: bytes) -> None:
        """Append records that the oracle is not asked about."""
        async with self.broker.producer() as producer:
            for sent in [await producer.send(self.topic, value) for value in values]:
                place = await sent
                self.ends[place.partition] = max(self.ends[place.partition], place.offset + 1)

    # --- how far it has come ---------------------------------------------------------------------------------------

    async def committed(self) -> dict[int, int]:
        """The group's committed offsets by partition, from Kafka."""
        asker = AIOKafkaConsumer(bootstrap_servers=self.broker.bootstrap_servers, group_id=f"{self.topic}-group")
        await asker.start()  # without topics it does not join the group
        try:
            found = {number: await asker.committed(TopicPartition(self.topic, number)) for number in range(PARTITIONS)}
        finally:
            await asker.stop()
        return {number: offset for number, offset in found.items() if offset is not None}

    def progress(self) -> dict[int, int]:
        """How far `agg:progress` says that partitions are applied."""
        found = self.redis.hgetall("agg:progress")
        return {int(name.decode().rsplit("/", 1)[1]): int(offset) for name, offset in found.items()}

    def applied(self) -> int:
        """How many records are applied."""
        return sum(self.progress().values())

    async def wait_applied(self, records: int) -> None:
        """Wait until that many records are applied."""

        async def look() -> bool:
            return self.applied() >= records

        await until(f"{records} records are applied", look)

    async def wait_committed(self) -> None:
        """Wait until everything that was sent is applied and committed."""

        async def look() -> bool:
            if any(self.progress().get(partition, 0) < end for partition, end in self.ends.items()):
                return False
            committed = await self.committed()
            return all(committed.get(partition) == end for partition, end in self.ends.items())

        await until(f"the offsets {dict(self.ends)} are committed", look)

    async def wait_closed(self) -> None:
        """Wait until everything is applied and no session is left to close."""
        await self.wait_committed()

        async def look() -> bool:
            return not list(self.redis.scan_iter(match="agg:due:*", count=1000))

        await until("no session is left to close", look)

    # --- out -------------------------------------------------------------------------------------------------------

    async def read(self, topic: str, *, partitions: int = 1) -> list[ConsumerRecord]:
        """All records of a topic, from its beginning to its end."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.broker.bootstrap_servers, auto_offset_reset="earliest")
        await consumer.start()
        try:
            assigned = [TopicPartition(topic, number) for number in range(partitions)]
            consumer.assign(assigned)
            ends = await consumer.end_offsets(assigned)
            found: list[ConsumerRecord] = []

            async def look() -> bool:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found.extend(records)
                return all([await consumer.position(partition) >= ends[partition] for partition in assigned])

            await until(f"{topic} is read up to {list(ends.values())}", look)
            return found
        finally:
            await consumer.stop()

    def hash(self, key: str) -> dict[str, str]:
        """A hash of Redis without its private fields."""
        stored = self.redis.hgetall(key)
        return {name.decode(): value.decode() for name, value in stored.items() if not name.startswith(b"_")}

    def traces(self, key: str) -> dict[str, dict[str, Any]]:
        """The public part of a session's `:traces`; a trace that has moved away leaves nothing public."""
        entries = {name: json.loads(value) for name, value in self.hash(key).items()}
        shown = {
            trace: {name: value for name, value in entry.items() if not name.startswith("_")}
            for trace, entry in entries.items()
        }
        return {trace: entry for trace, entry in shown.items() if entry}

    def session_keys(self) -> set[str]:
        """The keys of all session hashes."""
        found = {key.decode() for key in self.redis.scan_iter(match="agg:session:*", count=1000)}
        return {key for key in found if key.endswith("}")}


@asynccontextmanager
async def pipeline(
    broker: Broker,
    place: RedisServer | Cluster,
    log_dir: Path,
    *,
    partitions: int = PARTITIONS,
    config: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[Pipeline]:
    """Make the topics; at the end stop every process and print what they logged, which pytest shows after failures."""
    topic = await broker.create_topic(name=f"spans-{uuid.uuid4().hex[:12]}", partitions=partitions, config=config)
    made = Pipeline(broker, place, topic, log_dir)
    for output in (made.summary_topic, made.dead_letter_topic):
        await broker.create_topic(name=output)
    try:
        yield made
    finally:
        await asyncio.gather(*(command.terminate() for command in made.commands))
        made.redis.close()
        for command in made.commands:
            print(f"--- {command.child.name}, exit code {command.child.exit_code()}\n{command.child.log_tail(60)}")
