"""Real servers for the benchmark, as the tests start them, and topics filled beforehand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import redis
from aiokafka import AIOKafkaProducer

from bench.figures import Redis
from bench.spans import Record
from tests.kafka_servers import ApacheKafka, Broker, _server
from tests.redis_servers import RedisServer, redis_servers_available

PARTITIONS: Final = 4
_IN_FLIGHT: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """What a run measures on; `names` says it for the report."""

    broker: Broker
    redis_url: str
    redis: Redis
    redis_pid: int
    names: str


@asynccontextmanager
async def servers() -> AsyncIterator[Servers]:
    """Start a broker and a Redis, the ones that the tests would take on this machine, and end them."""
    kafka, kafka_name = _server()
    name, program = min(redis_servers_available().items())
    async with kafka:
        server = RedisServer(program)
        try:
            assert server.process is not None  # noqa: S101 - it has been started
            with redis.Redis.from_url(server.url, protocol=2, socket_timeout=60) as client:
                info = client.info("server")
                yield Servers(
                    broker=Broker(kafka.address, kafka_name, pid=kafka.pid, is_apache=isinstance(kafka, ApacheKafka)),
                    redis_url=server.url,
                    redis=Redis(client),
                    redis_pid=server.process.pid,
                    names=f"{kafka_name}, {name} {info['valkey_version' if name == 'valkey' else 'redis_version']}",
                )
        finally:
            server.remove()


async def fill(broker: Broker, topic: str, records: Iterable[Record]) -> int:
    """Write records without keys evenly over the partitions of a topic; gives their number."""
    count = 0
    async with broker.producer(linger_ms=5, max_batch_size=1_000_000, max_request_size=4_000_000) as producer:
        waiting: list[asyncio.Future[object]] = []
        for record in records:
            waiting.append(await _send(producer, topic, count % PARTITIONS, record))
            count += 1
            if len(waiting) == _IN_FLIGHT:
                await asyncio.gather(*waiting)
                waiting.clear()
        await asyncio.gather(*waiting)
    return count


async def _send(producer: AIOKafkaProducer, topic: str, partition: int, record: Record) -> asyncio.Future[object]:
    sent: asyncio.Future[object] = await producer.send(
        topic, record.value, partition=partition, timestamp_ms=record.timestamp_ms
    )
    return sent
