"""Level 1 in Redis: trace states, stored by compare-and-set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from aggregator.adapters.redis.calls import Command, Connections, Items
from aggregator.adapters.redis.keys import Keys
from aggregator.adapters.redis.scripts import TRACE_STORE
from aggregator.core.errors import CorruptState
from aggregator.core.packing import packed_texts
from aggregator.core.state import stamped_version
from aggregator.ports import StoredTrace, TraceWrite

NOTHING: Final = StoredTrace(b"", b"")


class RedisTraces:
    """`ports.TraceStore`."""

    def __init__(self, connections: Connections, keys: Keys) -> None:
        self._connections = connections
        self._keys = keys

    async def store(self, writes: Sequence[TraceWrite]) -> Sequence[StoredTrace | None]:
        """See `ports.TraceStore`; idempotent by the compare-and-set itself."""
        key = self._keys.trace
        names = [(key(write.trace_id),) for write in writes]
        # The life travels as text: Redis takes text, and Lua would write a large number with an exponent.
        bodies = [
            (packed_texts(name[0], write.expected.decode(), str(write.ttl_ms)), b"%b %b" % (write.stamp, write.state))
            for name, write in zip(names, writes, strict=True)
        ]
        replies = await self._connections.call(TRACE_STORE, Items(names, bodies))
        return [None if reply is None else _stored(name[0], *reply) for name, reply in zip(names, replies, strict=True)]

    async def load(self, trace_ids: Sequence[bytes]) -> Sequence[StoredTrace]:
        """See `ports.TraceStore`."""
        names = [self._keys.trace(trace_id) for trace_id in trace_ids]
        replies = await self._connections.commands([Command(name, ("GET", name)) for name in names])
        return [
            NOTHING if reply is None else _stored(name, *reply.partition(b" ")[::2])
            for name, reply in zip(names, replies, strict=True)
        ]


def _stored(key: str, stamp: bytes, state: bytes) -> StoredTrace:
    try:
        stamped_version(stamp)
    except ValueError as error:
        raise CorruptState(f"{key} holds no trace state of this program") from error
    return StoredTrace(stamp, state)
