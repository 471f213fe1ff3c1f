"""A task that is told to end while it talks to Redis ends, at whatever moment it is told."""

from __future__ import annotations

import asyncio

from aggregator.adapters.redis.calls import Command
from aggregator.adapters.redis.connections import Connections, connect

_MOST_STEPS = 60  # of the event loop; three commands on a new connection take some 30


async def ends_when_cancelled_after(steps: int, connections: Connections) -> bool:
    """Whether the task was cancelled; False as well where it was done before."""

    async def work() -> None:
        for _ in range(3):
            await connections.commands([Command("key", ("GET", "key"))])

    task = asyncio.create_task(work())
    for _ in range(steps):
        await asyncio.sleep(0)
    if task.done():
        return True
    task.cancel()
    await asyncio.wait({task})
    return task.cancelled()


async def test_no_moment_loses_a_cancellation(redis_url: str) -> None:
    for _ in range(5):
        for steps in range(_MOST_STEPS):
            fresh = connect(redis_url)
            assert await ends_when_cancelled_after(steps, fresh), f"while connecting, step {steps}"
            await fresh.close()
    warm = connect(redis_url)
    for _ in range(20):
        for steps in range(_MOST_STEPS):
            assert await ends_when_cancelled_after(steps, warm), f"on a connection in use, step {steps}"
    await warm.close()
