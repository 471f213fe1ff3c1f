"""A deployment under fire: workers on seats, each with its own ways to Kafka and Redis, and traffic that drips in."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import threading
import time
import uuid
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, OutOfOrderSequenceNumber, UnknownError
from aiokafka.structs import RecordMetadata
from redis.exceptions import RedisClusterException, RedisError

from tests.e2e.deliveries import PARTITIONS, Delivery
from tests.e2e.pipeline import Pipeline
from tests.e2e.waiting import until
from tests.e2e.workers import Worker
from tests.faults.brokers import Kafka
from tests.faults.stores import Store
from tests.faults.toxiproxy import Proxy

SESSION_TIMEOUT_S: Final = 3.0
_PATIENCE_S: Final = 180.0  # far more than any fault takes; how long one may take is asserted of those done alone
_PRODUCER_PATIENCE_MS: Final = 120_000  # a partition may be offline for a minute
_SLOW_CLOCK_MS: Final = 23 * 3_600_000  # a day, less what spans of the workloads may lie ahead


class _Led(Worker):
    module = "tests.faults.worker"


class Deployment(Pipeline):
    """Made by `deployment`; `seats` are those of its workers on the brokers' listeners and the store's proxies."""

    def __init__(
        self, broker: Kafka, store: Store, topic: str, log_dir: Path, *, seats: Sequence[int], dice: random.Random
    ) -> None:
        super().__init__(broker, store, topic, log_dir)
        self.kafka = broker
        self.store = store
        self.seats = seats
        self.dice = dice
        self.workers_by_seat: dict[int, Worker] = {}
        self.journal: list[str] = []
        self.died: list[str] = []
        self.unhurried = False  # whether one fault has all the time that it can use
        self.odd_clocks = False  # whether producers say that some records were made a day ago or ahead
        self.partitions = PARTITIONS
        self.recovery_s: dict[str, float] = {}
        self._began_s = time.monotonic()
        self._closing = AsyncExitStack()
        self._asker: AIOKafkaConsumer | None = None
        self._asking = threading.Lock()  # a client of a Cluster is not made for two threads at once

    def note(self, what: str) -> None:
        """Write down what was done, with the time since the beginning."""
        self.journal.append(f"{time.monotonic() - self._began_s:6.2f} s  {what}")

    def report(self) -> str:
        """What was done, and the end of what each worker logged."""
        logs = [
            f"--- {command.child.name}, exit code {command.child.exit_code()}\n{command.child.log_tail(200)}"
            for command in self.commands
        ]
        return "\n".join([*self.journal, *logs])

    # --- workers ---------------------------------------------------------------------------------------------------

    def start_worker(self, seat: int, more: Mapping[str, str] = MappingProxyType({}), /, **settings: str) -> Worker:
        """Start one on a free seat and look no further; settings as in `Pipeline.environment`, `more` as they are."""
        own = {
            "KAFKA__SESSION_TIMEOUT_MS": f"{SESSION_TIMEOUT_S * 1000:g}",
            "REDIS__CLUSTER": str(self.store.cluster).lower(),
        }
        ways = {str(way.upstream): way.port for way in self.ways(seat)}
        environment = self.environment(**(own | settings)) | {"FAULTS_WAYS": json.dumps(ways), **more}
        worker = self._kept(_Led(environment, self.log_dir / f"worker-{len(self.commands)}.log"))
        self.workers_by_seat[seat] = worker
        return worker

    async def start_workers(self, count: int, **settings: str) -> None:
        """Start so many and wait until each has a part of the partitions."""
        started = [self.start_worker(seat, **settings) for seat in self.seats[:count]]
        for worker in started:
            await worker.listening()

        async def look() -> bool:
            shares = [len((await worker.metrics()).series("consumer_lag_records")) for worker in started]
            return min(shares) > 0 and sum(shares) == self.partitions

        await until(f"{count} workers share the partitions", look, timeout_s=_PATIENCE_S)

    def seat_in_use(self) -> int:
        """A seat with a worker, by the dice; any, while all workers are dead."""
        return self.dice.choice(sorted(self.workers_by_seat) or list(self.seats))

    def free_seat(self) -> int | None:
        """A seat without a worker, if there is one."""
        return next((seat for seat in self.seats if seat not in self.workers_by_seat), None)

    def signal(self, seat: int, number: signal.Signals) -> None:
        """Send a signal to the worker on that seat."""
        os.kill(self.workers_by_seat[seat].child.pid, number)

    def ways(self, seat: int) -> list[Proxy]:
        """All proxies of the worker on that seat."""
        return [*self.kafka.ways(seat), *self.store.ways(seat)]

    async def heal(self) -> None:
        """Undo whatever is broken on the network, let stopped workers go on, and see that one is left."""
        for seat in self.seats:
            for way in self.ways(seat):
                await way.heal()
        for seat, worker in list(self.workers_by_seat.items()):
            code = worker.child.exit_code()
            if code is None:
                self.signal(seat, signal.SIGCONT)
            else:
                self.died.append(f"the worker on seat {seat} with {code}")
                del self.workers_by_seat[seat]
        if not self.workers_by_seat:
            self.start_worker(self.seats[0])

    # --- traffic ---------------------------------------------------------------------------------------------------

    async def drip(self, records: Sequence[Delivery], seconds: float) -> None:
        """Append records evenly over a time."""
        async with AsyncExitStack() as stack:
            producers: list[AIOKafkaProducer] = [
                await stack.enter_async_context(
                    self.broker.producer(
                        compression_type=compression,
                        linger_ms=5,
                        enable_idempotence=True,
                        request_timeout_ms=_PRODUCER_PATIENCE_MS,
                        metadata_max_age_ms=1000,
                    )
                )
                for compression in (None, "lz4")
            ]
            waiting = []
            for number, record in enumerate(records):
                shift_ms = self.dice.choice((0, 0, -_SLOW_CLOCK_MS, 24 * 3_600_000)) if self.odd_clocks else 0
                # In a task of its own: one that has to wait for its partition must not hold up the others.
                waiting.append(asyncio.create_task(self._append(self.dice.choice(producers), record, shift_ms)))
                if number % 4 == 3:
                    await asyncio.sleep(4 * seconds / len(records))
            await asyncio.gather(*waiting)

    async def _append(self, producer: AIOKafkaProducer, record: Delivery, shift_ms: int) -> None:
        partition = record.partition
        if self.partitions > PARTITIONS and self.dice.random() < 0.5:  # some have been added
            new = self.dice.randrange(PARTITIONS, self.partitions)
            partition = new if new in await producer.partitions_for(self.topic) else partition
        sent: dict[str, Any] = {
            "value": record.value,
            "key": None if record.value is not None else b"k",  # a client takes no record of neither
            "partition": partition,
            "timestamp_ms": round(time.time() * 1000) + shift_ms,
        }
        try:
            place = await (await producer.send(self.topic, **sent))
        except (UnknownError, OutOfOrderSequenceNumber):
            # A broker that ends since its disk is full has not written it, and its producer counts on from there.
            place = await self._append_anew(sent)
        self.sent[place.partition, place.offset] = record
        self.ends[place.partition] = max(self.ends[place.partition], place.offset + 1)

    async def _append_anew(self, sent: Mapping[str, Any]) -> RecordMetadata:
        """By a producer of its own, again and again: the broker may not have ended yet, or not be back."""
        deadline = time.monotonic() + _PRODUCER_PATIENCE_MS / 1000
        while True:
            try:
                async with self.broker.producer(request_timeout_ms=_PRODUCER_PATIENCE_MS) as spare:
                    return await spare.send_and_wait(self.topic, **sent)
            except KafkaError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.2)

    # --- how far it has come ---------------------------------------------------------------------------------------

    def progress(self) -> dict[int, int]:
        """As in `Pipeline`; nothing while Redis does not answer, for which this waits: not in the event loop."""
        try:
            with self._asking:
                return super().progress()
        except (RedisError, RedisClusterException):
            return {}

    def _nothing_is_due(self) -> bool:
        try:
            with self._asking:
                return not list(self.redis.scan_iter(match="agg:due:*", count=1000))
        except (RedisError, RedisClusterException):
            return False

    def session_keys(self) -> set[str]:
        """As in `Pipeline`; not in the event loop, for the same reason."""
        with self._asking:
            return super().session_keys()

    def look_again(self) -> None:
        """After a failover: look at the server that is the master now."""
        self._closing.callback(self.redis.close)  # not yet: another fault may wait for an answer of it, in a thread
        self.redis = self.store.client()

    async def resumed(self, name: str, since_s: float) -> None:
        """Wait until progress moves again, if anything is left to apply; notes how long after `since_s` that was."""
        before, ends = await asyncio.to_thread(self.progress), dict(self.ends)

        async def look() -> bool:
            now = await asyncio.to_thread(self.progress)
            return any(now.get(partition, 0) != before.get(partition, 0) for partition in ends) or all(
                now.get(partition, 0) >= end for partition, end in ends.items()
            )

        await until(f"{name}: something is applied beyond {before}", look, timeout_s=_PATIENCE_S)
        self.record(f"{name}: resumed", time.monotonic() - since_s)

    def record(self, name: str, took_s: float) -> None:
        """Keep a recovery time, the longest of each name."""
        self.recovery_s[name] = max(took_s, self.recovery_s.get(name, 0.0))
        self.note(f"{name} after {took_s:.2f} s")

    async def caught_up(self, name: str, since_s: float, *, but: Collection[int] = ()) -> None:
        """Wait until all that was sent by now is applied; notes how long after `since_s` (monotonic) that was.

        `but` are partitions of which nothing is expected.
        """
        ends = {partition: end for partition, end in self.ends.items() if partition not in but}

        async def look() -> bool:
            applied = await asyncio.to_thread(self.progress)
            return all(applied.get(partition, 0) >= end for partition, end in ends.items())

        await until(f"{name}: {ends} applied", look, timeout_s=_PATIENCE_S)
        self.record(name, time.monotonic() - since_s)

    async def committed(self) -> dict[int, int]:
        """The group's committed offsets by partition, from Kafka."""
        if self._asker is None:
            self._asker = AIOKafkaConsumer(
                bootstrap_servers=self.broker.bootstrap_servers, group_id=f"{self.topic}-group"
            )
            await self._closing.enter_async_context(self._asker)
        found = {number: await self._asker.committed(TopicPartition(self.topic, number)) for number in self.ends}
        return {number: offset for number, offset in found.items() if offset is not None}

    async def wait_settled(self) -> None:
        """Wait until everything is applied and committed and no session is left to close."""

        async def look() -> bool:
            await asyncio.sleep(0.1)
            applied = await asyncio.to_thread(self.progress)
            if any(applied.get(partition, 0) < end for partition, end in self.ends.items()):
                return False
            if not await asyncio.to_thread(self._nothing_is_due):
                return False
            committed = await self.committed()
            return all(committed.get(partition) == end for partition, end in self.ends.items())

        await until(f"{dict(self.ends)} is committed and all sessions are closed", look, timeout_s=_PATIENCE_S)

    async def close(self) -> None:
        """End what is left of it."""
        await self.heal()
        await asyncio.gather(*(command.terminate() for command in self.commands))
        await self._closing.aclose()
        self.redis.close()


@asynccontextmanager
async def deployment(
    broker: Kafka,
    store: Store,
    log_dir: Path,
    *,
    seed: int = 0,
    seats: Sequence[int] = range(4),
    partitions: int = PARTITIONS,
    copies: int | None = None,
) -> AsyncIterator[Deployment]:
    """Make the topics, that of the input with so many `copies` (all that can be); at the end stop every process."""
    # Brokers refuse times that lie more than an hour ahead, unless told otherwise.
    config = {"message.timestamp.after.max.ms": str(10**12)}
    topic = f"spans-{uuid.uuid4().hex[:12]}"
    await broker.create_topic(name=topic, partitions=partitions, copies=copies, config=config)
    made = Deployment(broker, store, topic, log_dir, seats=seats, dice=random.Random(seed))
    for output in (made.summary_topic, made.dead_letter_topic):
        await broker.create_topic(name=output)
    try:
        yield made
    finally:
        await made.close()
