"""The indexes in Redis: a project's sessions by recency, duration, tokens and so on, and those of a user.

They are made of what the session hashes show and of nothing else, so they may be written again at any time, by anyone.
Each session that is in them has an entry in `agg:indexed:<shard>` as well, written before and removed after, which
says under which user it is there and when it is looked at next: so what is gone or has another user is found.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import chain
from math import isfinite
from typing import Any, Final, NamedTuple

from aggregator.adapters.redis.calls import Command, Connections, Items
from aggregator.adapters.redis.corrupt import CorruptKeys
from aggregator.adapters.redis.keys import Keys
from aggregator.adapters.redis.scripts import INDEX_READ, INDEX_WRITE, INDEX_WRITE_ONE, Body, Script, pack
from aggregator.core.errors import CorruptState
from aggregator.core.model import SessionRef
from aggregator.core.naming import percent_encode
from aggregator.ports import IndexOrder, LookedAt
from aggregator.telemetry import CorruptKind

LOOK_EVERY_MS: Final = 120_000
"""What got into the indexes wrongly, or out of them, stays so for this long."""

_LIFE_MORE_MS: Final = 3_600_000  # beyond retention: longer than a look at a million sessions takes
_EXPIRED_MS: Final = 10  # a key whose time is up is gone by then
_PAIRS_PER_ITEM: Final = 50  # an item is bounded, as the number of items in a call is

_SCORED: Final = tuple(order for order in IndexOrder if order is not IndexOrder.CHANGED)


class _Standing(NamedTuple):
    """What the indexes show of a session; `scores` are in the order of `_SCORED`, as they stand in the hash."""

    user_id: str
    scores: tuple[bytes | int, ...]
    ends_in_ms: int  # -1: it does not expire


class _Change:
    """What becomes of one sorted set."""

    __slots__ = ("additions", "removals")

    def __init__(self) -> None:
        self.additions: list[bytes | str | int] = []  # scores and members in turn
        self.removals: list[str | bytes] = []


class _Project:
    """What is added to the indexes of one project: columns, since that is quick to turn into commands."""

    __slots__ = ("looked_at", "members", "scores", "touched")

    def __init__(self) -> None:
        self.members: list[str] = []
        self.scores: list[tuple[bytes | int, ...]] = []
        self.touched: list[str] = []
        self.looked_at: list[str] = []


class _Changes(dict[str, _Change]):
    """What becomes of many sorted sets, by key."""

    def __missing__(self, key: str) -> _Change:
        change = self[key] = _Change()
        return change


class RedisSessionIndex:
    """`ports.SessionIndex`."""

    def __init__(
        self, connections: Connections, keys: Keys, *, retention_ms: int, corrupt: CorruptKeys | None = None
    ) -> None:
        """What can't be read of the indexes goes to `corrupt`; a session that can't be read is not in them."""
        self._connections = connections
        self._keys = keys
        self._corrupt = corrupt or CorruptKeys(connections, keys)
        self._life_ms = retention_ms + _LIFE_MORE_MS

    async def write(self, refs: Sequence[SessionRef], *, now_ms: int) -> None:
        """See `ports.SessionIndex`; idempotent, as it sets what the hashes show."""
        await self._write([LookedAt(ref, None) for ref in refs], now_ms)

    async def look(self, entries: Sequence[LookedAt], *, now_ms: int) -> None:
        """See `ports.SessionIndex`."""
        await self._write(entries, now_ms)

    async def _write(self, entries: Sequence[LookedAt], now_ms: int) -> None:
        found = await self._read([entry.ref for entry in entries])
        records, changes, after = _Changes(), _Changes(), _Changes()
        projects: defaultdict[str, _Project] = defaultdict(_Project)
        removed: dict[SessionRef, _Standing | None] = {}
        keys = self._keys
        for (ref, user_id), standing in zip(entries, found, strict=True):
            name = keys.encoded(ref)
            project, _, member = name.partition("/")
            indexed = keys.indexed(keys.shard_of(name))
            if standing is not None:
                shown = projects[project]
                shown.members.append(member)
                shown.scores.append(standing.scores)
                (shown.touched if user_id is None else shown.looked_at).append(member)
                self._show_under_user(name, standing, records[indexed], changes, now_ms)
            else:
                for order in IndexOrder:
                    changes[keys.index(ref.project, order)].removals.append(member)
                removed[ref] = standing
            if user_id is not None and (standing is None or standing.user_id != user_id):
                if user_id:
                    changes[keys.user(ref.project, user_id)].removals.append(member)
                after[indexed].removals.append(keys.indexed_member(ref, user_id))
                removed[ref] = standing
        await self._apply(records)
        await self._show(projects, now_ms)
        await self._apply(changes)
        await self._apply(after)
        if removed:
            await self._write_again(removed, now_ms)

    async def _write_again(self, removed: Mapping[SessionRef, _Standing | None], now_ms: int) -> None:
        """Put back what another worker wrote between our reading and our removing."""
        found = await self._read(list(removed))
        again = [
            LookedAt(ref, None)
            for (ref, was), standing in zip(removed.items(), found, strict=True)
            if standing is not None and (was is None or standing.user_id != was.user_id)
        ]
        if again:
            await self._write(again, now_ms)

    def _show_under_user(self, name: str, standing: _Standing, record: _Change, changes: _Changes, now_ms: int) -> None:
        ends_in_ms = LOOK_EVERY_MS if standing.ends_in_ms < 0 else standing.ends_in_ms + _EXPIRED_MS
        user = percent_encode(standing.user_id)
        record.additions += (now_ms + min(LOOK_EVERY_MS, ends_in_ms), f"{name}/{user}")
        if user:
            project, _, member = name.partition("/")
            changes[self._keys.encoded_user(project, user)].additions += (standing.scores[0], member)

    async def _show(self, projects: Mapping[str, _Project], now_ms: int) -> None:
        changes, looks = _Changes(), _Changes()
        for project, shown in projects.items():
            for order, scores in zip(_SCORED, zip(*shown.scores, strict=True), strict=True):
                key = self._keys.encoded_index(project, order)
                changes[key].additions = list(chain.from_iterable(zip(scores, shown.members, strict=True)))
            key = self._keys.encoded_index(project, IndexOrder.CHANGED)
            if shown.touched:
                changes[key].additions = [one for member in shown.touched for one in (now_ms, member)]
            if shown.looked_at:  # nothing has happened to them
                looks[key].additions = [one for member in shown.looked_at for one in (now_ms, member)]
            changes[self._keys.projects].additions += (now_ms, project)
        await self._apply(changes)
        await self._apply(looks, keep=True)

    async def _apply(self, changes: _Changes, *, keep: bool = False) -> None:
        """Send them; with `keep` a member that is there already keeps its score."""
        one: list[tuple[str, Body]] = []
        many: list[tuple[str, Body]] = []
        for key, change in changes.items():
            additions, removals = change.additions, change.removals
            pairs = max(len(additions) // 2, len(removals))
            for start in range(0, pairs, _PAIRS_PER_ITEM):
                added = additions[2 * start : 2 * (start + _PAIRS_PER_ITEM)]
                removed = removals[start : start + _PAIRS_PER_ITEM]
                body = (pack((key, self._life_ms, "NX" if keep else "", added, removed)),)
                (one if pairs == 1 else many).append((key, body))
        for script, items in ((INDEX_WRITE, many), (INDEX_WRITE_ONE, one)):
            if items:
                await self._send(script, [(key,) for key, _ in items], [body for _, body in items])

    async def _send(self, script: Script, names: Sequence[tuple[str]], bodies: Sequence[Body]) -> None:
        async def ask(indexes: Sequence[int]) -> list[Any]:
            items = Items([names[index] for index in indexes], [bodies[index] for index in indexes])
            return await self._connections.call(script, items, corrupt_too=True)

        await self._corrupt.repaired(CorruptKind.INDEX, names, ask)

    async def users(self, refs: Sequence[SessionRef]) -> list[str | None]:
        """The user that each session shows ("" for none); None where it is not to be in the indexes."""
        return [None if standing is None else standing.user_id for standing in await self._read(refs)]

    async def _read(self, refs: Sequence[SessionRef]) -> list[_Standing | None]:
        names = [(self._keys.session(ref).session,) for ref in refs]
        items = Items(names, [(pack(name),) for (name,) in names])
        return [_standing(reply) for reply in await self._connections.call(INDEX_READ, items, corrupt_too=True)]

    async def due(self, shards: Sequence[int], *, now_ms: int, limit: int) -> Sequence[LookedAt]:
        """See `ports.SessionIndex`; projects that nothing was written of for the life of a key are forgotten too."""
        keys = self._keys
        share = -(-limit // max(1, len(shards)))
        wanted = [
            Command(keys.projects, ("ZREMRANGEBYSCORE", keys.projects, "-inf", now_ms - self._life_ms)),
            *(
                Command(key, ("ZRANGE", key, "-inf", now_ms, "BYSCORE", "LIMIT", 0, share))
                for key in map(keys.indexed, shards)
            ),
        ]

        async def ask(indexes: Sequence[int]) -> list[Any]:
            return await self._connections.commands([wanted[index] for index in indexes], corrupt_too=True)

        replies = await self._corrupt.repaired(CorruptKind.INDEX, [(command.key,) for command in wanted], ask)
        found: list[LookedAt] = []
        strange = _Changes()
        for shard, members in zip(shards, replies[1:], strict=True):
            for member in members:
                try:
                    found.append(LookedAt(*keys.indexed_ref(shard, member)))
                except CorruptState as error:
                    self._corrupt.report(CorruptKind.INDEX, keys.indexed(shard), error)
                    strange[keys.indexed(shard)].removals.append(member)
        await self._apply(strange)
        return found

    async def open_sessions(self, shard: int) -> Sequence[SessionRef]:
        """See `ports.SessionIndex`: what the deadline index holds."""
        key = self._keys.due(shard)
        (members,) = await self._connections.commands([Command(key, ("ZRANGE", key, 0, -1))], corrupt_too=True)
        refs: list[SessionRef] = []
        for member in () if isinstance(members, CorruptState) else members:
            with suppress(CorruptState):  # the read path reports what can't be read there, and takes it away
                refs.append(self._keys.due_ref(shard, member))
        return refs


def _standing(reply: Any) -> _Standing | None:
    """What a session shows; nothing where it can't be read, which the paths report when they meet it."""
    if not reply or isinstance(reply, CorruptState):
        return None
    try:
        ends_in_ms, traces, ended_at, last_activity_ms, duration_ms, tokens, cost, errors, user_id = reply
        if int(traces) <= 0:  # left by all its traces, which only its next summary has still to say
            return None
        ended_ms = time_ms(ended_at.decode()) if ended_at else int(last_activity_ms)
        if not all(isfinite(float(number)) for number in (duration_ms or b"0", tokens, cost, errors)):
            return None  # Redis would refuse it, and with it the others of the call
        scores = (ended_ms, duration_ms or b"0", tokens, cost, errors, traces)
        return _Standing(user_id.decode() if user_id else "", scores, ends_in_ms)
    except (ValueError, TypeError, AttributeError):
        return None


def time_ms(text: str) -> int:
    """Milliseconds since the epoch, rounded down, of RFC 3339 as it stands in a session hash."""
    time = datetime.fromisoformat(text)
    return int(time.timestamp()) * 1000 + time.microsecond // 1000
