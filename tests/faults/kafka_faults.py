"""What can happen to Kafka's brokers, as entries of the catalogue."""

from __future__ import annotations

import asyncio
import time

from tests.faults.brokers import Node
from tests.faults.catalogue import fault
from tests.faults.deployment import Deployment


@fault("broker hangs", "kafka", "nothing moves while it lasts; time stands still, so nothing closes")
async def hangs(deployment: Deployment) -> None:
    """SIGSTOP of one of them."""
    node = deployment.dice.choice(deployment.kafka.nodes)
    node.pause()
    try:
        await asyncio.sleep(deployment.dice.uniform(0.5, 3))
    finally:
        node.resume()
    await deployment.caught_up("broker hangs", time.monotonic())


async def _killed(deployment: Deployment, name: str, node: Node) -> None:
    since_s = time.monotonic()
    await node.kill()
    try:
        await asyncio.sleep(deployment.dice.uniform(0, 3))
        if deployment.kafka.copies > 1:
            await deployment.caught_up(name, since_s)
    finally:
        node.start()
        await deployment.kafka.whole()
    if deployment.kafka.copies == 1:
        await deployment.caught_up(name, time.monotonic())


@fault("the only broker killed and started again", "kafka", "nothing moves while it lasts", within_s=20, alone=True)
async def only_broker_killed(deployment: Deployment) -> None:
    """All partitions are offline for a while, and the group has no coordinator."""
    assert deployment.kafka.copies == 1
    await _killed(deployment, "the only broker killed and started again", deployment.kafka.nodes[0])


@fault("partition leader killed", "kafka", "its partitions stand still until another leads", brokers=3, within_s=30.0)
async def leader_killed(deployment: Deployment) -> None:
    """SIGKILL of the broker that leads a partition, and a new start."""
    leaders = await deployment.kafka.leaders(deployment.topic)
    await _killed(deployment, "partition leader killed", leaders[deployment.dice.choice(sorted(leaders))])


@fault("group coordinator killed", "kafka", "commits wait until another coordinates", brokers=3, within_s=30.0)
async def coordinator_killed(deployment: Deployment) -> None:
    """SIGKILL of the broker that coordinates the group, and a new start."""
    node = await deployment.kafka.coordinator(f"{deployment.topic}-group")
    await _killed(deployment, "group coordinator killed", node or deployment.kafka.nodes[0])
