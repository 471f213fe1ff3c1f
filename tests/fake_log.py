"""A log in memory for the path tests: partitions, committed offsets, a group, and the topics that are written.

`Faulty` cuts any port at any call, before it, after it, or in the middle of its list: what a crash or a lost answer
looks like from outside.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aggregator.core.errors import BrokerUnavailable
from aggregator.core.model import Partition, SessionRef
from aggregator.ports import Fetched, InputRecord, PartitionHead


class ManualClock:
    """A clock that stands still unless it is moved."""

    def __init__(self, now_ms: int) -> None:
        self.time_ms = now_ms

    def now_ms(self) -> int:
        return self.time_ms

    def monotonic_s(self) -> float:
        return self.time_ms / 1000

    async def sleep_s(self, seconds: float) -> None:
        await asyncio.sleep(0)


class SkewedClock(ManualClock):
    """Another clock, which is always off by the same."""

    def __init__(self, right: ManualClock, skew_ms: int) -> None:
        self._right = right
        self._skew_ms = skew_ms

    def now_ms(self) -> int:
        return self._right.now_ms() + self._skew_ms

    def monotonic_s(self) -> float:
        return self._right.monotonic_s()


class FakeSharedClock:
    """`ports.SharedClock`."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock

    async def now_ms(self) -> int:
        return self._clock.now_ms()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRecord:
    """One record; fits `ports.InputRecord`."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    value: bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()


@dataclass(slots=True)
class FakeLog:
    """Everything that a broker would keep."""

    clock: ManualClock
    partitions: dict[Partition, list[LogRecord]] = field(default_factory=dict)
    committed: dict[Partition, int] = field(default_factory=dict)
    summaries: list[tuple[SessionRef, bytes]] = field(default_factory=list)
    dead_letters: list[tuple[InputRecord, str, str, bool]] = field(default_factory=list)

    def append(self, partition: Partition, value: bytes | None, timestamp_ms: int) -> None:
        records = self.partitions.setdefault(partition, [])
        records.append(
            LogRecord(
                topic=partition.topic,
                partition=partition.number,
                offset=len(records),
                timestamp=timestamp_ms,
                value=value,
            )
        )


_WAITS = 5
"""How long an empty log is waited for, in turns of the loop: others do what they have to do meanwhile."""


class FakeSource:
    """One member of the group, with a fixed assignment unless `assign` changes it."""

    def __init__(self, log: FakeLog, assigned: Sequence[Partition], clock: ManualClock | None = None) -> None:
        self._log = log
        self._clock = clock or log.clock
        self._assigned = list(assigned)
        self._positions = {partition: log.committed.get(partition, 0) for partition in assigned}
        self._paused = False
        self.without_leader: set[Partition] = set()

    def deal(self, partitions: Sequence[Partition]) -> None:
        """Change the assignment; reading goes on from what was committed."""
        self._assigned = list(partitions)
        self._positions = {partition: self._log.committed.get(partition, 0) for partition in partitions}

    async def fetch(self, *, max_records: int, timeout_s: float) -> Fetched:
        await asyncio.sleep(0)
        records: dict[Partition, Sequence[InputRecord]] = {}
        if not self._paused:
            for partition in self._online():
                position = self._positions[partition]
                part = self._log.partitions.get(partition, [])[position : position + max_records]
                if part:
                    records[partition] = part
                    self._positions[partition] = position + len(part)
        if not records:
            for _ in range(_WAITS):
                await asyncio.sleep(0)
        return Fetched(records)

    def trouble(self) -> None:
        return None

    def _online(self) -> list[Partition]:
        return [partition for partition in self._assigned if partition not in self.without_leader]

    def heads(self) -> Mapping[Partition, PartitionHead]:
        now_ms = self._clock.now_ms()
        return {p: PartitionHead(len(self._log.partitions.get(p, [])), now_ms) for p in self._online()}

    def positions(self) -> Mapping[Partition, int]:
        return dict(self._positions)

    def assigned(self) -> Sequence[Partition]:
        return sorted(self._assigned)

    def offline(self) -> Collection[Partition]:
        return self.without_leader

    async def input_partitions(self) -> Sequence[Partition]:
        return sorted(self._log.partitions)

    async def committed(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        return {p: self._log.committed[p] for p in partitions if p in self._log.committed}

    async def beginning_offsets(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        if not self.without_leader.isdisjoint(partitions):
            raise BrokerUnavailable("no leader answers")
        return dict.fromkeys(partitions, 0)

    async def end_offsets(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        return {p: len(self._log.partitions.get(p, [])) for p in partitions}

    def seek(self, partition: Partition, offset: int) -> None:
        self._positions[partition] = offset

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        self._log.committed.update(offsets)


class FakeSink:
    """The topic of summaries."""

    def __init__(self, log: FakeLog) -> None:
        self._log = log

    async def publish(self, summaries: Sequence[tuple[SessionRef, bytes]]) -> None:
        self._log.summaries.extend(summaries)


class FakeDeadLetters:
    """The dead-letter topic."""

    def __init__(self, log: FakeLog) -> None:
        self._log = log

    async def send(self, record: InputRecord, *, reason: str, detail: str, partial: bool) -> None:
        self._log.dead_letters.append((record, reason, detail, partial))


class Crash(Exception):  # noqa: N818 - it is no error of the program
    """The process is gone at this point."""


class Faults:
    """Decides at each call of a port what happens to it; counts calls so that every step can be hit.

    The plan says for a call's number: fail "before" it is done, "after", in the "middle" of its list, or "lose" all
    that the stores hold and go on.
    """

    def __init__(self, plan: Mapping[int, str], lose: Callable[[], Awaitable[None]]) -> None:
        self._plan = plan
        self.lose = lose
        self.calls = 0

    def next(self) -> str | None:
        fault = self._plan.get(self.calls)
        self.calls += 1
        return fault


class Faulty:
    """A port whose awaited methods fail by plan; `raises` makes the exception (a crash, or a transient error)."""

    def __init__(self, port: object, faults: Faults, raises: Callable[[], Exception]) -> None:
        self._port = port
        self._faults = faults
        self._raises = raises

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)
        if not asyncio.iscoroutinefunction(method) or name in ("fetch", "input_partitions"):
            return method

        async def call(*args: Any, **kwargs: Any) -> Any:
            fault = self._faults.next()
            if fault == "before":
                raise self._raises()
            if fault == "lose":
                await self._faults.lose()
                return await method(*args, **kwargs)
            if fault == "middle" and args and isinstance(args[0], list):
                await method(args[0][: len(args[0]) // 2], *args[1:], **kwargs)
                raise self._raises()
            answer = await method(*args, **kwargs)
            if fault is not None:
                raise self._raises()
            return answer

        return call
