"""What can happen to Kafka's brokers and to the input topic, as entries of the catalogue."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from tests.e2e.waiting import until
from tests.faults.brokers import Node
from tests.faults.catalogue import fault
from tests.faults.deployment import Deployment

_OFFLINE_S: Final = 60.0
_FULL_AT_LEAST_S: Final = 10.0  # after which a broker that needs no room goes on


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


async def _leaders(deployment: Deployment) -> dict[int, Node]:
    async def look() -> dict[int, Node]:
        found = await deployment.kafka.leaders(deployment.topic)
        return found if len(found) == deployment.partitions else {}

    return await until("each partition has a leader", look)


async def _killed(deployment: Deployment, name: str, node: Node) -> None:
    since_s = time.monotonic()
    lonely = await deployment.kafka.only_on(deployment.topic, node)
    await node.kill()
    try:
        await asyncio.sleep(deployment.dice.uniform(0, 3))
        if deployment.kafka.copies > 1:
            await deployment.caught_up(name, since_s, but=lonely)
    finally:
        node.start()
        await deployment.kafka.whole()
    if deployment.kafka.copies == 1:
        await deployment.caught_up(name, time.monotonic())


@fault("broker killed and started again", "kafka", "if it is the only one, nothing moves while it lasts", within_s=20)
async def broker_killed(deployment: Deployment) -> None:
    """SIGKILL; of a single one, all partitions are offline for a while, and the group has no coordinator."""
    await _killed(deployment, "broker killed and started again", deployment.dice.choice(deployment.kafka.nodes))


@fault("partition leader killed", "kafka", "its partitions stand still until another leads", brokers=3, within_s=30.0)
async def leader_killed(deployment: Deployment) -> None:
    """SIGKILL of the broker that leads a partition, and a new start."""
    leaders = await _leaders(deployment)
    await _killed(deployment, "partition leader killed", leaders[deployment.dice.choice(sorted(leaders))])


@fault("group coordinator killed", "kafka", "commits wait until another coordinates", brokers=3, within_s=30.0)
async def coordinator_killed(deployment: Deployment) -> None:
    """SIGKILL of the broker that coordinates the group, and a new start."""
    node = await deployment.kafka.coordinator(f"{deployment.topic}-group")
    await _killed(deployment, "group coordinator killed", node or deployment.kafka.nodes[0])


@fault(
    "partition offline",
    "kafka",
    "the others are read on, and nothing closes until it is back",
    brokers=3,
    unreplicated=True,
    within_s=30.0,
    traffic_s=_OFFLINE_S + 5,
)
async def partition_offline(deployment: Deployment) -> None:
    """SIGKILL of the only broker that has a partition; alone for a minute."""
    name, leaders = "partition offline", await _leaders(deployment)
    node = leaders[deployment.dice.choice(sorted(leaders))]
    lonely = await deployment.kafka.only_on(deployment.topic, node)
    assert lonely
    since_s = time.monotonic()
    await node.kill()
    try:
        await asyncio.sleep(_OFFLINE_S if deployment.unhurried else deployment.dice.uniform(3, 8))
        await deployment.caught_up(f"{name}: the others", time.monotonic(), but=lonely)
        deployment.note(f"it was offline for {time.monotonic() - since_s:.1f} s")
    finally:
        node.start()
        await deployment.kafka.whole()
    await deployment.caught_up(name, time.monotonic())


@fault(
    "broker's disk full",
    "kafka",
    "the broker ends; nothing moves until it has room and is started again",
    disk=True,
    within_s=30.0,
    traffic_s=8.0,
)
async def disk_full(deployment: Deployment) -> None:
    """No space is left on the device that holds the log; then there is some again."""
    node = deployment.dice.choice(deployment.kafka.nodes)
    assert node.disk is not None
    await asyncio.to_thread(node.disk.fill)
    full_s = time.monotonic()
    try:
        while node.exit_code() is None and time.monotonic() < full_s + _FULL_AT_LEAST_S:  # noqa: ASYNC110 - a process sets no event
            await asyncio.sleep(0.05)
        deployment.note(f"the broker with a full disk: exit code {node.exit_code()}")
        for worker in deployment.workers_by_seat.values() if deployment.unhurried else ():
            assert (await worker.get("/livez")).status == 200
        assert node.exit_code() is not None or not deployment.unhurried, "the broker goes on with a full disk"
    finally:
        await asyncio.to_thread(node.disk.make_room)
        if node.exit_code() is not None:
            node.start()
        await deployment.kafka.whole()
    await deployment.caught_up("broker's disk full", time.monotonic())


@fault("partitions added", "kafka", "they are read within half an idle time-out")
async def partitions_added(deployment: Deployment) -> None:
    """Two more, which get half of what is sent from then on."""
    deployment.partitions += 2
    await deployment.broker.add_partitions(deployment.topic, deployment.partitions)
    await asyncio.sleep(1.5)  # until producers know them
    await deployment.caught_up("partitions added", time.monotonic())
