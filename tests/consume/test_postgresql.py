"""The consumer of docs/consume.md on a real Kafka and a real PostgreSQL: whatever happens, the table ends right."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CommitFailedError
from psycopg.rows import dict_row

from aggregator.embedded.process import ChildProcess
from aggregator.summary import Summary
from tests.consume.consumers.to_postgresql import TABLE, latest
from tests.consume.documents import Published, last, topic
from tests.e2e.waiting import until
from tests.kafka_servers import Broker
from tests.postgresql_server import PostgreSQL

PARTITIONS: Final = 3
GROUP: Final = "sessions-to-postgresql"
SESSIONS: Final = 400
COLUMNS: Final = (
    "opened_at", "revision", "started_at", "ended_at", "user_id", "trace_count", "error_count", "cost_usd",
)  # fmt: skip
PROGRAM: Final = """
import asyncio, sys
from tests.consume.consumers.to_postgresql import consume
asyncio.run(consume(*sys.argv[1:], session_timeout_ms=6000, heartbeat_interval_ms=300))
"""
"""With a session time-out that does not make each test wait long for the group to notice a dead member."""


class Deployment:
    """A topic with summaries, an empty database, and the consumer between them as a process."""

    def __init__(self, broker: Broker, name: str, database: PostgreSQL, directory: Path) -> None:
        self.broker, self.name, self.database, self._directory = broker, name, database, directory
        self.records: list[Published] = []

    async def send(self, records: Sequence[Published]) -> None:
        self.records += records
        async with self.broker.producer() as producer:
            for key, value in records:
                await producer.send(self.name, value, key=key)
            await producer.flush()

    @asynccontextmanager
    async def consumer(self) -> AsyncIterator[ChildProcess]:
        """It is killed at the end, wherever it stands."""
        arguments = [sys.executable, "-c", PROGRAM, self.broker.bootstrap_servers, self.name, self.database.url]
        process = ChildProcess("the consumer", arguments, log_path=self._directory / "consumer.log")
        try:
            yield process
        finally:
            if process.exit_code() is None:
                os.kill(process.pid, signal.SIGKILL)
            await process.stop()

    async def committed(self) -> int:
        """How many records the group has committed."""
        async with self._asking() as asker:
            return sum([await asker.committed(partition) or 0 for partition in self._partitions()])

    async def wait_committed(self, process: ChildProcess) -> None:
        async def look() -> bool:
            assert process.exit_code() is None, process.log_end()
            return await self.committed() == len(self.records)

        await until("all records are committed", look)

    async def wait_rows(self, number: int) -> None:
        async def look() -> bool:
            return len(self.rows()) >= number

        await until(f"the table has {number} rows", look)

    async def forget(self) -> None:
        """Let the group begin at the beginning, once it has no member any more."""
        async with self._asking() as asker:
            asker.assign(self._partitions())

            async def look() -> bool:
                try:
                    await asker.commit(dict.fromkeys(self._partitions(), 0))
                except CommitFailedError:
                    return False
                return True

            await until("the group begins at the beginning", look)

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[AIOKafkaConsumer]:
        # Without topics it does not join the group.
        async with AIOKafkaConsumer(bootstrap_servers=self.broker.bootstrap_servers, group_id=GROUP) as asker:
            yield asker

    def _partitions(self) -> list[TopicPartition]:
        return [TopicPartition(self.name, number) for number in range(PARTITIONS)]

    def rows(self) -> list[dict[str, Any]]:
        """The table."""
        with psycopg.connect(self.database.url, row_factory=dict_row) as connection:
            connection.execute(TABLE)
            return connection.execute("SELECT * FROM sessions").fetchall()

    def assert_table_is_right(self) -> None:
        rows = self.rows()
        wanted = {key: without_nul(document) for key, document in last(self.records).items()}
        assert {(row["project"], row["session_id"]): row["summary"] for row in rows} == wanted
        for row in rows:
            summary = Summary.model_validate_json(json.dumps(row["summary"]))
            assert [row[name] for name in COLUMNS] == [getattr(summary, name) for name in COLUMNS]
            assert row["total_tokens"] == summary.tokens.total


def without_nul(value: Any) -> Any:
    """PostgreSQL's texts can't hold it."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, list):
        return [without_nul(one) for one in value]
    return {without_nul(name): without_nul(one) for name, one in value.items()} if isinstance(value, dict) else value


