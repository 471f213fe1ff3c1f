"""How far each partition has been applied, in Redis: `progress`, its witnesses, and `watermarks`.

On a Cluster `progress` is on one node, and another may lose what it holds.  So next offsets are noted as well in
witnesses, which are spread so evenly over the slots that each master has one as a rule (see `Keys.witnesses`).  A
partition has been applied as far as the one that knows least says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aggregator.adapters.redis.calls import Command, Connections, Items
from aggregator.adapters.redis.corrupt import CorruptKeys
from aggregator.adapters.redis.keys import Keys
from aggregator.adapters.redis.scripts import PROGRESS_WITNESS, PROGRESS_WRITE, Script, pack
from aggregator.core.errors import CorruptState
from aggregator.core.model import Partition
from aggregator.ports import Applied
from aggregator.telemetry import CorruptKind


class RedisProgress:
    """`ports.Progress`."""

    def __init__(self, connections: Connections, keys: Keys, corrupt: CorruptKeys | None = None) -> None:
        self._connections = connections
        self._keys = keys
        self._corrupt = corrupt or CorruptKeys(connections, keys)
        self._witnesses = keys.witnesses() if connections.spread else ()
        # What was told of a partition when it was read, and what stood in `progress` and in each witness; until the
        # next write.
        self._read: dict[Partition, tuple[int | None, int | None, list[int | None]]] = {}

    async def read(self, partitions: Sequence[Partition]) -> Mapping[Partition, tuple[int | None, int | None]]:
        """See `ports.Progress`."""
        offsets = await self._field_values(self._keys.progress, partitions)
        watermarks = await self._field_values(self._keys.watermarks, partitions)
        least = dict(offsets)
        noted: dict[Partition, list[int | None]] = {who: [] for who in partitions}
        for witness in self._witnesses:
            for who, offset in (await self._field_values(witness, partitions)).items():
                known = least[who]
                least[who] = None if known is None or offset is None else min(known, offset)
                noted[who].append(offset)
        self._read |= {who: (least[who], offsets[who], noted[who]) for who in partitions}
        return {who: (least[who], watermarks[who]) for who in partitions}

    async def write(self, applied: Mapping[Partition, Applied]) -> Mapping[Partition, int | None]:
        """See `ports.Progress`; idempotent: a partition that has our next offset already counts as written.

        On a Cluster the hashes are in several slots.  Witnesses are asked first, and where one has forgotten offsets
        nothing is moved.  A partition that was read just before is being started: its witnesses are told where, and
        one that no longer knows what was read of it has forgotten as well.
        Offsets are moved before watermarks are raised, of those partitions whose offset was.  A crash in between
        leaves a watermark late, which only delays closing until the next write; the other way round it could pass
        records that nobody has applied.
        """
        read = {who: self._read.pop(who) for who in applied if who in self._read}
        stood = {who: main for who, (told, main, _) in read.items() if told == applied[who].previous}
        going = {who: row for who, row in applied.items() if who not in stood}
        known = {who: ([row.previous] * len(self._witnesses), row.next_offset) for who, row in going.items()}
        left = await self._note(known)
        apart = self._connections.spread
        beside = "" if apart else self._keys.watermarks
        moving = {who: row for who, row in applied.items() if who not in left}
        replies = await self._run(
            PROGRESS_WRITE,
            [self._keys.progress] * len(moving),
            [
                (
                    self._keys.progress,
                    beside,
                    self._keys.partition_field(who),
                    _text(stood.get(who, row.previous)),
                    _text(row.next_offset),
                    _text(row.watermark_ms),
                )
                for who, row in moving.items()
            ],
        )
        for who, reply in zip(moving, replies, strict=True):
            if reply != 1:
                left[who] = await self._stored(self._keys.progress, who, reply)
        if apart:
            written = {who: row for who, row in moving.items() if who not in left}
            started = {who: (read[who][2], row.next_offset) for who, row in written.items() if who in stood}
            forgotten = await self._note(started, back=True)
            left |= forgotten
            written = {who: row for who, row in written.items() if who not in forgotten}
            await self._run(
                PROGRESS_WRITE,
                [self._keys.watermarks] * len(written),
                [
                    ("", self._keys.watermarks, self._keys.partition_field(who), "", "", _text(row.watermark_ms))
                    for who, row in written.items()
                ],
            )
        return left

    async def _note(
        self, offsets: Mapping[Partition, tuple[Sequence[int | None], int]], *, back: bool = False
    ) -> dict[Partition, int | None]:
        """Tell each witness the next offset of each partition, given what it must know already, each its own.

        `back` moves it also below that.  Gives the partitions of which a witness has forgotten what it was told, with
        the least that one still knows.
        """
        asked = [
            (who, witness, previous, following)
            for who, (known, following) in offsets.items()
            for witness, previous in zip(self._witnesses, known, strict=True)
        ]
        items = [
            (witness, self._keys.partition_field(who), _text(previous), _text(following), "1" if back else "")
            for who, witness, previous, following in asked
        ]
        replies = await self._run(PROGRESS_WITNESS, [witness for _, witness, _, _ in asked], items)
        forgotten: dict[Partition, int | None] = {}
        for (who, witness, _, _), reply in zip(asked, replies, strict=True):
            if reply != 1:
                stored = await self._stored(witness, who, reply)
                least = forgotten.get(who, stored)
                forgotten[who] = None if stored is None or least is None else min(stored, least)
        return forgotten

    async def watermarks(self, partitions: Sequence[Partition]) -> int | None:
        """See `ports.Progress`; without any partition there is no watermark."""
        known = [ms for ms in (await self._field_values(self._keys.watermarks, partitions)).values() if ms is not None]
        return min(known) if known and len(known) == len(set(partitions)) else None

    async def _run(self, script: Script, keys: Sequence[str], items: Sequence[tuple[str, ...]]) -> list[Any]:
        if not items:
            return []

        async def ask(indexes: Sequence[int]) -> list[Any]:
            chosen = Items([(keys[index],) for index in indexes], [(pack(items[index]),) for index in indexes])
            return await self._connections.call(script, chosen, corrupt_too=True)

        return await self._corrupt.repaired(self._kind(keys[0]), [(key,) for key in keys], ask)

    async def _field_values(self, key: str, partitions: Sequence[Partition]) -> dict[Partition, int | None]:
        if not partitions:
            return {}
        fields = [self._keys.partition_field(who) for who in partitions]

        async def ask(_: Sequence[int]) -> list[Any]:
            return await self._connections.commands([Command(key, ("HMGET", key, *fields))], corrupt_too=True)

        (values,) = await self._corrupt.repaired(self._kind(key), [(key,)], ask)
        return {
            who: None if value is None else await self._number(key, who, value)
            for who, value in zip(partitions, values, strict=True)
        }

    async def _stored(self, key: str, who: Partition, reply: Sequence[bytes]) -> int | None:
        """What stood there instead, as the scripts answer it."""
        return None if reply[0] == b"" else await self._number(key, who, reply[0])

    async def _number(self, key: str, who: Partition, stored: bytes) -> int | None:
        """A number as it is stored; anything else is removed, which is as if Redis had lost it."""
        try:
            return int(stored)
        except ValueError:
            field = self._keys.partition_field(who)
            await self._connections.commands([Command(key, ("HDEL", key, field))])
            problem = CorruptState(f"{key} holds {stored[:100]!r} in {field}, where a number should be")
            self._corrupt.report(self._kind(key), key, problem)
            return None

    def _kind(self, key: str) -> CorruptKind:
        return CorruptKind.WATERMARKS if key == self._keys.watermarks else CorruptKind.PROGRESS


def _text(number: int | None) -> str:
    return "" if number is None else str(number)
