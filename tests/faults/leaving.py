"""SIGTERM while Kafka, Redis or both are away, refused or hanging, at work and before it: 0 within the grace period."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.waiting import until
from tests.e2e.workers import Worker
from tests.faults.brokers import Kafka
from tests.faults.deployment import Deployment, deployment
from tests.faults.outcome import assert_right
from tests.faults.schedules import traffic
from tests.faults.stores import single
from tests.faults.toxiproxy import Proxy, Toxiproxy

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]

GRACE_S: Final = 4.0
_MORE_S: Final = 10.0  # until a worker that does not end is killed, and the test fails


def away(made: Deployment, servers: str) -> Sequence[Proxy]:
    """The ways of seat 0 to those servers."""
    kafka, store = made.kafka.ways(0), made.store.ways(0)
    return {"kafka": kafka, "redis": store, "both": [*kafka, *store]}[servers]


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
    began_s = time.monotonic()
    code = await worker.child.stop(grace_s=GRACE_S + _MORE_S)
    took_s = time.monotonic() - began_s
    print(f"left after {took_s:.2f} s with {code}")
    assert code == 0, worker.output
    assert took_s < GRACE_S, worker.output
    assert "Traceback" not in worker.output


@pytest.mark.parametrize("how", ["refused", "unheard", "unanswered"])
@pytest.mark.parametrize("servers", ["kafka", "redis", "both"])
async def test_at_work(servers: str, how: str, one_broker: Kafka, proxies: Toxiproxy, tmp_path: Path) -> None:
    """With records in flight; whoever comes next reads what was not committed."""
    records = traffic(31, 200)
    half = len(records) // 2
    async with single(proxies) as store, deployment(one_broker, store, tmp_path) as made:
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
        made.start_worker(1)
        await made.drip(records[half:], 1.0)
        await assert_right(made, records)


@pytest.mark.parametrize("how", ["refused", "unheard", "unanswered"])
@pytest.mark.parametrize("servers", ["kafka", "redis", "both"])
async def test_before_it_is_ready(
    servers: str, how: str, one_broker: Kafka, proxies: Toxiproxy, tmp_path: Path
) -> None:
    async with single(proxies) as store, deployment(one_broker, store, tmp_path) as made:
        await lose(away(made, servers), how)
        worker = made.start_worker(0, SHUTDOWN__GRACE_S=f"{GRACE_S:g}")
        await worker.listening()
        await asyncio.sleep(1.5)  # it is on its way to one of them
        assert (await worker.get("/livez")).status == 200
        assert (await worker.get("/readyz")).status == 503
        await assert_leaves_in_time(worker)
        del made.workers_by_seat[0]
