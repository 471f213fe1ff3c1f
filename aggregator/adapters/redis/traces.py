"""Level 1 in Redis: trace states, stored by compare-and-set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from aggregator.adapters.redis.calls import Command, Connections, Items
from aggregator.adapters.redis.corrupt import CorruptKeys
from aggregator.adapters.redis.keys import Keys
from aggregator.adapters.redis.scripts import TRACE_STORE
from aggregator.core.errors import CorruptState
from aggregator.core.packing import packed_texts
from aggregator.core.state import ERASED_STAMP, stamp_of, stamped_version
from aggregator.ports import StoredTrace, TraceWrite
from aggregator.telemetry import CorruptKind

NOTHING: Final = StoredTrace(b"", b"")


class RedisTraces:
    """`ports.TraceStore`."""

    def __init__(self, connections: Connections, keys: Keys, corrupt: CorruptKeys | None = None) -> None:
        self._connections = connections
        self._keys = keys
        self._corrupt = corrupt or CorruptKeys(connections, keys)

    async def store(self, writes: Sequence[TraceWrite]) -> Sequence[StoredTrace | None]:
        """See `ports.TraceStore`; idempotent by the compare-and-set itself."""
        key = self._keys.trace
        names = [(key(write.trace_id),) for write in writes]
        # The life travels as text: Redis takes text, and Lua would write a large number with an exponent.
        bodies = [
            (packed_texts(name[0], write.expected.decode(), str(write.ttl_ms)), b"%b %b" % (write.stamp, write.state))
            for name, write in zip(names, writes, strict=True)
        ]

        async def ask(indexes: Sequence[int]) -> list[Any]:
            items = Items([names[index] for index in indexes], [bodies[index] for index in indexes])
            return await self._connections.call(TRACE_STORE, items, corrupt_too=True)

        replies = await self._corrupt.repaired(CorruptKind.TRACE, names, ask, _problem_if_any)
        return [None if reply is None else StoredTrace(*reply) for reply in replies]

    async def load(self, trace_ids: Sequence[bytes]) -> Sequence[StoredTrace]:
        """See `ports.TraceStore`."""
        names = [(self._keys.trace(trace_id),) for trace_id in trace_ids]

        async def ask(indexes: Sequence[int]) -> list[Any]:
            gets = [Command(names[index][0], ("GET", names[index][0])) for index in indexes]
            replies = await self._connections.commands(gets, corrupt_too=True)
            return [reply.partition(b" ")[::2] if isinstance(reply, bytes) else reply for reply in replies]

        replies = await self._corrupt.repaired(CorruptKind.TRACE, names, ask, _problem)
        return [NOTHING if reply is None or reply[0] == ERASED_STAMP else StoredTrace(*reply) for reply in replies]


def _problem_if_any(names: Sequence[str], stored: Sequence[bytes]) -> CorruptState | None:
    """As below; two empty texts say that nothing is stored."""
    return _problem(names, stored) if any(stored) else None


def _problem(names: Sequence[str], stored: Sequence[bytes]) -> CorruptState | None:
    """What is wrong with a stamp and a state."""
    stamp, state = stored
    if stamp == ERASED_STAMP and not state:
        return None
    try:
        if stamp_of(stamped_version(stamp), state) == stamp:
            return None
    except (ValueError, OverflowError):
        pass
    return CorruptState(f"{names[0]} holds no trace state of this program")
