"""A master and its replica under Sentinels: which of the two is the master, workers learn from these alone."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import chain

import redis

from aggregator.embedded.process import LOCALHOST
from tests.faults.brokers import SEATS
from tests.faults.catalogue import fault
from tests.faults.deployment import Deployment
from tests.faults.stores import IMPATIENT, Store
from tests.faults.toxiproxy import Proxy, Toxiproxy
from tests.redis_servers import Guard, RedisServer, redis_servers_available


class Guarded(Store):
    """Reached through proxies to the servers and to the Sentinels."""

    cluster = False

    def __init__(self, guard: Guard, ways: list[list[Proxy]]) -> None:
        self.guard = guard
        self._ways = ways  # by seat

    def client(self) -> redis.Redis:
        return redis.Redis(host=LOCALHOST, port=self.masters()[0].port, protocol=2, **IMPATIENT)

    @property
    def url(self) -> str:
        return self.guard.url

    def ways(self, seat: int) -> list[Proxy]:
        return self._ways[seat]

    def masters(self) -> list[RedisServer]:
        self.guard.look_again()
        return [self.guard.master]

    def failed_over(self) -> bool:
        return self.guard.failovers() > 0

    async def fail_over(self, *, behind_s: float) -> None:
        """Kill the master once its replica has missed the writes of so many seconds; the Sentinels do the rest."""
        await asyncio.to_thread(self.guard.look_again)
        await asyncio.to_thread(self.guard.wait_for_replica)
        self.guard.stop_replication()
        await asyncio.sleep(behind_s)
        await asyncio.to_thread(self.guard.kill_master)

    async def depose(self) -> None:
        """Let the master hang until its replica has taken over; then it goes on, and is told that it is one now."""
        await asyncio.to_thread(self.guard.look_again)
        await asyncio.to_thread(self.guard.wait_for_replica)
        hanging = self.guard.master
        assert hanging.process is not None
        os.kill(hanging.process.pid, signal.SIGSTOP)
        try:
            await asyncio.to_thread(self.guard.wait_for_failover)
        finally:
            os.kill(hanging.process.pid, signal.SIGCONT)


@asynccontextmanager
async def guarded(proxies: Toxiproxy, *, seats: int = SEATS) -> AsyncIterator[Guarded]:
    """Start two servers and three Sentinels; at the end remove all."""
    program = next(iter(redis_servers_available().values()))
    options = ("--repl-diskless-sync-delay", "0")
    guard = await asyncio.to_thread(Guard, program, *options, sentinels=3, failover_timeout_s=5, down_after_ms=500)
    servers = (guard.master, guard.replica, *guard.sentinels)
    ways = [[await proxies.proxy(f"guarded-{seat}", server.port) for server in servers] for seat in range(seats)]
    try:
        yield Guarded(guard, ways)
    finally:
        guard.remove()
        for proxy in chain.from_iterable(ways):
            await proxies.remove(proxy)


_NAME = "Sentinels fail over to a replica that misses the last writes"


@fault(
    _NAME,
    "redis",
    "partitions are read again from where the replica had come",
    forgets=True,
    stores=["guarded"],
    within_s=30.0,
)
async def sentinels_fail_over(deployment: Deployment) -> None:
    """The replica has missed up to a second; workers ask the Sentinels who is the master."""
    store = deployment.store
    assert isinstance(store, Guarded)
    await store.fail_over(behind_s=deployment.dice.uniform(0.2, 1))
    since_s = time.monotonic()
    deployment.look_again()
    await deployment.resumed(_NAME, since_s)
    await deployment.caught_up(_NAME, since_s)


_DEPOSED = "master under Sentinels hangs and is deposed"


@fault(
    _DEPOSED,
    "redis",
    "it is taken for the master for some seconds more; what it takes meanwhile is read again",
    forgets=True,
    stores=["guarded"],
    within_s=30.0,
)
async def deposed(deployment: Deployment) -> None:
    """It goes on as soon as another is the master, and is told only then."""
    store = deployment.store
    assert isinstance(store, Guarded)
    await store.depose()
    since_s = time.monotonic()
    await asyncio.to_thread(store.guard.wait_for_replica)
    deployment.look_again()
    await deployment.caught_up(_DEPOSED, since_s)
