"""aiokafka's consumer as the source needs it: set up, asked and waited for in one place.

How it is set up, and why:

* Offsets are committed by hand (law 3).  An offset that the log does not hold is no reason to read on silently
  elsewhere, so `auto_offset_reset` is `none` and the source chooses and reports.
* `read_committed`: a producer's aborted transaction never happened, so its spans must not count.
* Round robin assignment.  aiokafka's sticky assignor would keep caches warmer over a rebalance, but it keeps its state
  on the class (two consumers in a process overwrite each other's) and never sends its generation, so that members can
  claim the same partitions (aiokafka issues 1175 and 1176).  It has no cooperative one: a rebalance revokes all.

aiokafka's own waiting (`getmany` with a time-out) forgets the time-out while the group rebalances, and it tells
positions only asynchronously.  So some private names of it are used, all of them here.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import CorruptRecordException, KafkaError

from aggregator.adapters.kafka.failures import translated
from aggregator.adapters.kafka.unreadable import unpacked
from aggregator.core.errors import FatalError
from aggregator.core.model import Partition
from aggregator.ports import InputRecord
from aggregator.telemetry import Event, get_logger

log = get_logger()

_CORRUPT_FETCHES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """What is read and how; give either `topics` or a `pattern` (a regular expression, matched from the start).

    Memory: per broker at most `fetch_max_bytes` are fetched ahead and as much is on its way (Kafka exceeds it only for
    a single larger record); `partition_fetch_bytes` keeps one busy partition from taking all of it.  Larger answers
    are no faster: those of 8 MB cost the client half as much again per record as those of 4 MB.
    `check_crcs` costs some 0.4 µs per kilobyte, near half of all that reading costs; without it a record that was
    spoilt on the way or on a disk is dead-lettered at best and believed at worst.
    `fetch_wait_ms` is how long a broker holds back an empty answer, hence how often an idle partition moves time.
    `session_timeout_ms` is how long a dead worker's partitions stay unread; heartbeats come ten times in it.
    `rebalance_timeout_ms` is how long the group waits for a member that finishes its work in flight; joining takes as
    long at worst, so `request_timeout_ms` is raised above it.
    With a `group_instance_id` (static membership) a worker that stops does not leave the group: its partitions wait for
    one of the same name, for `session_timeout_ms` at most, and nobody else's move.
    A worker that does not call `fetch` for `max_poll_interval_ms` gives its partitions up.
    `metadata_max_age_ms` bounds how long a new partition stays unnoticed.
    `ask_timeout_s` bounds commits and questions; for `topic_wait_s` a missing topic is waited for at start, as brokers
    that create topics by themselves need a moment.
    """

    bootstrap_servers: str
    group_id: str
    topics: Sequence[str] = ()
    pattern: str | None = None
    client_id: str = "session-aggregator"
    group_instance_id: str | None = None
    fetch_max_bytes: int = 4 * 1024 * 1024
    partition_fetch_bytes: int = 1024 * 1024
    check_crcs: bool = True
    fetch_wait_ms: int = 500
    session_timeout_ms: int = 45_000
    rebalance_timeout_ms: int = 30_000
    request_timeout_ms: int = 30_000
    max_poll_interval_ms: int = 300_000
    metadata_max_age_ms: int = 30_000
    ask_timeout_s: float = 10.0
    topic_wait_s: float = 5.0

    def __post_init__(self) -> None:
        if bool(self.topics) == bool(self.pattern):
            raise ValueError("give either topics or a pattern")


class GroupConsumer:
    """One aiokafka consumer; its methods raise only errors of this program."""

    def __init__(self, options: SourceOptions, security: Mapping[str, Any]) -> None:
        self._options = options
        self._woken: asyncio.Future[None] | None = None
        self._corrupt: Counter[TopicPartition] | None = None  # while an answer can't be unpacked: how often so far
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=options.bootstrap_servers,
            group_id=options.group_id,
            group_instance_id=options.group_instance_id,
            client_id=options.client_id,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            partition_assignment_strategy=(RoundRobinPartitionAssignor,),
            fetch_max_bytes=options.fetch_max_bytes,
            max_partition_fetch_bytes=min(options.partition_fetch_bytes, options.fetch_max_bytes),
            check_crcs=options.check_crcs,
            fetch_max_wait_ms=options.fetch_wait_ms,
            session_timeout_ms=options.session_timeout_ms,
            heartbeat_interval_ms=max(options.session_timeout_ms // 10, 100),
            rebalance_timeout_ms=options.rebalance_timeout_ms,
            request_timeout_ms=max(options.request_timeout_ms, options.rebalance_timeout_ms + 5_000),
            max_poll_interval_ms=options.max_poll_interval_ms,
            metadata_max_age_ms=options.metadata_max_age_ms,
            **security,
        )

    # --- life ------------------------------------------------------------------------------------------------------

    async def start(self, listener: ConsumerRebalanceListener) -> None:
        """Connect and ask to join the group; does not wait for an assignment."""
        with translated(f"connecting to Kafka at {self._options.bootstrap_servers}"):
            await self._consumer.start()
        if self._options.pattern:
            self._consumer.subscribe(pattern=self._options.pattern, listener=listener)
        else:
            self._consumer.subscribe(topics=list(self._options.topics), listener=listener)

    async def stop(self) -> bool:
        """Leave the group and disconnect; False where it was only disconnected after `ask_timeout_s`.

        A member that is just joining hears nothing, and can't leave, until all others have joined.
        """
        self.wake()
        task = asyncio.current_task()
        cancelled = task.cancelling() if task else 0
        try:
            async with asyncio.timeout(self._options.ask_timeout_s):
                await self._consumer.stop()
        except TimeoutError:
            await self._disconnect()
            return False
        except asyncio.CancelledError:
            if task and task.cancelling() > cancelled:
                raise
            # It is that of a fetch which waited to be tried again, and which aiokafka itself has cancelled just now.
            await self._disconnect()
        return True

    async def _disconnect(self) -> None:
        """What is left of aiokafka's `stop` where that has ended early."""
        coordinator = self._consumer._coordinator  # noqa: SLF001
        if coordinator is not None:
            await coordinator._stop_heartbeat_task()  # noqa: SLF001
            await coordinator._stop_commit_offsets_refresh_task()  # noqa: SLF001
        fetcher = self._consumer._fetcher  # noqa: SLF001
        if fetcher is not None:
            tasks = [fetcher._fetch_task, *fetcher._pending_tasks]  # noqa: SLF001
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        await self._consumer._client.close()  # noqa: SLF001

    # --- records ---------------------------------------------------------------------------------------------------

    @property
    def rebalancing(self) -> bool:
        """Whether the partitions of this member are being dealt anew (`getmany` would wait for that)."""
        return bool(self._consumer._subscription.reassignment_in_progress)  # noqa: SLF001

    async def drain(self, max_records: int) -> dict[TopicPartition, list[InputRecord]]:
        """What has been fetched ahead, without waiting; call it only while not `rebalancing`.

        Lets aiokafka's errors through: the source answers some of them.  When one partition's answer can't be
        unpacked, aiokafka throws away what it took of the others, though it has moved on in them: they are moved back.
        Then partitions are taken one by one, to find the one to blame; what can't be unpacked `_CORRUPT_FETCHES` times
        is no accident of the way here, and is read by `unreadable.unpacked`.
        """
        if self._corrupt is not None:
            return await self._drain_each(max_records)
        try:
            return await self._getmany(max_records)
        except CorruptRecordException:
            self._corrupt = Counter()
            raise

    async def _getmany(self, max_records: int, *only: TopicPartition) -> dict[TopicPartition, list[InputRecord]]:
        before = {partition: self.position(partition) for partition in only or self.assignment()}
        try:
            fetched: dict[TopicPartition, list[InputRecord]] = await self._consumer.getmany(
                *only, max_records=max_records
            )
        except BaseException as error:
            for partition, offset in before.items():
                if offset is not None and self.position(partition) not in (offset, None):
                    self.seek(partition, offset)
            if isinstance(error, Exception) and not isinstance(error, KafkaError):
                # Bytes that break the rules come out as whatever Python or a codec raises.
                raise CorruptRecordException(f"a record can't be unpacked: {error}") from error
            raise
        return fetched

    async def _drain_each(self, max_records: int) -> dict[TopicPartition, list[InputRecord]]:
        counts = self._corrupt or Counter()
        ours = self.assignment()
        for partition in ours:
            try:
                fetched = await self._getmany(max_records, partition)
            except CorruptRecordException:
                counts[partition] += 1
                if counts[partition] < _CORRUPT_FETCHES:
                    self._corrupt = counts
                    raise
                fetched = {partition: await self._unpacked(partition)}
            if fetched:
                counts.pop(partition, None)
                self._corrupt = counts if any(one in counts for one in ours) else None
                return fetched
        return {}

    async def _unpacked(self, partition: TopicPartition) -> list[InputRecord]:
        offset = self.position(partition)
        if offset is None:
            raise CorruptRecordException(f"{partition} has no position just now")
        options = self._options
        async with asyncio.timeout(options.ask_timeout_s):
            found = await unpacked(
                self._consumer._client,  # noqa: SLF001
                partition,
                offset,
                wait_ms=options.fetch_wait_ms,
                max_bytes=options.partition_fetch_bytes,
            )
        log.error(Event.RECORDS_UNREADABLE, topic=partition.topic, partition=partition.partition, offset=offset)
        self.seek(partition, found.next_offset)
        return found.records

    async def wait(self, seconds: float) -> None:
        """Wait until there may be records, `wake` is called, or the time is over."""
        with translated("fetching"):
            waiter = self._consumer._fetcher._create_fetch_waiter()  # noqa: SLF001
            self._woken = asyncio.get_running_loop().create_future()
            try:
                await asyncio.wait((waiter, self._woken), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
                if waiter.done():
                    waiter.result()  # the coordinator passes its errors to whoever waits
            finally:
                waiter.cancel()
                self._woken = None

    def wake(self) -> None:
        """End a `wait`."""
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def raise_if_broken(self) -> None:
        """Raise what went wrong in the group, and `FatalError` where one of aiokafka's tasks has ended for good.

        Call it with each fetch: the coordinator waits until its error has been taken.  A fetcher that has ended would
        only find no more records (aiokafka issue 983).
        """
        fetcher, coordinator = self._consumer._fetcher, self._consumer._coordinator  # noqa: SLF001
        for task in (fetcher.error_future, coordinator._coordination_task):  # noqa: SLF001
            if task.done():
                cause = None if task.cancelled() else task.exception()
                raise FatalError(f"aiokafka has stopped reading ({cause}); restart the worker") from cause
        with translated("reading as a member of the group"):
            coordinator.check_errors()

    # --- partitions ------------------------------------------------------------------------------------------------

    def assignment(self) -> list[TopicPartition]:
        """What the group has dealt to this member last, sorted; also while it is being revoked."""
        return sorted(self._consumer.assignment())

    def offline(self) -> list[TopicPartition]:
        """Which of them no broker leads, by metadata that is fetched anew as long as that is so."""
        cluster = self._consumer._client.cluster  # noqa: SLF001
        return [partition for partition in self.assignment() if cluster.leader_for_partition(partition) == -1]

    def position(self, partition: TopicPartition) -> int | None:
        """The offset that is read next; None while that is being found out."""
        subscription = self._consumer._subscription.subscription  # noqa: SLF001
        assignment = subscription.assignment if subscription else None
        state = assignment.state_value(partition) if assignment else None
        return state.position if state is not None and state.has_valid_position else None

    def head(self, partition: TopicPartition) -> tuple[int, int] | None:
        """(high watermark, time of the answer that showed it in ms), of an assigned partition."""
        end, at_ms = self._consumer.highwater(partition), self._consumer.last_poll_timestamp(partition)
        return None if end is None or at_ms is None else (end, at_ms)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read on from there; nothing happens where the partition is not ours any more."""
        if partition in self._consumer.assignment():
            self._consumer.seek(partition, offset)

    def pause(self) -> None:
        """Stop fetching from all that is assigned."""
        self._consumer.pause(*self.assignment())

    def resume(self) -> None:
        """Undo `pause`."""
        self._consumer.resume(*self.assignment())

    # --- questions -------------------------------------------------------------------------------------------------

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit; aiokafka's `CommitFailedError` and `IllegalStateError` (not ours any more) come through."""
        async with asyncio.timeout(self._options.ask_timeout_s):
            await self._consumer.commit(dict(offsets))

    async def committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The group's committed offsets, where there are any."""
        wanted = list(partitions)
        with translated("asking for committed offsets"):
            async with asyncio.timeout(self._options.ask_timeout_s):
                found = await asyncio.gather(*(self._consumer.committed(partition) for partition in wanted))
        return {partition: offset for partition, offset in zip(wanted, found, strict=True) if offset is not None}

    async def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The earliest offsets still there."""
        with translated("asking for the earliest offsets"):
            async with asyncio.timeout(self._options.ask_timeout_s):
                return dict(await self._consumer.beginning_offsets(list(partitions)))

    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The offsets behind the newest records that can be read (before an open transaction, that is)."""
        with translated("asking for the latest offsets"):
            async with asyncio.timeout(self._options.ask_timeout_s):
                return dict(await self._consumer.end_offsets(list(partitions)))

    async def topics(self) -> set[str]:
        """All topics that this user may see, asked now."""
        with translated("asking Kafka for its topics"):
            async with asyncio.timeout(self._options.ask_timeout_s):
                return set(await self._consumer.topics())

    def subscribed_topics(self) -> list[str]:
        """The input topics as far as known: for a pattern those that match it."""
        return sorted(self._consumer.subscription() or ())

    def partitions_of(self, topic: str) -> Iterator[Partition]:
        """The topic's partitions in the metadata, which aiokafka refreshes; none where it is not there."""
        return (Partition(topic, number) for number in sorted(self._consumer.partitions_for_topic(topic) or ()))
