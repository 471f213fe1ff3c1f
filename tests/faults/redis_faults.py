"""What can happen to a single Redis, as entries of the catalogue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Final

from tests.faults.catalogue import fault, single
from tests.faults.deployment import Deployment

_WITHIN_S: Final = 2.0
"""Ingest resumes so soon after Redis is back; what has gathered meanwhile takes its time on a busy machine."""


async def _measured(deployment: Deployment, name: str, breaking: Awaitable[None]) -> None:
    await breaking
    since_s = time.monotonic()
    deployment.look_again()
    await deployment.resumed(name, since_s)
    await deployment.caught_up(name, since_s)


@fault("Redis hangs", "redis", "workers wait; /readyz says why")
async def paused(deployment: Deployment) -> None:
    """SIGSTOP for longer than a call's time-out."""
    seconds = deployment.dice.uniform(0.5, 3)
    await _measured(deployment, "Redis hangs", deployment.store.pause(seconds))


@fault("Redis killed and started again with its file", "redis", "workers wait; /readyz says why")
async def restarted(deployment: Deployment) -> None:
    """SIGKILL; every write is on disk (`appendfsync always`)."""
    away_s = deployment.dice.uniform(0, 2)
    name = "Redis killed and started again with its file"
    await _measured(deployment, name, single(deployment).restart(away_s=away_s))


@fault("Redis started again empty", "redis", "the log is read again from its beginning", forgets=True)
async def emptied(deployment: Deployment) -> None:
    """SIGKILL, and the file is gone."""
    away_s = deployment.dice.uniform(0, 2)
    await _measured(deployment, "Redis started again empty", single(deployment).restart(away_s=away_s, empty=True))


@fault("FLUSHALL", "redis", "noticed within a second; the log is read again from its beginning", forgets=True)
async def flushed(deployment: Deployment) -> None:
    """Everything is gone, and no connection breaks."""
    await _measured(deployment, "FLUSHALL", deployment.store.flush())


@fault("SCRIPT FLUSH", "redis", "nothing")
async def scripts_flushed(deployment: Deployment) -> None:
    """Scripts have to be loaded again."""
    await _measured(deployment, "SCRIPT FLUSH", deployment.store.flush_scripts())


@fault(
    "failover to a replica that misses the last writes",
    "redis",
    "partitions are read again from where the replica had come",
    forgets=True,
    replica=True,
)
async def failed_over(deployment: Deployment) -> None:
    """The replica has missed up to a second; the address moves to it."""
    behind_s = deployment.dice.uniform(0, 1)
    name = "failover to a replica that misses the last writes"
    await _measured(deployment, name, single(deployment).fail_over(behind_s=behind_s))


@fault("Redis out of memory, noeviction", "redis", "workers wait; /readyz says why")
async def out_of_memory(deployment: Deployment) -> None:
    """Every write is refused for a while."""

    async def full() -> None:
        await deployment.store.configure(maxmemory=1)
        await asyncio.sleep(deployment.dice.uniform(0.5, 2))
        await deployment.store.configure(maxmemory=0)

    await _measured(deployment, "Redis out of memory, noeviction", full())


@fault("Redis read-only", "redis", "workers wait; /readyz says why")
async def read_only(deployment: Deployment) -> None:
    """It is a replica of nobody for a while."""
    seconds = deployment.dice.uniform(0.5, 2)
    await _measured(deployment, "Redis read-only", single(deployment).become_read_only(seconds))
