"""The clock of Redis; on a Cluster that of the node which keeps the watermarks."""

from __future__ import annotations

from aggregator.adapters.redis.calls import Command, Connections
from aggregator.adapters.redis.keys import Keys


class RedisTime:
    """`ports.SharedClock`."""

    def __init__(self, connections: Connections, keys: Keys) -> None:
        self._connections = connections
        self._key = keys.watermarks

    async def now_ms(self) -> int:
        """See `ports.SharedClock`; raises `StoreUnavailable` where it does not answer."""
        ((seconds, microseconds),) = await self._connections.commands([Command(self._key, ("TIME",))])
        return int(seconds) * 1000 + int(microseconds) // 1000
