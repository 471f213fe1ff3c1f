"""Reading what anybody may read: session hashes, their traces and models, and the indexes.

Only plain commands that change nothing are sent, so that a Redis user with `+@read` alone can be given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from aggregator.adapters.redis.calls import Command, Connections
from aggregator.adapters.redis.keys import Keys
from aggregator.core.model import SessionRef
from aggregator.core.naming import percent_decode, percent_encode
from aggregator.ports import IndexOrder

SESSION_FIELDS: Final = (
    "status", "revision", "opened_at", "started_at", "ended_at", "duration_ms", "last_activity_ms", "user_id",
    "trace_count", "span_count", "llm_span_count", "error_count", "error_trace_count", "prompt_tokens",
    "completion_tokens", "total_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens",
    "embedding_tokens", "llm_span_prompt_tokens", "llm_span_completion_tokens", "cost_usd", "cost_source",
    "unpriced_calls", "truncated",
)  # fmt: skip
"""The documented fields of a session hash that are not in its name."""

_SCORES_AT_ONCE: Final = 1000


class Entry(NamedTuple):
    """A session in an index: its project, and its id as it stands in keys."""

    project: str
    member: bytes

    @property
    def ref(self) -> SessionRef:
        """The session; raises ValueError where this program did not write the member."""
        return SessionRef(self.project, percent_decode(self.member.decode()))


class Scored(NamedTuple):
    """An entry with its score; the order is that of the index, ties by project and id."""

    score: float
    entry: Entry


class SortedSet(NamedTuple):
    """One index and the project whose sessions it holds."""

    project: str
    key: str


class Between(NamedTuple):
    """Scores from `least` to `most`, both included; None: without a bound."""

    least: float | None = None
    most: float | None = None

    def arguments(self) -> tuple[str, str]:
        """As Redis takes them."""
        return (
            "-inf" if self.least is None else repr(self.least),
            "+inf" if self.most is None else repr(self.most),
        )


ALL: Final = Between()


class RedisListing:
    """What the client of people's questions asks of Redis."""

    def __init__(self, connections: Connections, keys: Keys) -> None:
        self._connections = connections
        self._keys = keys

    async def close(self) -> None:
        """Close all connections."""
        await self._connections.close()

    # sessions

    async def hashes(self, refs: Sequence[SessionRef]) -> list[dict[str, str] | None]:
        """The documented fields of each session that are there; None where there is no such session."""
        names = [self._keys.session(ref).session for ref in refs]
        replies = await self._connections.commands([Command(name, ("HMGET", name, *SESSION_FIELDS)) for name in names])
        return [
            None
            if reply[0] is None
            else {
                field: value.decode(errors="replace")
                for field, value in zip(SESSION_FIELDS, reply, strict=True)
                if value is not None
            }
            for reply in replies
        ]

    async def details(self, ref: SessionRef) -> tuple[list[bytes], dict[str, str]]:
        """The JSON of a session's traces, and the fields of its models."""
        keys = self._keys.session(ref)
        traces, models = await self._connections.commands(
            [Command(keys.traces, ("HVALS", keys.traces)), Command(keys.models, ("HGETALL", keys.models))]
        )
        fields = {
            name.decode(errors="replace"): value.decode() for name, value in zip(models[::2], models[1::2], strict=True)
        }
        return traces, fields

    # indexes

    async def projects(self) -> list[str]:
        """The projects that have sessions, by name."""
        (members,) = await self._connections.commands(
            [Command(self._keys.projects, ("ZRANGE", self._keys.projects, 0, -1))]
        )
        projects = sorted(percent_decode(member.decode()) for member in members)
        counts = await self.count(self.sorted_sets(projects, IndexOrder.RECENT))
        return [project for project, count in zip(projects, counts, strict=True) if count]

    def sorted_sets(self, projects: Sequence[str], order: IndexOrder) -> list[SortedSet]:
        """The indexes of these projects in one order."""
        return [SortedSet(project, self._keys.index(project, order)) for project in projects]

    def sets_of_user(self, projects: Sequence[str], user_id: str) -> list[SortedSet]:
        """The sessions of a user in these projects, by when they ended."""
        return [SortedSet(project, self._keys.user(project, user_id)) for project in projects]

    async def count(self, sets: Sequence[SortedSet], between: Between = ALL) -> list[int]:
        """How many entries each has with a score in between."""
        low, high = between.arguments()
        return await self._connections.commands(
            [Command(name, ("ZCARD", name) if between == ALL else ("ZCOUNT", name, low, high)) for _, name in sets]
        )

    async def scored(
        self, sets: Sequence[SortedSet], between: Between = ALL, *, descending: bool = False, most: int = -1
    ) -> list[Scored]:
        """The entries with a score in between, set by set, each in its order; of each at most the first `most`."""
        low, high = between.arguments()
        bounds = (high, low, "BYSCORE", "REV") if descending else (low, high, "BYSCORE")
        replies = await self._connections.commands(
            [Command(name, ("ZRANGE", name, *bounds, "LIMIT", 0, most, "WITHSCORES")) for _, name in sets]
        )
        return [
            Scored(float(score), Entry(one.project, member))
            for one, reply in zip(sets, replies, strict=True)
            for member, score in zip(reply[::2], reply[1::2], strict=True)
        ]

    async def members(self, one: SortedSet, between: Between = ALL, *, descending: bool) -> list[Entry]:
        """All entries of one set with a score in between, in their order."""
        low, high = between.arguments()
        bounds = (high, low, "BYSCORE", "REV") if descending else (low, high, "BYSCORE")
        (reply,) = await self._connections.commands([Command(one.key, ("ZRANGE", one.key, *bounds))])
        return [Entry(one.project, member) for member in reply]

    async def scores(self, entries: Sequence[Entry], order: IndexOrder) -> list[Scored]:
        """Those of the entries that are in the index, with their scores there."""
        by_project: dict[str, list[Entry]] = {}
        for entry in entries:
            by_project.setdefault(entry.project, []).append(entry)
        parts = [
            (project, own[start : start + _SCORES_AT_ONCE])
            for project, own in by_project.items()
            for start in range(0, len(own), _SCORES_AT_ONCE)
        ]
        replies = await self._connections.commands(
            [
                Command(name, ("ZMSCORE", name, *(entry.member for entry in part)))
                for project, part in parts
                for name in (self._keys.index(project, order),)
            ]
        )
        return [
            Scored(float(score), entry)
            for (_, part), reply in zip(parts, replies, strict=True)
            for entry, score in zip(part, reply, strict=True)
            if score is not None
        ]

    async def open_count(self) -> int:
        """How many sessions of all projects are open."""
        names = [self._keys.due(shard) for shard in range(self._keys.closing_shards)]
        return sum(await self._connections.commands([Command(name, ("ZCARD", name)) for name in names]))

    async def open_entries(self, projects: Sequence[str]) -> list[Entry]:
        """The open sessions of these projects."""
        names = [self._keys.due(shard) for shard in range(self._keys.closing_shards)]
        replies = await self._connections.commands([Command(name, ("ZRANGE", name, 0, -1)) for name in names])
        heads = {percent_encode(project).encode(): project for project in projects}
        found = []
        for reply in replies:
            for member in reply:
                head, _, session = member.partition(b"/")
                if head in heads:
                    found.append(Entry(heads[head], session))
        return found

    async def beginning(self, projects: Sequence[str], prefix: str) -> list[Entry]:
        """The sessions whose id or whose user id begins so."""
        names = [self._keys.indexed(shard) for shard in range(self._keys.closing_shards)]
        replies = await self._connections.commands([Command(name, ("ZRANGE", name, 0, -1)) for name in names])
        heads = {percent_encode(project).encode(): project for project in projects}
        wanted = percent_encode(prefix).encode()
        found: dict[Entry, None] = {}
        for reply in replies:
            for record in reply:
                head, session, user_id = record.split(b"/")
                if (session.startswith(wanted) or user_id.startswith(wanted)) and head in heads:
                    found[Entry(heads[head], session)] = None
        return list(found)
