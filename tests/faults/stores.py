"""Redis that can be broken: it loses all or its last writes, is full, read-only, or hands over to a replica.

Workers reach it through one proxy per seat; the test itself looks at whichever server is the master just now.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from aggregator.embedded.process import LOCALHOST
from tests.faults.brokers import SEATS
from tests.faults.toxiproxy import Proxy, Toxiproxy
from tests.redis_servers import RedisServer, redis_servers_available

_PATIENCE_S: Final = 30.0
# A test that waits for a hanging server would not let it go on.
IMPATIENT: Final[dict[str, Any]] = {"socket_timeout": 2, "socket_connect_timeout": 2, "retry": Retry(NoBackoff(), 0)}
_ON_DISK: Final = ("--appendonly", "yes", "--appendfsync", "always", "--repl-diskless-sync-delay", "0")


class Store(ABC):
    """What a deployment keeps its state in."""

    cluster: bool

    @property
    def url(self) -> str:
        """Where workers find it, each through its own ways."""
        return self.masters()[0].url

    @abstractmethod
    def client(self) -> Any:
        """A client past all proxies."""

    @abstractmethod
    def ways(self, seat: int) -> list[Proxy]:
        """The proxies between the worker on that seat and the servers."""

    @abstractmethod
    def masters(self) -> list[RedisServer]:
        """The servers that hold keys just now."""

    def failed_over(self) -> bool:
        """Whether another server has become the master by itself, and writes may be lost that no fault was to lose."""
        return False

    async def pause(self, seconds: float) -> None:
        """Let all servers hang, with their connections open."""
        servers = self.masters()
        for server in servers:
            _signal(server, signal.SIGSTOP)
        await asyncio.sleep(seconds)
        for server in servers:
            _signal(server, signal.SIGCONT)

    async def configure(self, **settings: object) -> None:
        """CONFIG SET on all servers."""
        for server in self.masters():
            with server.client() as client:
                for name, value in settings.items():
                    client.config_set(name.replace("_", "-"), str(value))

    async def flush_scripts(self) -> None:
        """SCRIPT FLUSH on all servers."""
        for server in self.masters():
            with server.client() as client:
                client.script_flush()

    async def flush(self) -> None:
        """FLUSHALL on all servers."""
        for server in self.masters():
            with server.client() as client:
                client.flushall()


class Single(Store):
    """One server behind one address, with a replica that can take its place."""

    cluster = False

    def __init__(self, master: RedisServer, replica: RedisServer | None, ways: list[Proxy], link: Proxy | None) -> None:
        self._master = master
        self._replica = replica
        self._ways = ways
        self._link = link  # between replica and master

    def client(self) -> redis.Redis:
        return redis.Redis(host=LOCALHOST, port=self._master.port, protocol=2, **IMPATIENT)

    def ways(self, seat: int) -> list[Proxy]:
        return [self._ways[seat]]

    def masters(self) -> list[RedisServer]:
        return [self._master]

    async def restart(self, *, away_s: float = 0.0, empty: bool = False) -> None:
        """Kill it and start it again after a while, with its file or without."""
        self._master.stop()
        if empty:
            shutil.rmtree(Path(self._master.directory) / "appendonlydir", ignore_errors=True)
        await asyncio.sleep(away_s)
        await asyncio.to_thread(self._master.start)

    async def fail_over(self, *, behind_s: float) -> None:
        """Kill the master and let its replica, which has missed the writes of so many seconds, take its address."""
        assert self._replica is not None, "this one was made without a replica"
        assert self._link is not None
        await self._replicated()
        await self._link.half_open("downstream")
        await asyncio.sleep(behind_s)
        self._master.stop()
        with self._replica.client() as client:
            client.replicaof("NO", "ONE")
        self._master, self._replica = self._replica, self._master
        for way in self._ways:
            await way.retarget(self._master.port)
        await self._link.heal()
        await self._link.retarget(self._master.port)
        await asyncio.to_thread(self._replica.start)
        with self._replica.client() as client:
            client.replicaof(LOCALHOST, str(self._link.port))

    async def become_read_only(self, seconds: float) -> None:
        """Be a replica of nobody for a while, as a former master is after a failover."""
        with self._master.client() as client:
            client.replicaof(LOCALHOST, "1")
            await asyncio.sleep(seconds)
            client.replicaof("NO", "ONE")

    async def _replicated(self) -> None:
        assert self._replica is not None
        deadline = time.monotonic() + _PATIENCE_S
        with self._replica.client() as client:
            while client.info("replication").get("master_link_status") != "up":
                if time.monotonic() > deadline:
                    raise AssertionError("the replica does not come up")
                await asyncio.sleep(0.05)

    def remove(self) -> None:
        for server in (self._master, self._replica):
            if server is not None:
                server.remove()


@asynccontextmanager
async def single(proxies: Toxiproxy, *, seats: int = SEATS, replica: bool = False) -> AsyncIterator[Single]:
    """Start a server that writes to its disk, and a replica if wanted; at the end remove all."""
    program = next(iter(redis_servers_available().values()))
    master = await asyncio.to_thread(RedisServer, program, *_ON_DISK)
    second, link = None, None
    ways = [await proxies.proxy(f"redis-{seat}", master.port) for seat in range(seats)]
    if replica:
        second = await asyncio.to_thread(RedisServer, program, *_ON_DISK)
        link = await proxies.proxy("replication", master.port)
        with second.client() as client:
            client.replicaof(LOCALHOST, str(link.port))
    made = Single(master, second, ways, link)
    try:
        yield made
    finally:
        made.remove()
        for proxy in (*ways, *([link] if link else [])):
            await proxies.remove(proxy)


def _signal(server: RedisServer, number: signal.Signals) -> None:
    if server.process is not None:
        os.kill(server.process.pid, number)
