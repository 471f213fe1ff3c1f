"""SIGTERM while Kafka, Redis or both are away, refused or hanging, at work and before it: 0 within the grace period."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from tests.e2e.waiting import until
from tests.e2e.workers import Worker
from tests.faults.deployment import Deployment
from tests.faults.outcome import Outcome, assert_right
from tests.faults.scenes import scene
from tests.faults.schedules import traffic
from tests.faults.toxiproxy import Proxy

_SERVERS: Final = ("Kafka", "Redis", "both")
_HOWS: Final = ("refused", "unheard", "unanswered")
GRACE_S: Final = 12.0  # a tenth of it is what a worker keeps for its very end, and this machine is busy


def away(made: Deployment, servers: str) -> Sequence[Proxy]:
    """The ways of seat 0 to those servers."""
    kafka, store = made.kafka.ways(0), made.store.ways(0)
    return {"Kafka": kafka, "Redis": store, "both": [*kafka, *store]}[servers]


async def lose(ways: Sequence[Proxy], how: str) -> None:
    """Cut these ways, or leave connections open over which nothing comes in one direction or in both."""
    for way in ways:
        match how:
            case "refused":
                await way.cut()
            case "unheard":
                await way.half_open("upstream")
            case "unanswered":
                await way.half_open("downstream")


async def assert_leaves_in_time(worker: Worker) -> None:
    """It ends with 0 within its grace period."""
    await worker.terminate_within(GRACE_S)
    assert "Traceback" not in worker.output


async def _at_work(made: Deployment, servers: str, how: str) -> Outcome:
    """With records in flight; whoever comes next reads what was not committed."""
    records = await asyncio.to_thread(traffic, 31, 200)
    half = len(records) // 2
    worker = made.start_worker(0, SHUTDOWN__GRACE_S=f"{GRACE_S:g}")
    await worker.listening()
    await until("the worker is ready", worker.is_ready)
    dripping = asyncio.create_task(made.drip(records[:half], 2.0))
    await asyncio.sleep(1.0)
    await lose(away(made, servers), how)
    await asyncio.sleep(1.5)  # what is under way is noticed to be stuck, or not yet
    await assert_leaves_in_time(worker)
    del made.workers_by_seat[0]
    await dripping
    for way in away(made, servers):
        await way.heal()
    since_s = time.monotonic()
    made.start_worker(1)
    await made.caught_up(_name(servers, how), since_s)
    await made.drip(records[half:], 1.0)
    return await assert_right(made, records)


def _name(servers: str, how: str) -> str:
    return f"worker told to stop while {servers} {'are' if servers == 'both' else 'is'} {how}"


def _enter(servers: str, how: str) -> None:
    @scene(_name(servers, how), "it exits with 0 within its grace period; the next reads on", seconds=4.0)
    async def at_work(made: Deployment) -> Outcome:
        return await _at_work(made, servers, how)


for _servers in _SERVERS:
    for _how in _HOWS:
        _enter(_servers, _how)


@scene("worker told to stop before it is ready", "it exits with 0 within its grace period", seconds=40.0)
async def before_it_is_ready(made: Deployment) -> Outcome:
    """While Kafka, Redis or both are away, in each way."""
    for servers in _SERVERS:
        for how in _HOWS:
            await lose(away(made, servers), how)
            worker = made.start_worker(0, SHUTDOWN__GRACE_S=f"{GRACE_S:g}")
            await worker.listening()
            await asyncio.sleep(1.5)  # it is on its way to one of them
            assert (await worker.get("/livez")).status == 200
            assert (await worker.get("/readyz")).status == 503
            await assert_leaves_in_time(worker)
            del made.workers_by_seat[0]
            for way in away(made, servers):
                await way.heal()
    return Outcome()
