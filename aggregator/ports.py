"""What the two paths ask of the outside, as protocols.

Fakes of these stand in the path tests, adapters implement them, and one contract suite holds both to the same words.
Every method may raise `TransientError` (nothing or part of it was done; doing all of it again is safe) or
`FatalError`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

from aggregator.core.errors import TransientError
from aggregator.core.model import Partition, SessionRef, SessionRollup, TracePut


class Clock(Protocol):
    """The only source of time."""

    def now_ms(self) -> int:
        """Wall clock, milliseconds since the epoch."""

    def monotonic_s(self) -> float:
        """Seconds that never go back, for durations."""

    async def sleep_s(self, seconds: float) -> None:
        """Wait."""


class SharedClock(Protocol):
    """A clock that all workers can ask: that of the store."""

    async def now_ms(self) -> int:
        """Its wall clock at some moment of this call, milliseconds since the epoch."""


# --- the log -------------------------------------------------------------------------------------------------------


class InputRecord(Protocol):
    """One Kafka message, as far as the write path looks at it (aiokafka's own record fits)."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int:
        """Milliseconds; -1 where the record has none."""

    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


class PartitionHead(NamedTuple):
    """What the newest fetch answer said of a partition."""

    end_offset: int  # the offset the next record will get
    polled_ms: int  # own wall clock of that answer


class Fetched(NamedTuple):
    """One answer of the source: records by partition, in offset order."""

    records: Mapping[Partition, Sequence[InputRecord]]


class RebalanceListener(Protocol):
    """What the source tells its user while partitions move; polling stands still until the call returns."""

    async def on_revoked(self, partitions: Sequence[Partition]) -> None:
        """Finish what is in flight and commit: the partitions are given up when this returns."""

    async def on_assigned(self, partitions: Sequence[Partition]) -> None:
        """The partitions are ours; no record of them has been handed out yet, so `seek` is safe here."""


class Source(Protocol):
    """The input topics, read as a member of the consumer group."""

    async def fetch(self, *, max_records: int, timeout_s: float) -> Fetched:
        """Wait until there are records (or `timeout_s` is over) and hand out at most `max_records` of them."""

    def trouble(self) -> TransientError | None:
        """What keeps records from coming, as of the last `fetch`; None while all is well."""

    def heads(self) -> Mapping[Partition, PartitionHead]:
        """For each assigned partition that has been answered for: its end as of the newest fetch answer."""

    def positions(self) -> Mapping[Partition, int]:
        """For each assigned partition: the offset that the next `fetch` goes on from (past gaps of the log)."""

    def assigned(self) -> Sequence[Partition]:
        """Sorted; empty while the group rebalances."""

    def offline(self) -> Collection[Partition]:
        """Assigned partitions that no broker leads just now: they can't be read, and nothing be asked of them."""

    async def input_partitions(self) -> Sequence[Partition]:
        """All partitions of all input topics, sorted, whoever reads them; from metadata that is kept fresh."""

    async def committed(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        """The group's committed offsets; a partition without one is missing."""

    async def beginning_offsets(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        """The earliest offsets that are still retained."""

    async def end_offsets(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        """The offsets behind the newest records."""

    def seek(self, partition: Partition, offset: int) -> None:
        """Read on from there; what was fetched of the partition and not handed out is thrown away."""

    def pause(self) -> None:
        """Stop handing out and fetching records while polling and heartbeats go on."""

    def resume(self) -> None:
        """Undo `pause`."""

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Commit offsets (of the next record to read) for the group."""


class SummarySink(Protocol):
    """The topic of summaries."""

    async def publish(self, summaries: Sequence[tuple[SessionRef, bytes]]) -> None:
        """Send all and wait until the broker has acknowledged each; sending one twice is harmless to consumers."""


class DeadLetters(Protocol):
    """The topic of records that could not be used."""

    async def send(self, record: InputRecord, *, reason: str, detail: str, partial: bool) -> None:
        """Send key, value and headers unchanged plus the headers of DESIGN section 8; returns once acknowledged."""


# --- the state -----------------------------------------------------------------------------------------------------


class TraceWrite(NamedTuple):
    """Compare-and-set of one trace state; stamps tell states apart (`core/state.py`), `expected` is empty for none."""

    trace_id: bytes
    expected: bytes
    stamp: bytes
    state: bytes
    ttl_ms: int


class StoredTrace(NamedTuple):
    """What Redis has: stamp and state are empty where it has nothing (any more)."""

    stamp: bytes
    state: bytes


class TraceStore(Protocol):
    """Level 1: trace states."""

    async def store(self, writes: Sequence[TraceWrite]) -> Sequence[StoredTrace | None]:
        """Store each whose expected stamp is the stored one: None.  Otherwise what is stored, unchanged.

        `ERASED_STAMP` with an empty state says that the trace was erased; no worker expects it, so it stays.
        Idempotent: a write that meets exactly its own stamp and state answers None.
        """

    async def load(self, trace_ids: Sequence[bytes]) -> Sequence[StoredTrace]:
        """Read states without writing; of a trace that was erased there is nothing."""


class PutOutcome(StrEnum):
    """What became of one trace put."""

    APPLIED = "applied"  # the session's sums moved
    SAME = "same"  # this version was there already
    STALE = "stale"  # the session has a newer version
    FOLDED = "folded"  # the trace is folded for good; not added
    TOO_LATE = "too_late"  # its state was begun after the one shown had expired; not added
    ERASED = "erased"  # the session has been erased; not added


class Transition(StrEnum):
    """What a put did to its session."""

    NONE = "none"
    OPENED = "opened"  # the session's key was made
    REOPENED = "reopened"  # it was closing or closed


class SessionPut(NamedTuple):
    """Trace rollups for one session."""

    ref: SessionRef
    traces: list[TracePut]


class PutReply(NamedTuple):
    """What became of a put.

    `outcomes` and `versions` are parallel to the traces put; a version is the one the session now shows.

    `deadline_ms` is when the session is due as things stand (0 where it has no open key).
    """

    outcomes: list[PutOutcome]
    versions: list[int]
    transition: Transition
    deadline_ms: int

    def tells_nothing(self, traces: Sequence[TracePut], idle_timeout_ms: int) -> bool:
        """Whether it is what is expected: all applied to an open session, due when idle after the latest of them."""
        return (
            self.transition is Transition.NONE
            and all(outcome is PutOutcome.APPLIED for outcome in self.outcomes)
            and self.deadline_ms == max((trace.changed_ms for trace in traces), default=0) + idle_timeout_ms
        )


class ClaimOutcome(StrEnum):
    """What a claim found."""

    CLAIMED = "claimed"  # closing; `rollup` is set
    NOT_DUE = "not_due"  # `deadline_ms` is set
    CLOSED = "closed"  # settled already
    DROPPED = "dropped"  # no trace was left and nothing had been published: removed now
    GONE = "gone"  # no such key


class Claim(NamedTuple):
    """`deadline_ms` is the real deadline (0 where there is none)."""

    outcome: ClaimOutcome
    deadline_ms: int
    rollup: SessionRollup | None


class SessionStore(Protocol):
    """Level 2: session rollups.  Life-cycle times were given at construction."""

    async def put(self, puts: Sequence[SessionPut]) -> Sequence[PutReply | None]:
        """Move each session's sums by the difference between the new and the old version of its traces.

        None stands for a reply that tells nothing (see `PutReply.tells_nothing`), which is the rule.

        An older or equal version changes nothing, nor does one whose state was begun when the one that the session
        shows had expired: it lacks the spans of before.  A put that changes something opens, reopens or keeps open the
        session and sets its last activity to the greatest `changed_ms` it has seen.  A tombstone for a session that
        does not exist is remembered without creating it.  Of a session that has been erased nothing is stored.
        """

    async def claim(self, refs: Sequence[SessionRef], *, watermark_ms: int) -> Sequence[Claim]:
        """Mark each session that is due at the watermark as closing under its next revision and read it.

        One that is closing already and still due is read again unchanged, with the same reason.
        """

    async def settle(self, refs: Sequence[tuple[SessionRef, int]]) -> Sequence[bool]:
        """Close each session that is still closing at that revision and let its keys expire; says which were."""


class DueEntry(NamedTuple):
    """One entry of the deadline index, as read; no whole number where somebody deals with it, or has (`hold`)."""

    shard: int
    ref: SessionRef
    deadline_ms: float


class Schedule(Protocol):
    """The deadline index: a hint that may be early, never missing for an open session."""

    async def add(self, deadlines: Sequence[tuple[SessionRef, int]]) -> None:
        """Set the entries of these sessions (overwriting: the session's own script decides)."""

    async def due(self, shards: Sequence[int], *, watermark_ms: int, limit: int) -> Sequence[DueEntry]:
        """Entries with deadline <= watermark, at most `limit` over all shards, the earliest of each shard first."""

    async def hold(self, entries: Sequence[DueEntry]) -> Sequence[DueEntry]:
        """Mark them as being dealt with: less than a millisecond earlier, at a time that no `add` sets.

        Those that have changed since they were read are left alone, and out of what is returned.
        """

    async def move(self, moves: Sequence[tuple[DueEntry, int | None]]) -> None:
        """Where the entry still has the deadline that was read: set the new one, or remove it (None)."""

    async def remove(self, refs: Sequence[SessionRef]) -> None:
        """Remove the entries of sessions that have been erased."""

    async def count(self, shards: Sequence[int]) -> int:
        """How many sessions these shards hold."""


class Applied(NamedTuple):
    """What one partition has come to."""

    previous: int | None  # next offset we believe stands in Redis; None = none
    next_offset: int
    watermark_ms: int | None  # None: not known yet


class Progress(Protocol):
    """`agg:progress` and `agg:watermarks`."""

    async def read(self, partitions: Sequence[Partition]) -> Mapping[Partition, tuple[int | None, int | None]]:
        """(next offset, watermark in ms) per partition, None where missing."""

    async def write(self, applied: Mapping[Partition, Applied]) -> Mapping[Partition, int | None]:
        """Where `previous` stands: write the new offset, and raise the watermark.  Elsewhere: leave the partition.

        Returns, for each partition that was left, what stood there (None = nothing).  A watermark never falls.
        """

    async def watermarks(self, partitions: Sequence[Partition]) -> int | None:
        """The global watermark: the minimum over these partitions, None while one has none."""


# --- the indexes -----------------------------------------------------------------------------------------------------


class IndexOrder(StrEnum):
    """What the sessions of a project can be sorted by."""

    RECENT = "recent"  # when it ended, ms; its last activity where no valid time is known
    DURATION = "duration"  # ms
    TOKENS = "tokens"  # total
    COST = "cost"  # nano-dollars
    ERRORS = "errors"  # spans with an error
    TRACES = "traces"
    CHANGED = "changed"  # when it was last written here, ms


class LookedAt(NamedTuple):
    """A session, and the user under which it is in the indexes: "" for none, None where that is not known."""

    ref: SessionRef
    user_id: str | None


class SessionIndex(Protocol):
    """Which sessions are recent, long, expensive or broken, and which are a user's.

    It is derived: what it says can be written again at any time from the sessions alone.
    """

    async def write(self, refs: Sequence[SessionRef], *, now_ms: int) -> None:
        """Show each session as it stands; one that is gone, or left by all its traces, is shown no longer."""

    async def due(self, shards: Sequence[int], *, now_ms: int, limit: int) -> Sequence[LookedAt]:
        """Some of the sessions of these shards that have not been written for some minutes, or that have expired."""

    async def look(self, entries: Sequence[LookedAt], *, now_ms: int) -> None:
        """As `write`, for what `due` gave: nothing has happened to them, and those under a former user leave it."""

    async def open_sessions(self, shard: int) -> Sequence[SessionRef]:
        """The sessions that the deadline index holds in this shard."""
