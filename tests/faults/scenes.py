"""What takes traffic of its own, and is therefore in no mix: the log is made again or cut off, all workers restart.

What retention or a deletion takes from the log before it was read is lost upstream, and is counted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from tests.e2e.comparing import assert_equals_oracle
from tests.e2e.deliveries import PARTITIONS, Delivery
from tests.e2e.waiting import until
from tests.e2e.workers import Worker
from tests.faults.deployment import Deployment
from tests.faults.outcome import Outcome, outcome
from tests.faults.schedules import traffic

Play = Callable[[Deployment], Awaitable[Outcome]]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One of them; `sees` is the row of the table of guarantees."""

    name: str
    sees: str
    play: Play
    partitions: int = PARTITIONS
    seconds: float = 10.0  # some of what it takes
    alone: bool = True
    replica: bool = False

    @property
    def names(self) -> list[str]:
        """As of a schedule."""
        return [self.name]

    @property
    def title(self) -> str:
        """As of a schedule."""
        return self.name


SCENES: Final[dict[str, Scene]] = {}


def scene(name: str, sees: str, *, partitions: int = PARTITIONS, seconds: float = 10.0) -> Callable[[Play], Play]:
    """Enter a function into the table."""

    def entered(play: Play) -> Play:
        SCENES[name] = Scene(name=name, sees=sees, play=play, partitions=partitions, seconds=seconds)
        return play

    return entered


async def _made_again(deployment: Deployment) -> None:
    """Delete the input topic and make it again."""
    await deployment.broker.delete_topic(deployment.topic)
    deployment.ends.clear()
    deployment.sent.clear()
    deadline = time.monotonic() + 30
    while True:  # for a moment after its deletion the name is still taken
        try:
            await deployment.broker.create_topic(name=deployment.topic, partitions=PARTITIONS)
        except Exception:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)
        else:
            return


async def _compared(deployment: Deployment, records: list[Delivery]) -> Outcome:
    await deployment.wait_settled()
    found = await outcome(deployment, records)
    await assert_equals_oracle(deployment, [one.message for one in records], round(time.time() * 1000))
    return found


@scene("topic deleted and made again", "once it is noticed, the new one is read from its beginning")
async def made_again(deployment: Deployment) -> Outcome:
    """While workers run that had read all of the old one."""
    records = await asyncio.to_thread(traffic, 12, 300)
    half = len(records) // 2
    await deployment.start_workers(2)
    await deployment.drip(records[:half], 2.0)
    await deployment.wait_settled()
    await _made_again(deployment)
    since_s = time.monotonic()
    await deployment.drip(records[half:], 2.0)
    await deployment.caught_up("topic deleted and made again", since_s)
    return await _compared(deployment, records)


@scene("topic made again while nobody works", "the next worker reads the new one from its beginning")
async def made_again_unseen(deployment: Deployment) -> Outcome:
    """It has grown beyond what was read of the old one when a worker comes."""
    records = await asyncio.to_thread(traffic, 13, 400)
    some = len(records) // 5
    await deployment.start_workers(1)
    await deployment.drip(records[:some], 1.0)
    await deployment.wait_settled()
    await deployment.workers_by_seat.pop(0).terminate_within()
    await _made_again(deployment)
    await deployment.drip(records[some:], 1.0)
    since_s = time.monotonic()
    deployment.start_worker(0)
    await deployment.caught_up("topic made again while nobody works", since_s)
    return await _compared(deployment, records)


async def _cut_off(deployment: Deployment, name: str, *, running: bool) -> Outcome:
    records = [one._replace(partition=0) for one in await asyncio.to_thread(traffic, 14, 300)]
    some, more = len(records) // 3, 2 * len(records) // 3
    # It stays a member of the group while it is cut off: one that is taken back counts what is lost a second time.
    worker = deployment.start_worker(0, KAFKA__SESSION_TIMEOUT_MS="30000")
    await deployment.drip(records[:some], 1.0)
    await deployment.wait_settled()
    (way,) = deployment.kafka.ways(0)
    if running:
        await way.cut()
    else:
        await deployment.workers_by_seat.pop(0).terminate_within()
    await deployment.drip(records[some:more], 1.0)
    cut = deployment.ends[0]
    async with deployment.broker.admin() as admin:
        await admin.delete_records({TopicPartition(deployment.topic, 0): RecordsToDelete(before_offset=cut)})
    await deployment.drip(records[more:], 1.0)
    since_s = time.monotonic()
    if running:
        await way.heal()
    else:
        worker = deployment.start_worker(0)
    await worker.listening()
    await deployment.caught_up(name, since_s)
    assert await _counted(deployment, worker) == cut - some
    return await _compared(deployment, [*records[:some], *records[more:]])


async def _counted(deployment: Deployment, worker: Worker) -> float:
    async def look() -> float:
        return (await worker.metrics()).value("records_lost_total", topic=deployment.topic)

    return await until("the lost records are counted", look)


@scene("retention cuts off what was not read yet", "what is lost is counted and logged; the rest is read", partitions=1)
async def cut_off(deployment: Deployment) -> Outcome:
    """While a worker runs that does not reach Kafka."""
    return await _cut_off(deployment, "retention cuts off what was not read yet", running=True)


@scene("retention cuts off while nobody works", "what is lost is counted and logged; the rest is read", partitions=1)
async def cut_off_unseen(deployment: Deployment) -> Outcome:
    """Before a worker is started again."""
    return await _cut_off(deployment, "retention cuts off while nobody works", running=False)
