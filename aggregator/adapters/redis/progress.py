"""How far each partition has been applied, in Redis: `progress` and `watermarks`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aggregator.adapters.redis.calls import Command, Connections, Items
from aggregator.adapters.redis.keys import Keys
from aggregator.adapters.redis.scripts import PROGRESS_WRITE, pack
from aggregator.core.errors import CorruptState
from aggregator.core.model import Partition
from aggregator.ports import Applied


class RedisProgress:
    """`ports.Progress`."""

    def __init__(self, connections: Connections, keys: Keys) -> None:
        self._connections = connections
        self._keys = keys

    async def read(self, partitions: Sequence[Partition]) -> Mapping[Partition, tuple[int | None, int | None]]:
        """See `ports.Progress`."""
        offsets = await self._field_values(self._keys.progress, partitions)
        watermarks = await self._field_values(self._keys.watermarks, partitions)
        return {who: (offsets[who], watermarks[who]) for who in partitions}

    async def write(self, applied: Mapping[Partition, Applied]) -> Mapping[Partition, int | None]:
        """See `ports.Progress`; idempotent: a partition that has our next offset already counts as written.

        On a Cluster the two hashes are in two slots, so offsets are moved first and watermarks raised after, of those
        partitions whose offset was.  A crash in between leaves a watermark late, which only delays closing until the
        next write; the other way round it could pass records that nobody has applied.
        """
        apart = self._connections.spread
        beside = "" if apart else self._keys.watermarks
        fields = [self._keys.partition_field(who) for who in applied]
        replies = await self._run(
            self._keys.progress,
            [
                (
                    self._keys.progress,
                    beside,
                    field,
                    _text(row.previous),
                    _text(row.next_offset),
                    _text(row.watermark_ms),
                )
                for field, row in zip(fields, applied.values(), strict=True)
            ],
        )
        left = {
            who: None if reply[0] == b"" else _number(self._keys.progress, reply[0])
            for who, reply in zip(applied, replies, strict=True)
            if reply != 1
        }
        if apart:
            await self._run(
                self._keys.watermarks,
                [
                    ("", self._keys.watermarks, field, "", "", _text(row.watermark_ms))
                    for field, (who, row) in zip(fields, applied.items(), strict=True)
                    if who not in left
                ],
            )
        return left

    async def watermarks(self, partitions: Sequence[Partition]) -> int | None:
        """See `ports.Progress`; without any partition there is no watermark."""
        known = [ms for ms in (await self._field_values(self._keys.watermarks, partitions)).values() if ms is not None]
        return min(known) if known and len(known) == len(set(partitions)) else None

    async def _run(self, key: str, items: Sequence[tuple[str, ...]]) -> list[Any]:
        if not items:
            return []
        return await self._connections.call(
            PROGRESS_WRITE, Items([(key,)] * len(items), [(pack(item),) for item in items])
        )

    async def _field_values(self, key: str, partitions: Sequence[Partition]) -> dict[Partition, int | None]:
        if not partitions:
            return {}
        fields = [self._keys.partition_field(who) for who in partitions]
        (values,) = await self._connections.commands([Command(key, ("HMGET", key, *fields))])
        return {
            who: None if value is None else _number(key, value) for who, value in zip(partitions, values, strict=True)
        }


def _number(key: str, stored: bytes) -> int:
    try:
        return int(stored)
    except ValueError as error:
        raise CorruptState(f"{key} holds {stored!r} where a number should be") from error


def _text(number: int | None) -> str:
    return "" if number is None else str(number)
