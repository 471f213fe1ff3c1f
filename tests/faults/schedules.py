"""Seeded schedules: which faults happen when, to what traffic; the same seed makes the same schedule."""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.e2e.deliveries import WORKLOADS, Delivery, deliveries, todays_spans
from tests.faults import guarded, kafka_faults, network_faults, redis_faults, step_faults  # noqa: F401 - into the catalogue
from tests.faults.brokers import SEATS, Kafka
from tests.faults.catalogue import FAULTS, Domain, Fault, StoreKind, faketime
from tests.faults.deployment import Deployment, deployment
from tests.faults.disks import disks
from tests.faults.outcome import Outcome, assert_right
from tests.faults.stores import Store

RESUMES_WITHIN_S: Final = 2.0
"""After Redis is back, until something is applied again."""

_TRAFFIC_S: Final = 6.0
_MIDWAY_S: Final = 1.5


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What is done to one deployment; `alone` says that each fault has all the time that it can use."""

    seed: int
    workers: int
    spans: int
    faults: Sequence[tuple[float, Fault]]
    seconds: float = _TRAFFIC_S
    alone: bool = False

    @property
    def forgets(self) -> bool:
        """Whether Redis loses something."""
        return any(fault.forgets for _, fault in self.faults)

    @property
    def replica(self) -> bool:
        """Whether it takes a Redis with a replica."""
        return any(fault.replica for _, fault in self.faults)

    @property
    def names(self) -> list[str]:
        """The faults, each as often as it is done."""
        return [fault.name for _, fault in self.faults]

    @property
    def title(self) -> str:
        """What it is, in a line."""
        return f"{self.names[0]} alone" if self.alone else f"seed {self.seed}, {len(self.faults)} faults"

    def __str__(self) -> str:
        lines = [f"seed {self.seed}: {self.workers} workers, {self.spans} spans"]
        return "\n".join([*lines, *(f"  at {at_s:.2f} s {fault.name}" for at_s, fault in self.faults)])


def eligible(*, store: StoreKind, brokers: int = 1) -> list[Fault]:
    """All faults that can happen to such a deployment.

    Those of workers' clocks are left out where there is no libfaketime, those of disks where nothing may be mounted.
    """
    odd_clocks, full_disks = faketime() is not None, disks()
    return [
        one
        for one in FAULTS.values()
        if store in one.stores and one.brokers <= brokers and odd_clocks >= one.faketime and full_disks >= one.disk
    ]


def alone(fault: Fault) -> Schedule:
    """The fault midway, with two workers and seats for more."""
    spans = 300 if fault.traffic_s < 10 else 1000
    return Schedule(seed=1, workers=2, spans=spans, faults=[(_MIDWAY_S, fault)], seconds=fault.traffic_s, alone=True)


def drawn(seed: int, faults: Sequence[Fault], *, seats: int) -> Schedule:
    """A schedule of some of these faults."""
    dice = random.Random(seed)
    chosen = [(dice.uniform(0, _TRAFFIC_S), dice.choice(faults)) for _ in range(dice.randint(2, 6))]
    return Schedule(
        seed=seed,
        workers=dice.randint(2, seats),
        spans=dice.randint(200, 500),
        faults=sorted(chosen, key=lambda pair: pair[0]),
    )


def traffic(seed: int, spans: int) -> list[Delivery]:
    """Records of so many spans, drawn from all workloads."""
    now_ms = round(time.time() * 1000)
    pool = todays_spans(WORKLOADS, now_ms)
    return deliveries(random.Random(seed).sample(pool, min(spans, len(pool))), now_ms, seed=seed)


async def carry_out(
    schedule: Schedule, kafka: Kafka, store: Store, log_dir: Path, *, seats: Sequence[int] = range(SEATS)
) -> Outcome:
    """Do all that is on the schedule and hold what is left against the oracle."""
    # In a thread: others who wait would take its time for a server's.
    records = await asyncio.to_thread(traffic, schedule.seed, schedule.spans)
    copies = 1 if any(fault.unreplicated for _, fault in schedule.faults) else None
    async with deployment(kafka, store, log_dir, seed=schedule.seed, seats=seats, copies=copies) as made:
        try:
            return await _carried_out(schedule, made, store, records)
        except BaseException as error:
            error.add_note(f"{schedule}\n{made.report()}")
            raise


async def _carried_out(schedule: Schedule, made: Deployment, store: Store, records: Sequence[Delivery]) -> Outcome:
    made.unhurried = schedule.alone
    await made.start_workers(schedule.workers)
    locks: dict[Domain, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def do(at_s: float, fault: Fault) -> None:
        await asyncio.sleep(at_s)
        async with locks[fault.domain]:
            made.note(fault.name)
            await fault.does(made)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(made.drip(records, schedule.seconds))
        for at_s, fault in schedule.faults:
            tasks.create_task(do(at_s, fault))
    await made.heal()
    made.look_again()
    await made.caught_up("all faults over", time.monotonic())
    # On a busy machine Sentinels take a master for dead that is not.
    found = await assert_right(made, records, lost=schedule.forgets or store.failed_over())
    assert not made.died, f"workers ended by themselves: {made.died}"
    if schedule.alone:
        for _, fault in schedule.faults:
            found.assert_within(fault.name, fault.within_s)
            if (resumed := f"{fault.name}: resumed") in found.recovery_s:
                found.assert_within(resumed, RESUMES_WITHIN_S)
    return found
