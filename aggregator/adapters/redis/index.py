"""The indexes in Redis: a project's sessions by recency, duration, tokens and so on, and those of a user.

They are made of what the session hashes show and of nothing else, so they may be written again at any time, by anyone.
Each session that is in them has an entry in `agg:indexed:<shard>` as well, written before and removed after, which
says under which user it is there and when it is looked at next: so what is gone or has another user is found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from aggregator.adapters.redis.calls import Command, Connections, Items
from aggregator.adapters.redis.keys import Keys
from aggregator.adapters.redis.scripts import INDEX_READ, INDEX_WRITE, Body, pack
from aggregator.core.errors import CorruptState
from aggregator.core.model import SessionRef
from aggregator.core.naming import percent_encode
from aggregator.ports import IndexOrder, LookedAt

LOOK_EVERY_MS: Final = 120_000
"""What got into the indexes wrongly, or out of them, stays so for this long."""

_LIFE_MORE_MS: Final = 3_600_000  # beyond retention: longer than a look at a million sessions takes
_EXPIRED_MS: Final = 10  # a key whose time is up is gone by then
_PAIRS_PER_ITEM: Final = 25  # an item is bounded, as the number of items in a call is

_SCORED: Final = tuple(order for order in IndexOrder if order is not IndexOrder.CHANGED)


class _Standing(NamedTuple):
    """What the indexes show of a session; `scores` are in the order of `_SCORED`."""

    user_id: str
    scores: tuple[str | int, ...]
    ends_in_ms: int  # -1: it does not expire


class _Change:
    """What becomes of one sorted set."""

    __slots__ = ("additions", "keep", "removals")

    def __init__(self, *, keep: bool) -> None:
        self.keep = keep  # scores that are there already
        self.additions: list[str | int] = []
        self.removals: list[str] = []


class _Changes:
    """What becomes of many sorted sets."""

    def __init__(self) -> None:
        self._changes: dict[tuple[str, bool], _Change] = {}

    def of(self, key: str, *, keep: bool = False) -> _Change:
        """Those of one set; `keep` leaves the scores of members that are there already."""
        change = self._changes.get((key, keep))
        if change is None:
            change = self._changes[key, keep] = _Change(keep=keep)
        return change

    def items(self, life_ms: int) -> Iterator[tuple[tuple[str], Body]]:
        """Keys and bodies as `index_write.lua` takes them, each of a bounded size."""
        for (key, keep), change in self._changes.items():
            additions, removals = change.additions, change.removals
            for start in range(0, max(len(additions), 2 * len(removals), 1), 2 * _PAIRS_PER_ITEM):
                added = additions[start : start + 2 * _PAIRS_PER_ITEM]
                removed = removals[start // 2 : start // 2 + _PAIRS_PER_ITEM]
                yield (key,), (pack((key, life_ms, "NX" if keep else "", added, removed)),)


class RedisSessionIndex:
    """`ports.SessionIndex`."""

    def __init__(self, connections: Connections, keys: Keys, *, retention_ms: int) -> None:
        self._connections = connections
        self._keys = keys
        self._life_ms = retention_ms + _LIFE_MORE_MS

    async def write(self, refs: Sequence[SessionRef], *, now_ms: int) -> None:
        """See `ports.SessionIndex`; idempotent, as it sets what the hashes show."""
        await self._write([LookedAt(ref, None) for ref in refs], now_ms)

    async def look(self, entries: Sequence[LookedAt], *, now_ms: int) -> None:
        """See `ports.SessionIndex`."""
        await self._write(entries, now_ms)

    async def _write(self, entries: Sequence[LookedAt], now_ms: int) -> None:
        found = await self._read([entry.ref for entry in entries])
        before, changes, after = _Changes(), _Changes(), _Changes()
        removed: dict[SessionRef, _Standing | None] = {}
        for entry, standing in zip(entries, found, strict=True):
            ref, user_id = entry
            if standing is not None:
                self._show(entry, standing, now_ms, before, changes)
            else:
                self._hide(ref, changes)
                removed[ref] = standing
            if user_id is not None and (standing is None or standing.user_id != user_id):
                self._leave_user(ref, user_id, changes)
                after.of(self._keys.indexed(self._keys.shard(ref))).removals.append(
                    self._keys.indexed_member(ref, user_id)
                )
                removed[ref] = standing
        for project in {ref.project for (ref, _), standing in zip(entries, found, strict=True) if standing is not None}:
            changes.of(self._keys.projects).additions += (now_ms, percent_encode(project))
        for step in (before, changes, after):
            await self._apply(step)
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

    def _show(self, entry: LookedAt, standing: _Standing, now_ms: int, before: _Changes, changes: _Changes) -> None:
        keys, ref = self._keys, entry.ref
        member = percent_encode(ref.session_id)
        ends_in_ms = LOOK_EVERY_MS if standing.ends_in_ms < 0 else standing.ends_in_ms + _EXPIRED_MS
        look_at_ms = now_ms + min(LOOK_EVERY_MS, ends_in_ms)
        before.of(keys.indexed(keys.shard(ref))).additions += (look_at_ms, keys.indexed_member(ref, standing.user_id))
        for order, score in zip(_SCORED, standing.scores, strict=True):
            changes.of(keys.index(ref.project, order)).additions += (score, member)
        only_looked_at = entry.user_id is not None
        changed = changes.of(keys.index(ref.project, IndexOrder.CHANGED), keep=only_looked_at)
        changed.additions += (now_ms, member)
        if standing.user_id:
            changes.of(keys.user(ref.project, standing.user_id)).additions += (standing.scores[0], member)

    def _hide(self, ref: SessionRef, changes: _Changes) -> None:
        for order in IndexOrder:
            changes.of(self._keys.index(ref.project, order)).removals.append(percent_encode(ref.session_id))

    def _leave_user(self, ref: SessionRef, user_id: str, changes: _Changes) -> None:
        if user_id:
            changes.of(self._keys.user(ref.project, user_id)).removals.append(percent_encode(ref.session_id))

    async def _apply(self, changes: _Changes) -> None:
        items = list(changes.items(self._life_ms))
        if items:
            names, bodies = zip(*items, strict=True)
            await self._connections.call(INDEX_WRITE, Items(names, bodies))

    async def users(self, refs: Sequence[SessionRef]) -> list[str | None]:
        """The user that each session shows ("" for none); None where it is not to be in the indexes."""
        return [None if standing is None else standing.user_id for standing in await self._read(refs)]

    async def _read(self, refs: Sequence[SessionRef]) -> list[_Standing | None]:
        names = [(self._keys.session(ref).session,) for ref in refs]
        replies = await self._connections.call(INDEX_READ, Items(names, [(pack(name),) for (name,) in names]))
        return [_standing(name, reply) for (name,), reply in zip(names, replies, strict=True)]

    async def due(self, shards: Sequence[int], *, now_ms: int, limit: int) -> Sequence[LookedAt]:
        """See `ports.SessionIndex`; projects that nothing was written of for the life of a key are forgotten too."""
        keys = self._keys
        share = -(-limit // max(1, len(shards)))
        replies = await self._connections.commands(
            [
                Command(keys.projects, ("ZREMRANGEBYSCORE", keys.projects, "-inf", now_ms - self._life_ms)),
                *(
                    Command(key, ("ZRANGE", key, "-inf", now_ms, "BYSCORE", "LIMIT", 0, share))
                    for key in map(keys.indexed, shards)
                ),
            ]
        )
        return [
            LookedAt(*keys.indexed_ref(shard, member))
            for shard, members in zip(shards, replies[1:], strict=True)
            for member in members
        ]

    async def open_sessions(self, shard: int) -> Sequence[SessionRef]:
        """See `ports.SessionIndex`: what the deadline index holds."""
        key = self._keys.due(shard)
        (members,) = await self._connections.commands([Command(key, ("ZRANGE", key, 0, -1))])
        return [self._keys.due_ref(shard, member) for member in members]


def _standing(key: str, reply: Any) -> _Standing | None:
    if not reply:
        return None
    try:
        ends_in_ms, traces, ended_at, last_activity_ms, duration_ms, tokens, cost, errors, user_id = reply
        if int(traces) <= 0:  # left by all its traces, which only its next summary has still to say
            return None
        ended_ms = time_ms(ended_at.decode()) if ended_at else int(last_activity_ms)
        duration = duration_ms.decode() if duration_ms else "0"
        scores = (ended_ms, duration, int(tokens), int(cost), int(errors), int(traces))
        return _Standing(user_id.decode() if user_id else "", scores, ends_in_ms)
    except (ValueError, TypeError, AttributeError) as error:
        raise CorruptState(f"{key} can't be read: {error}") from error


def time_ms(text: str) -> int:
    """Milliseconds since the epoch, rounded down, of RFC 3339 as it stands in a session hash."""
    time = datetime.fromisoformat(text)
    return int(time.timestamp()) * 1000 + time.microsecond // 1000
