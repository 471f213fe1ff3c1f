"""What the servers are: for start-up, for `check`, and to notice another one after a reconnect."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from aggregator.adapters.redis.calls import Connections
from aggregator.adapters.redis.failures import translated
from aggregator.adapters.redis.wire import packed


class Eviction(StrEnum):
    """What a server may drop when its memory is full."""

    NOTHING = "nothing"  # it refuses writes instead; they are retried
    EXPIRING = "expiring"  # keys with a time to live: trace states, whose late spans then can't be told from duplicates
    ANYTHING = "anything"  # open sessions as well


class Server(NamedTuple):
    """One server, as it describes itself."""

    address: str
    software: str  # redis or valkey
    version: str
    run_id: str  # another one after every restart
    cluster: bool
    role: str  # master or slave
    maxmemory_policy: str
    eviction: Eviction

    @property
    def is_replica(self) -> bool:
        """It takes no writes, perhaps only until a failover is over."""
        return self.role not in ("master", "")


async def servers(connections: Connections) -> Sequence[Server]:
    """Ask every server that holds keys; raises `StoreUnavailable` where one does not answer."""
    found = []
    for node in await connections.nodes():
        (reply,) = await node.exchange([packed("INFO")])
        if isinstance(reply, Exception):
            raise translated(reply, node, doing="INFO") from reply
        info = dict(line.split(":", 1) for line in reply.decode(errors="replace").splitlines() if ":" in line)
        policy = info.get("maxmemory_policy", "noeviction")
        found.append(
            Server(
                address=node.address,
                software=info.get("server_name", "redis"),
                version=info.get("valkey_version") or info.get("redis_version", ""),
                run_id=info.get("run_id", ""),
                cluster=info.get("cluster_enabled") == "1",
                role=info.get("role", ""),
                maxmemory_policy=policy,
                eviction=_eviction(policy, info.get("maxmemory", "0")),
            )
        )
    return found


def _eviction(policy: str, maxmemory: str) -> Eviction:
    """Without a limit of memory nothing is dropped, whatever the policy says."""
    if maxmemory == "0" or policy == "noeviction":
        return Eviction.NOTHING
    return Eviction.ANYTHING if policy.startswith("allkeys-") else Eviction.EXPIRING
