"""Reading what anybody may read: session hashes, their traces and models, and the indexes.

Only plain commands that change nothing are sent, so that a Redis user with `+@read` alone can be given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from aggregator.adapters.redis.calls import Command, Connections
from aggregator.adapters.redis.keys import Keys
from aggregator.core.model import SessionRef
from aggregator.core.naming import decode_ref, percent_decode, percent_encode
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
        projects = [percent_decode(member.decode()) for member in members]
        counts = await self.counts(projects)
        return sorted(project for project, count in counts.items() if count)

    async def counts(self, projects: Sequence[str]) -> dict[str, int]:
        """How many sessions each project has."""
        names = [self._keys.index(project, IndexOrder.RECENT) for project in projects]
        counts = await self._connections.commands([Command(name, ("ZCARD", name)) for name in names])
        return dict(zip(projects, counts, strict=True))

    async def ranked(
        self, projects: Sequence[str], order: IndexOrder, first: int, last: int, *, descending: bool
    ) -> list[list[Scored]]:
        """Per project the entries of these ranks (both included, -1 is the last)."""
        names = [self._keys.index(project, order) for project in projects]
        reverse = ("REV",) if descending else ()
        replies = await self._connections.commands(
            [Command(name, ("ZRANGE", name, first, last, *reverse, "WITHSCORES")) for name in names]
        )
        return [list(_scored(project, reply)) for project, reply in zip(projects, replies, strict=True)]

    async def members(self, project: str, order: IndexOrder, *, descending: bool) -> list[Entry]:
        """All entries of one project in their order."""
        name = self._keys.index(project, order)
        reverse = ("REV",) if descending else ()
        (reply,) = await self._connections.commands([Command(name, ("ZRANGE", name, 0, -1, *reverse))])
        return [Entry(project, member) for member in reply]

    async def between(
        self, projects: Sequence[str], order: IndexOrder, least: float | None, most: float | None
    ) -> list[Scored]:
        """The entries with scores from `least` to `most`, both included."""
        names = [self._keys.index(project, order) for project in projects]
        low, high = ("-inf" if least is None else repr(least)), ("+inf" if most is None else repr(most))
        replies = await self._connections.commands(
            [Command(name, ("ZRANGE", name, low, high, "BYSCORE", "WITHSCORES")) for name in names]
        )
        return [
            scored for project, reply in zip(projects, replies, strict=True) for scored in _scored(project, reply)
        ]

    async def of_user(self, projects: Sequence[str], user_id: str) -> list[Scored]:
        """The sessions of a user, scored by when they ended."""
        names = [self._keys.user(project, user_id) for project in projects]
        replies = await self._connections.commands(
            [Command(name, ("ZRANGE", name, 0, -1, "WITHSCORES")) for name in names]
        )
        return [
            scored for project, reply in zip(projects, replies, strict=True) for scored in _scored(project, reply)
        ]

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

    async def percentile_scores(self, project: str, order: IndexOrder, shares: Sequence[float]) -> Mapping[float, float]:
        """The scores at these shares of the index (nearest rank); empty where it holds nothing."""
        name = self._keys.index(project, order)
        (count,) = await self._connections.commands([Command(name, ("ZCARD", name))])
        if not count:
            return {}
        ranks = [max(0, -(-round(share * count * 1000) // 1000) - 1) for share in shares]
        replies = await self._connections.commands(
            [Command(name, ("ZRANGE", name, rank, rank, "WITHSCORES")) for rank in ranks]
        )
        return {share: float(reply[1]) for share, reply in zip(shares, replies, strict=True) if reply}


def _scored(project: str, reply: Sequence[bytes]) -> Iterator[Scored]:
    for member, score in zip(reply[::2], reply[1::2], strict=True):
        yield Scored(float(score), Entry(project, member))


__all__ = ["SESSION_FIELDS", "Entry", "RedisListing", "Scored", "decode_ref"]
