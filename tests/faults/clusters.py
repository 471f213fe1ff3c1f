"""A Redis Cluster that can be broken, and what can happen to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import chain
from typing import Any, Final

from redis.cluster import RedisCluster
from redis.crc import key_slot

from aggregator.embedded.process import LOCALHOST
from tests.faults.brokers import SEATS
from tests.faults.stores import Store
from tests.faults.toxiproxy import Proxy, Toxiproxy
from tests.redis_servers import Cluster, RedisServer, redis_servers_available

_NODE_TIMEOUT_MS: Final = 1500
_PATIENCE_S: Final = 120.0  # workers that are to do something may be held up by another fault meanwhile


class Clustered(Store):
    """Three masters with a replica each."""

    cluster = True

    def __init__(self, cluster: Cluster, ways: list[list[Proxy]]) -> None:
        self._cluster = cluster
        self._ways = ways  # by seat, to every node

    def client(self) -> RedisCluster:
        return RedisCluster(host=LOCALHOST, port=self.masters()[0].port, protocol=2, socket_timeout=2)

    @property
    def url(self) -> str:
        return self._cluster.url  # without a question: it may hang just now

    def ways(self, seat: int) -> list[Proxy]:
        return self._ways[seat]

    def masters(self) -> list[RedisServer]:
        return [node for node in self._running() if _role(node) == "master"]

    def _running(self) -> list[RedisServer]:
        return [node for node in (*self._cluster.nodes, *self._cluster.replicas) if node.process is not None]

    def master_of(self, key: str) -> RedisServer:
        """The node that holds a key just now."""
        slot = key_slot(key.encode())
        for node in self.masters():
            with node.client() as client:
                for first, last in _own_slots(client):
                    if first <= slot <= last:
                        return node
        raise AssertionError(f"nobody holds slot {slot}")

    async def fail_over(self, doomed: RedisServer) -> None:
        """Kill a master, wait until its replica has taken over, and start it again as a replica, with nothing."""
        before = len(self.masters())
        doomed.stop()
        await self.wait("a replica to take over", lambda: len(self.masters()) == before)
        await asyncio.to_thread(doomed.start)
        await self.wait("the old master to be a replica", lambda: _role(doomed) == "slave" and _is_linked(doomed))

    async def move_slot(self, key: str, *, open_s: float) -> None:
        """Move the slot of a key to another master; for so long half of it is there and half of it here."""
        source = self.master_of(key)
        target = next(node for node in self.masters() if node is not source)
        slot = key_slot(key.encode())
        with source.client() as here, target.client() as there:
            ids = {node: client.execute_command("CLUSTER", "MYID") for node, client in ((0, here), (1, there))}
            there.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
            here.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
            await asyncio.sleep(open_s / 2)
            self._migrate(here, target, slot, half=True)
            await asyncio.sleep(open_s / 2)
            self._migrate(here, target, slot, half=False)
            for client in (there, here):
                client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])

    @staticmethod
    def _migrate(here: Any, target: RedisServer, slot: int, *, half: bool) -> None:
        keys = here.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100_000)
        for moved in keys[: len(keys) // 2] if half else keys:
            here.execute_command("MIGRATE", LOCALHOST, target.port, moved, 0, 5000)

    async def wait(self, what: str, look: Any) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not look():
            if time.monotonic() > deadline:
                raise AssertionError(f"waited in vain for {what}")
            await asyncio.sleep(0.05)

    def remove(self) -> None:
        self._cluster.remove()


def _role(node: RedisServer) -> str:
    with node.client() as client:
        return str(client.info("replication")["role"])


def _is_linked(node: RedisServer) -> bool:
    with node.client() as client:
        return bool(client.info("replication").get("master_link_status") == "up")


def _own_slots(client: Any) -> list[tuple[int, int]]:
    own = client.execute_command("CLUSTER", "MYID").decode()
    for line in client.execute_command("CLUSTER", "NODES").decode().splitlines():
        name, *rest = line.split()
        if name == own:
            ranges = [part.split("-") for part in rest[7:] if not part.startswith("[")]
            return [(int(first), int(last[0] if last else first)) for first, *last in ranges]
    return []


@asynccontextmanager
async def clustered(proxies: Toxiproxy, *, seats: int = SEATS) -> AsyncIterator[Clustered]:
    """Start a Cluster; at the end remove it."""
    program = next(iter(redis_servers_available().values()))
    cluster = await asyncio.to_thread(Cluster, program, replicas=True, node_timeout_ms=_NODE_TIMEOUT_MS)
    nodes = (*cluster.nodes, *cluster.replicas)
    ways = [[await proxies.proxy(f"cluster-{seat}", node.port) for node in nodes] for seat in range(seats)]
    try:
        yield Clustered(cluster, ways)
    finally:
        cluster.remove()
        for proxy in chain.from_iterable(ways):
            await proxies.remove(proxy)
