"""The deadline index in Redis: one sorted set per shard."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from itertools import chain
from math import floor, isinf
from typing import Any, Final

from aggregator.adapters.redis.calls import Command, Connections, Items
from aggregator.adapters.redis.corrupt import CorruptKeys
from aggregator.adapters.redis.keys import Keys
from aggregator.adapters.redis.scripts import SCHEDULE_MOVE, pack
from aggregator.core.errors import CorruptState
from aggregator.core.model import SessionRef
from aggregator.ports import DueEntry
from aggregator.telemetry import CorruptKind

_PARTS: Final = 1024
"""Of a millisecond: as fine as a score, which is a double, tells times until the year 2248."""


class RedisSchedule:
    """`ports.Schedule`."""

    def __init__(self, connections: Connections, keys: Keys, corrupt: CorruptKeys | None = None) -> None:
        self._connections = connections
        self._keys = keys
        self._corrupt = corrupt or CorruptKeys(connections, keys)

    async def add(self, deadlines: Sequence[tuple[SessionRef, int]]) -> None:
        """See `ports.Schedule`; idempotent, as it sets."""
        keys = self._keys
        by_shard: dict[int, dict[str, int]] = {}
        for ref, deadline_ms in deadlines:
            by_shard.setdefault(keys.shard(ref), {})[keys.due_member(ref)] = deadline_ms
        commands = []
        for shard, members in by_shard.items():
            pairs: list[str | int] = []
            for member, deadline_ms in members.items():
                pairs += (deadline_ms, member)
            commands.append(Command(keys.due(shard), ("ZADD", keys.due(shard), *pairs)))
        await self._commands(commands)

    async def due(self, shards: Sequence[int], *, watermark_ms: int, limit: int) -> Sequence[DueEntry]:
        """See `ports.Schedule`.

        Each shard is asked for its share of the limit, and those that may have more for the rest, so that many shards
        do not send `limit` entries each.
        """
        if not shards or limit <= 0:
            return []
        share = -(-limit // len(shards))
        found = await self._earliest(shards, watermark_ms, 0, share)
        missing = limit - sum(map(len, found.values()))
        more = [shard for shard, entries in found.items() if len(entries) == share]
        if missing > 0 and more:
            for shard, entries in (await self._earliest(more, watermark_ms, share, missing)).items():
                found[shard] += entries
        return sorted(chain(*found.values()), key=lambda entry: entry.deadline_ms)[:limit]

    async def _earliest(
        self, shards: Sequence[int], watermark_ms: int, offset: int, count: int
    ) -> dict[int, list[DueEntry]]:
        keys = self._keys
        replies = await self._commands(
            [
                Command(
                    key,
                    ("ZRANGE", key, "-inf", watermark_ms, "BYSCORE", "LIMIT", offset, count, "WITHSCORES"),
                )
                for key in map(keys.due, shards)
            ]
        )
        found: dict[int, list[DueEntry]] = {}
        for shard, reply in zip(shards, replies, strict=True):
            found[shard] = []
            for member, score in zip(reply[::2], reply[1::2], strict=True):
                try:
                    found[shard].append(DueEntry(shard, keys.due_ref(shard, member), _time(score)))
                except CorruptState as error:
                    await self._drop(shard, member, error)
        return found

    async def _drop(self, shard: int, member: bytes, error: Exception) -> None:
        """Remove an entry that names no session, or no time: no open session is without one that does."""
        key = self._keys.due(shard)
        await self._commands([Command(key, ("ZREM", key, member))])
        self._corrupt.report(CorruptKind.DUE, key, CorruptState(str(error)))

    async def _commands(self, commands: Sequence[Command]) -> list[Any]:
        async def ask(indexes: Sequence[int]) -> list[Any]:
            return await self._connections.commands([commands[index] for index in indexes], corrupt_too=True)

        return await self._corrupt.repaired(CorruptKind.DUE, [(command.key,) for command in commands], ask)

    async def hold(self, entries: Sequence[DueEntry]) -> Sequence[DueEntry]:
        """See `ports.Schedule`; by chance two who hold the same entry use different marks."""
        held = [
            entry._replace(deadline_ms=floor(entry.deadline_ms) - (1 + secrets.randbelow(_PARTS - 1)) / _PARTS)
            for entry in entries
        ]
        moved = await self._moved([(entry, mark.deadline_ms) for entry, mark in zip(entries, held, strict=True)])
        return [mark for mark, done in zip(held, moved, strict=True) if done == 1]

    async def move(self, moves: Sequence[tuple[DueEntry, int | None]]) -> None:
        """See `ports.Schedule`; a repeat finds another deadline than the one that was read and does nothing."""
        await self._moved(moves)

    async def _moved(self, moves: Sequence[tuple[DueEntry, float | None]]) -> list[Any]:
        names, bodies = [], []
        for entry, new_ms in moves:
            key, member = self._keys.due(entry.shard), self._keys.due_member(entry.ref)
            names.append((key,))
            bodies.append((pack((key, member, repr(entry.deadline_ms), "" if new_ms is None else repr(new_ms))),))

        async def ask(indexes: Sequence[int]) -> list[Any]:
            items = Items([names[index] for index in indexes], [bodies[index] for index in indexes])
            return await self._connections.call(SCHEDULE_MOVE, items, corrupt_too=True)

        return await self._corrupt.repaired(CorruptKind.DUE, names, ask)

    async def remove(self, refs: Sequence[SessionRef]) -> None:
        """See `ports.Schedule`; idempotent."""
        keys = self._keys
        await self._commands(
            [Command(key, ("ZREM", key, keys.due_member(ref))) for ref in refs for key in (keys.due(keys.shard(ref)),)]
        )

    async def count(self, shards: Sequence[int]) -> int:
        """See `ports.Schedule`."""
        keys = [self._keys.due(shard) for shard in shards]
        return sum(await self._commands([Command(key, ("ZCARD", key)) for key in keys]))


def _time(score: bytes) -> float:
    deadline_ms = float(score)
    if isinf(deadline_ms):
        raise CorruptState(f"{deadline_ms} is no time")
    return deadline_ms