@pytest.fixture
async def deployment(kafka_broker: Broker, postgresql: PostgreSQL, tmp_path: Path) -> Deployment:
    name = await kafka_broker.create_topic("summaries", partitions=PARTITIONS)
    return Deployment(kafka_broker, name, postgresql, tmp_path)


@pytest.mark.parametrize("seed", range(20))
def test_latest_is_what_counts_however_the_topic_is_cut(seed: int) -> None:
    records = topic(sessions=8, seed=seed)
    values = [record.value for record in records]
    cut = random.Random(seed).randrange(len(values))
    parts = [one.model_dump_json().encode() for part in (values[:cut], values[cut:]) for one in latest(part)]
    for kept in (latest(values), latest(parts)):
        assert {(one.project, one.session_id): json.loads(one.model_dump_json()) for one in kept} == last(records)
        assert [(one.project, one.session_id) for one in kept] == sorted(last(records))


async def test_killed_again_and_again_the_table_ends_as_the_last_summaries(deployment: Deployment) -> None:
    await deployment.send(topic(sessions=SESSIONS, seed=1))
    for share in (0.05, 0.5):
        async with deployment.consumer():
            await deployment.wait_rows(round(share * SESSIONS))
    async with deployment.consumer() as consumer:
        await deployment.wait_committed(consumer)
    deployment.assert_table_is_right()


@pytest.mark.usefixtures("apache_kafka")  # the embedded broker moves offsets only for members
async def test_read_again_from_the_beginning_the_table_stays_as_it_is(deployment: Deployment) -> None:
    await deployment.send(topic(sessions=SESSIONS, seed=2))
    for again in (False, True):
        if again:
            await deployment.forget()
        async with deployment.consumer() as consumer:
            await deployment.wait_committed(consumer)
        deployment.assert_table_is_right()


async def test_what_has_been_erased_goes_from_the_table(deployment: Deployment) -> None:
    """Of two sessions whose summaries are there, and of one whose summary comes with its erasure; one comes back."""
    first = topic(sessions=30, seed=5)
    kept = sorted(last(first))
    names = {key: next(one.key for one in first if json.loads(one.value)["session_id"] == key[1]) for key in kept}
    async with deployment.consumer() as consumer:
        await deployment.send(first)
        await deployment.wait_committed(consumer)
        async with deployment.broker.producer() as producer:
            for key in kept[:2]:
                await producer.send_and_wait(deployment.name, None, key=names[key])
        again = [one for one in first if one.key == names[kept[1]]]
        await deployment.send(again)

        async def look() -> bool:
            return await deployment.committed() == len(first) + 2 + len(again)

        await until("all records are committed", look)
    found = {(row["project"], row["session_id"]) for row in deployment.rows()}
    assert found == set(kept[1:])


async def test_what_the_table_has_not_is_not_committed(deployment: Deployment) -> None:
    """The consumer waits for a locked table, and is killed; later PostgreSQL is away, and the consumer ends."""
    await deployment.send(topic(sessions=30, seed=2))
    deployment.rows()
    with psycopg.connect(deployment.database.url) as connection, connection.cursor() as cursor:
        cursor.execute("LOCK TABLE sessions IN EXCLUSIVE MODE")
        waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'sessions'::regclass"

        async def look() -> bool:
            return cursor.execute(waiting).fetchone() is not None

        async with deployment.consumer():
            await until("the consumer waits for the table", look)
            assert await deployment.committed() == 0
    async with deployment.consumer() as consumer:
        await deployment.wait_committed(consumer)
        deployment.database.stop()
        await deployment.send(topic(sessions=30, seed=3))

        async def ended() -> bool:
            return consumer.exit_code() is not None

        await until("the consumer ends", ended)
        deployment.database.start()
        assert consumer.exit_code() == 1
    async with deployment.consumer() as consumer:
        await deployment.wait_committed(consumer)
    deployment.assert_table_is_right()
