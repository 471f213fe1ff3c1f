"""What can happen to Redis, as entries of the catalogue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Any

from tests.faults.catalogue import fault
from tests.faults.clusters import Clustered
from tests.faults.deployment import Deployment
from tests.faults.stores import Single


def single(deployment: Deployment) -> Single:
    """The deployment's store, which has to be a single server."""
    assert isinstance(deployment.store, Single)
    return deployment.store


def clustered(deployment: Deployment) -> Clustered:
    """The deployment's store, which has to be a Cluster."""
    assert isinstance(deployment.store, Clustered)
    return deployment.store


async def _measured(deployment: Deployment, name: str, breaking: Awaitable[None]) -> None:
    await breaking
    since_s = time.monotonic()
    deployment.look_again()
    await deployment.resumed(name, since_s)
    await deployment.caught_up(name, since_s)


@fault("Redis hangs", "redis", "workers wait; /readyz says why", stores=["single", "cluster"])
async def paused(deployment: Deployment) -> None:
    """SIGSTOP for longer than a call's time-out."""
    seconds = deployment.dice.uniform(0.5, 3)
    await _measured(deployment, "Redis hangs", deployment.store.pause(seconds))


@fault("Redis killed and started again with its file", "redis", "workers wait; /readyz says why", stores=["single"])
async def restarted(deployment: Deployment) -> None:
    """SIGKILL; every write is on disk (`appendfsync always`)."""
    away_s = deployment.dice.uniform(0, 2)
    name = "Redis killed and started again with its file"
    await _measured(deployment, name, single(deployment).restart(away_s=away_s))


@fault(
    "Redis started again empty", "redis", "the log is read again from its beginning", forgets=True, stores=["single"]
)
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
    stores=["single"],
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


@fault("Redis read-only", "redis", "workers wait; /readyz says why", stores=["single"])
async def read_only(deployment: Deployment) -> None:
    """It is a replica of nobody for a while."""
    seconds = deployment.dice.uniform(0.5, 2)
    await _measured(deployment, "Redis read-only", single(deployment).become_read_only(seconds))


@fault("Cluster node killed, its replica takes over", "redis", "workers wait for it", stores=["cluster"], forgets=True)
async def node_failed_over(deployment: Deployment) -> None:
    """Of the node that holds the progress, whose replica may have missed the last writes."""
    store = clustered(deployment)
    doomed = store.master_of("agg:progress")
    await _measured(deployment, "Cluster node killed, its replica takes over", store.fail_over(doomed))


@fault("Cluster slot moves", "redis", "nothing", stores=["cluster"])
async def slot_moves(deployment: Deployment) -> None:
    """The slot of the progress, and that of some session, are moved with everything in them."""
    store = clustered(deployment)
    sessions = sorted(await asyncio.to_thread(deployment.session_keys))
    open_s = deployment.dice.uniform(0, 1)
    await store.move_slot("agg:progress", open_s=open_s)
    if sessions:
        await store.move_slot(deployment.dice.choice(sessions), open_s=open_s)
    await _measured(deployment, "Cluster slot moves", asyncio.sleep(0))


@fault(
    "Cluster node loses all it holds",
    "redis",
    "noticed within a second; the log is read again",
    stores=["cluster"],
    forgets=True,
)
async def node_emptied(deployment: Deployment) -> None:
    """FLUSHALL on a node that does not hold the progress: the others don't know."""
    store = clustered(deployment)
    holder = store.master_of("agg:progress")
    victim = deployment.dice.choice([node for node in store.masters() if node is not holder])
    name = "Cluster node loses all it holds"
    with victim.client() as client:
        noted = _witnesses(client)
        client.flushall()
        since_s = time.monotonic()
        deployment.look_again()
        await deployment.resumed(name, since_s)
        # The progress falls back once the loss is noticed; before that it may show that all is applied.
        await store.wait("the loss to be noticed", lambda: noted <= _witnesses(client))
    await deployment.caught_up(name, since_s)


def _witnesses(client: Any) -> set[tuple[bytes, bytes]]:
    """The witnesses of `agg:progress` that a node has, and the partitions in each."""
    return {(key, field) for key in client.scan_iter(match="agg:progress:*", count=1000) for field in client.hkeys(key)}
