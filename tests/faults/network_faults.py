"""What can happen to the ways of one worker, as entries of the catalogue."""

from __future__ import annotations

import asyncio
import time

from tests.e2e.waiting import until
from tests.faults.catalogue import fault
from tests.faults.deployment import SESSION_TIMEOUT_S, Deployment
from tests.faults.toxiproxy import Direction


async def _network(deployment: Deployment, name: str, *, redis: bool, half: Direction | None) -> None:
    seat = deployment.seat_in_use()
    ways = deployment.store.ways(seat) if redis else deployment.kafka.ways(seat)
    for way in ways:
        await (way.cut() if half is None else way.half_open(half))
    if redis and deployment.unhurried:
        await until("the worker says that it can't reach Redis", deployment.workers_by_seat[seat].is_troubled)
    await asyncio.sleep(deployment.dice.uniform(0.5, SESSION_TIMEOUT_S + 1))
    since_s = time.monotonic()
    for way in ways:
        await way.heal()
    await deployment.caught_up(name, since_s)


@fault("way to Redis cut", "network", "that worker waits; /readyz says why")
async def redis_cut(deployment: Deployment) -> None:
    """Connections are closed and refused."""
    await _network(deployment, "way to Redis cut", redis=True, half=None)


@fault("way to Redis cut, what is sent is lost", "network", "as above, after the call's time-out")
async def redis_mute(deployment: Deployment) -> None:
    """Nothing arrives, connections stay open."""
    await _network(deployment, "way to Redis cut, what is sent is lost", redis=True, half="upstream")


@fault("way to Redis cut, answers are lost", "network", "as above; what was done unseen is done again, to no effect")
async def redis_deaf(deployment: Deployment) -> None:
    """Everything arrives, no answer comes back."""
    await _network(deployment, "way to Redis cut, answers are lost", redis=True, half="downstream")


@fault("way to Kafka cut", "network", "as a killed worker while it lasts")
async def kafka_cut(deployment: Deployment) -> None:
    """Connections are closed and refused."""
    await _network(deployment, "way to Kafka cut", redis=False, half=None)


@fault("way to Kafka cut, what is sent is lost", "network", "as a killed worker while it lasts")
async def kafka_mute(deployment: Deployment) -> None:
    """Nothing arrives, connections stay open."""
    await _network(deployment, "way to Kafka cut, what is sent is lost", redis=False, half="upstream")


@fault("way to Kafka cut, answers are lost", "network", "as a killed worker while it lasts")
async def kafka_deaf(deployment: Deployment) -> None:
    """Everything arrives, no answer comes back."""
    await _network(deployment, "way to Kafka cut, answers are lost", redis=False, half="downstream")


@fault("slow network", "network", "everything takes longer")
async def slow_network(deployment: Deployment) -> None:
    """Some 100 ms more for each answer."""
    seat = deployment.seat_in_use()
    for way in deployment.ways(seat):
        await way.slow_down(100, 50)
    await asyncio.sleep(deployment.dice.uniform(1, 3))
    since_s = time.monotonic()
    for way in deployment.ways(seat):
        await way.heal()
    await deployment.caught_up("slow network", since_s)
