"""The input topics, read as a member of the consumer group.

An assignment passes through these steps; `epoch` counts revocations and assignments, so that whoever waited in between
can tell that the world has moved on.

    (none) --aiokafka assigns--> NEW --`fetch` calls on_assigned--> TOLD --it returned--> OURS
    any of them --aiokafka revokes--> (none); on_revoked is called if on_assigned was

`on_assigned` is called from within `fetch` and not from aiokafka's callback: heartbeats stand still during that, so a
store that is away would throw the member out of the group, and exceptions would be logged and lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import Enum, auto
from typing import Final, NamedTuple

from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)

from aggregator.adapters.kafka.access import Access
from aggregator.adapters.kafka.admin import input_problems
from aggregator.adapters.kafka.consumer import GroupConsumer, SourceOptions
from aggregator.adapters.kafka.security import Security
from aggregator.core.errors import BrokerUnavailable, ConfigurationError, TransientError
from aggregator.core.model import Partition
from aggregator.ports import Fetched, PartitionHead, RebalanceListener
from aggregator.telemetry import Event, get_logger

log = get_logger()

_NOTHING: Final = Fetched({})
_PROMPT_ANSWER_MS: Final = 5_000


class OffsetReset(NamedTuple):
    """A partition did not hold the offset that was to be read; it is read from `beginning` on."""

    partition: Partition
    wanted: int
    beginning: int
    end: int

    @property
    def recreated(self) -> bool:
        """The offset was beyond the end: the topic was deleted and made again (or lost what it had acknowledged).

        Otherwise retention has removed the records from `wanted` to `beginning` before they were read.
        """
        return self.wanted > self.end


def log_reset(reset: OffsetReset) -> None:
    """Say in the log what was found; the source does this where nobody asked to be told."""
    place = {"topic": reset.partition.topic, "partition": reset.partition.number, "offset": reset.wanted}
    if reset.recreated:
        log.error(Event.TOPIC_RECREATED, **place, beginning_offset=reset.beginning, end_offset=reset.end)
    else:
        log.error(Event.RECORDS_LOST, **place, records=reset.beginning - reset.wanted)


class _Answer(NamedTuple):
    """When a fetch answer was taken up, and up to when its end is believed; milliseconds."""

    at_ms: int
    believed_ms: int


class _Step(Enum):
    """How far the assignment has come."""

    NONE = auto()
    NEW = auto()
    TOLD = auto()
    OURS = auto()


class KafkaSource:
    """`Source` on Kafka: `start`, then `fetch` from one task, `close` from the same.

    `commit` passes over partitions that are no longer ours, and where the group has moved on it commits nothing: the
    work is applied already, and reading it once more is harmless (law 1).  Both are logged.  The second is also what
    happens to what `on_revoked` commits when the topics that match a pattern change: aiokafka has dropped the old
    assignment by then.
    While brokers are away `fetch` finds no records and `heads` stand still; only questions raise `BrokerUnavailable`.
    The listener is told of every assignment, of an empty one too.  What it raises comes out of `fetch`.  After a
    `TransientError` of `on_assigned` the next `fetch` calls it again; one of `on_revoked` is logged, the partitions go
    anyway and their next owner reads the rest.
    """

    def __init__(
        self,
        options: SourceOptions,
        listener: RebalanceListener,
        *,
        security: Security | None = None,
        on_reset: Callable[[OffsetReset], None] = log_reset,
    ) -> None:
        self._options = options
        self._listener = listener
        self._access = Access(options.bootstrap_servers, security)
        self._trouble: BrokerUnavailable | None = None
        self._on_reset = on_reset
        self._started: GroupConsumer | None = None
        self._step = _Step.NONE
        self._epoch = 0
        self._telling = asyncio.Lock()  # the listener is told one thing at a time
        self._failure: Exception | None = None
        self._paused = False
        self._answers: dict[TopicPartition, _Answer] = {}

    # --- life ------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect, see that the topics are there and ask to join the group; assignments come with `fetch`.

        Raises `BrokerUnavailable` (try again) and `ConfigurationError` (a topic is missing).
        """
        consumer = GroupConsumer(self._options, self._access)
        try:
            await consumer.start(_Callbacks(self))
            self._started = consumer
            await self._see_topics(consumer)
        except BaseException:
            self._started = None
            await consumer.stop()
            raise

    async def close(self) -> None:
        """Leave the group and disconnect; may be repeated.  Work in flight must be committed before."""
        consumer, self._started = self._started, None
        if consumer is not None and not await consumer.stop():
            # The group finds out when the session times out.
            log.warning(Event.GROUP_NOT_LEFT, seconds=self._options.ask_timeout_s)

    async def _see_topics(self, consumer: GroupConsumer) -> None:
        """Wait for the topics a moment: subscribing makes some clusters create them."""
        options, clock = self._options, asyncio.get_running_loop().time
        deadline = clock() + options.topic_wait_s
        while problems := input_problems(options.topics, options.pattern, await consumer.topics()):
            if clock() >= deadline:
                consumer.raise_if_refused()
                raise ConfigurationError("\n".join(problems))
            await asyncio.sleep(0.2)

    @property
    def _consumer(self) -> GroupConsumer:
        if self._started is None:
            raise BrokerUnavailable("the source is not started")
        return self._started

    # --- records ---------------------------------------------------------------------------------------------------

    async def fetch(self, *, max_records: int, timeout_s: float) -> Fetched:
        """Wait until there are records (or `timeout_s` is over) and hand out at most `max_records` of them.

        Comes back empty at once after it has called `on_assigned`, so that the caller can look around.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout_s
        while True:
            consumer = self._consumer
            self._raise_failure()
            if self._step in (_Step.NEW, _Step.TOLD):
                await self._tell_assigned(consumer)
                return _NOTHING
            if not consumer.rebalancing and (fetched := await self._drain(consumer, max_records)).records:
                self._trouble = None
                return fetched
            remaining_s = deadline - clock()
            if remaining_s <= 0:
                self._trouble = await consumer.trouble()
                return _NOTHING
            await consumer.wait(remaining_s)

    async def _drain(self, consumer: GroupConsumer, max_records: int) -> Fetched:
        with consumer.translated("fetching"):
            try:
                drained = await consumer.drain(max_records)
            except OffsetOutOfRangeError as error:
                await self._answer_out_of_range(consumer, error.args[0])
                return _NOTHING
            except NoOffsetForPartitionError as error:
                await self._seek_beginning(consumer, [error.args[0]])
                return _NOTHING
        return Fetched({Partition(*partition): batch for partition, batch in drained.items()})

    async def _answer_out_of_range(self, consumer: GroupConsumer, wanted: Mapping[TopicPartition, int]) -> None:
        """The log does not hold these offsets: go to its beginning, and say so."""
        beginnings, ends = await consumer.beginning_offsets(wanted), await consumer.end_offsets(wanted)
        for partition, offset in wanted.items():
            reset = OffsetReset(Partition(*partition), offset, beginnings[partition], ends[partition])
            if reset.beginning <= offset <= reset.end:  # it does by now: a new leader had to catch up first
                consumer.seek(partition, offset)
            else:
                consumer.seek(partition, reset.beginning)
                self._on_reset(reset)

    async def _seek_beginning(self, consumer: GroupConsumer, partitions: Iterable[TopicPartition]) -> None:
        for partition, offset in (await consumer.beginning_offsets(partitions)).items():
            consumer.seek(partition, offset)

    def trouble(self) -> BrokerUnavailable | None:
        """See `ports.Source`; as of the last `fetch`."""
        return self._trouble

    def _raise_failure(self) -> None:
        self._consumer.raise_if_broken()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    # --- where it stands -------------------------------------------------------------------------------------------

    def assigned(self) -> Sequence[Partition]:
        """Sorted; empty while the group rebalances, until `on_assigned` has returned."""
        return [Partition(*partition) for partition in self._ours()]

    def _ours(self) -> list[TopicPartition]:
        started = self._started
        return started.assignment() if started and self._step is _Step.OURS and not started.rebalancing else []

    def heads(self) -> Mapping[Partition, PartitionHead]:
        """For each assigned partition that has been answered for: its end as of the newest fetch answer.

        The end is the high watermark, not the last stable offset: records of an open transaction can't be read yet,
        but they are in the log with log times of the past, and time must not move past them.  So it stays ahead of the
        position until the transaction has ended.

        The time of an answer is when it was taken up here.  One that was taken up long after the one before may have
        lain unread while this process was suspended; its end is then told with the time of the one before, which is
        surely earlier than its request.
        """
        heads: dict[Partition, PartitionHead] = {}
        for partition in self._ours():
            head = self._consumer.head(partition)
            if head is not None:
                end, at_ms = head
                last = self._answers.get(partition, _Answer(at_ms, at_ms))
                if at_ms != last.at_ms:
                    prompt = at_ms - last.at_ms <= _PROMPT_ANSWER_MS
                    last = _Answer(at_ms, at_ms if prompt else last.at_ms)
                self._answers[partition] = last
                heads[Partition(*partition)] = PartitionHead(end, last.believed_ms)
        return heads

    def positions(self) -> Mapping[Partition, int]:
        """For each assigned partition: the offset that the next `fetch` goes on from (past gaps of the log)."""
        found = {Partition(*partition): self._consumer.position(partition) for partition in self._ours()}
        return {partition: offset for partition, offset in found.items() if offset is not None}

    def offline(self) -> Collection[Partition]:
        """Assigned partitions that no broker leads just now."""
        return {Partition(*partition) for partition in self._consumer.offline()}

    async def input_partitions(self) -> Sequence[Partition]:
        """All partitions of all input topics, sorted; `metadata_max_age_ms` old at most while brokers answer.

        Raises `BrokerUnavailable` (`BrokerRefused` where an ACL hides it) while a topic is not in the metadata:
        without its partitions the global watermark would run ahead.  A topic that no longer matches a pattern is taken
        for deleted.
        """
        consumer = self._consumer
        topics = consumer.subscribed_topics()
        found = {topic: list(consumer.partitions_of(topic)) for topic in topics}
        missing = [topic for topic, partitions in found.items() if not partitions]
        if missing or not topics:
            consumer.raise_if_refused()
            raise BrokerUnavailable(f"Kafka does not tell the partitions of {', '.join(missing) or 'any topic'}")
        return [partition for topic in topics for partition in found[topic]]

    async def committed(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        """The group's committed offsets; a partition without one is missing."""
        return _ported(await self._consumer.committed(map(_kafka, partitions)))

    async def beginning_offsets(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        """The earliest offsets that are still retained."""
        return _ported(await self._consumer.beginning_offsets(map(_kafka, partitions)))

    async def end_offsets(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        """The offsets behind the newest records that can be read."""
        return _ported(await self._consumer.end_offsets(map(_kafka, partitions)))

    # --- steering --------------------------------------------------------------------------------------------------

    def seek(self, partition: Partition, offset: int) -> None:
        """Read on from there; without effect where the partition has been revoked meanwhile."""
        self._consumer.seek(_kafka(partition), offset)

    def pause(self) -> None:
        """Stop handing out and fetching records; a rebalance does not undo it.  `fetch` must go on being called."""
        self._paused = True
        self._consumer.pause()

    def resume(self) -> None:
        """Undo `pause`."""
        self._paused = False
        self._consumer.resume()
        self._consumer.wake()

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Commit offsets (of the next record to read) for the group, of those partitions that are still ours."""
        consumer = self._consumer
        ours = set(consumer.assignment())
        kept = {_kafka(partition): offset for partition, offset in offsets.items() if _kafka(partition) in ours}
        if len(kept) < len(offsets):
            log.info(Event.COMMIT_PASSED_OVER, error="no longer assigned", partitions=len(offsets) - len(kept))
        if not kept:
            return
        try:
            with consumer.translated("committing offsets"):
                await consumer.commit(kept)
        except BrokerUnavailable as error:
            if not isinstance(error.__cause__, CommitFailedError | IllegalStateError):
                raise
            log.warning(Event.COMMIT_PASSED_OVER, error=str(error.__cause__), partitions=len(kept))

    # --- rebalances ------------------------------------------------------------------------------------------------

    async def _tell_assigned(self, consumer: GroupConsumer) -> None:
        async with self._telling:
            epoch, partitions = self._epoch, consumer.assignment()
            if self._step not in (_Step.NEW, _Step.TOLD):
                return  # revoked while the listener was busy with something else
            # aiokafka asks for committed offsets by itself, but where there are none it makes an error of it.
            committed = await consumer.committed(partitions)
            await self._seek_beginning(consumer, [one for one in partitions if one not in committed])
            if self._epoch == epoch:
                self._step = _Step.TOLD
                await self._listener.on_assigned([Partition(*partition) for partition in partitions])
            if self._epoch == epoch:
                self._step = _Step.OURS

    async def revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """What aiokafka calls before it gives up the partitions; it waits, and heartbeats go on."""
        partitions = sorted(Partition(*partition) for partition in revoked)
        step, self._step = self._step, _Step.NONE
        self._epoch += 1
        self._answers.clear()
        if self._started is not None:
            self._started.wake()
        if step in (_Step.TOLD, _Step.OURS):
            try:
                async with self._telling:
                    await self._listener.on_revoked(partitions)
            except TransientError as error:
                log.warning(Event.COMMIT_PASSED_OVER, error=str(error), partitions=len(partitions))
            except Exception as error:  # aiokafka would log it and go on; `fetch` raises it
                self._failure = error

    def dealt(self) -> None:
        """What aiokafka calls with a new assignment in place."""
        self._step = _Step.NEW
        self._epoch += 1
        if self._started is not None:
            if self._paused:
                self._started.pause()
            self._started.wake()


class _Callbacks(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is untyped
    """Hands aiokafka's callbacks on."""

    def __init__(self, source: KafkaSource) -> None:
        self._source = source

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        await self._source.revoked(revoked)

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self._source.dealt()


def _kafka(partition: Partition) -> TopicPartition:
    return TopicPartition(partition.topic, partition.number)


def _ported(offsets: Mapping[TopicPartition, int]) -> dict[Partition, int]:
    return {Partition(*partition): offset for partition, offset in offsets.items()}
