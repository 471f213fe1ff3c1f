"""What can break, and what its users see of it: each fault is done to a deployment under traffic, and undone.

The times that a fault lasts come from the deployment's dice.  What is done to Redis, to Kafka and to workers is done
one at a time each, so that schedules may hold any mix of faults.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypedDict, Unpack

from tests.faults.deployment import SESSION_TIMEOUT_S, Deployment

Domain = Literal["producers", "worker", "redis", "kafka", "network"]
StoreKind = Literal["single", "cluster", "guarded"]
Does = Callable[[Deployment], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault; `sees` is the row of the table of guarantees.

    `forgets`: Redis loses what it had acknowledged, so that summaries may be published anew.
    `stores`: what it can happen to.  `replica`: it takes a single Redis with a replica.
    `brokers`: nodes of Kafka that it takes.  `disk`: it takes brokers with disks of their own.
    `unreplicated`: it takes an input topic each of whose partitions is on one broker only.
    `faketime`: it takes that library.  `within_s` bounds the time until everything sent is applied again, where it is
    alone, and `traffic_s` is for how long there is traffic then.
    """

    name: str
    domain: Domain
    does: Does
    sees: str
    forgets: bool = False
    stores: Collection[StoreKind] = ("single", "cluster", "guarded")
    replica: bool = False
    brokers: int = 1
    disk: bool = False
    unreplicated: bool = False
    faketime: bool = False
    within_s: float = 15.0
    traffic_s: float = 4.0

    def __str__(self) -> str:
        return self.name


class More(TypedDict, total=False):
    """The other fields of a `Fault`."""

    forgets: bool
    stores: Collection[StoreKind]
    replica: bool
    brokers: int
    disk: bool
    unreplicated: bool
    faketime: bool
    within_s: float
    traffic_s: float


FAULTS: Final[dict[str, Fault]] = {}


def fault(name: str, domain: Domain, sees: str, **more: Unpack[More]) -> Callable[[Does], Does]:
    """Enter a function into the catalogue."""

    def entered(does: Does) -> Does:
        FAULTS[name] = Fault(name=name, domain=domain, does=does, sees=sees, **more)
        return does

    return entered


# --- producers -------------------------------------------------------------------------------------------------------


@fault("producers' clocks a day ahead or behind", "producers", "nothing")
async def odd_clocks(deployment: Deployment) -> None:
    """From now on half of the records say that they were made then."""
    deployment.odd_clocks = True
    await deployment.caught_up("producers' clocks a day ahead or behind", time.monotonic())


# --- workers ---------------------------------------------------------------------------------------------------------


async def vacated(deployment: Deployment) -> int:
    """A seat without a worker; if there is none, one is told to stop."""
    seat = deployment.free_seat()
    if seat is None:
        seat = deployment.seat_in_use()
        await deployment.workers_by_seat.pop(seat).terminate()
    return seat


async def replaced(deployment: Deployment, seat: int) -> None:
    """The worker of that seat has ended: see that one is left."""
    del deployment.workers_by_seat[seat]
    if not deployment.workers_by_seat:
        deployment.start_worker(seat)


@fault(
    "worker killed",
    "worker",
    "its partitions stand still until the group notices, then others read on",
    within_s=SESSION_TIMEOUT_S + 5,
)
async def worker_killed(deployment: Deployment) -> None:
    """SIGKILL; the others take over."""
    seat = deployment.seat_in_use()
    since_s = time.monotonic()
    await deployment.workers_by_seat[seat].kill()
    await asyncio.sleep(1.0)  # so that its partitions have something that nobody has read
    await replaced(deployment, seat)
    await deployment.caught_up("worker killed", since_s)
    if seat not in deployment.workers_by_seat:
        deployment.start_worker(seat)


@fault("all workers killed", "worker", "nothing moves until one is started again")
async def workers_killed(deployment: Deployment) -> None:
    """SIGKILL to all, and one new."""
    for seat in sorted(deployment.workers_by_seat):
        await deployment.workers_by_seat.pop(seat).kill()
    await asyncio.sleep(deployment.dice.uniform(0, 1))
    since_s = time.monotonic()
    deployment.start_worker(deployment.seats[0])
    await deployment.caught_up("all workers killed", since_s)


@fault("worker told to stop", "worker", "it finishes what it holds, leaves the group, and exits with 0")
async def worker_stopped(deployment: Deployment) -> None:
    """SIGTERM; it must end in order."""
    seat = deployment.seat_in_use()
    await deployment.workers_by_seat[seat].listening()  # one that was just started does not hear it yet
    since_s = time.monotonic()
    await deployment.workers_by_seat[seat].terminate_within()
    await replaced(deployment, seat)
    await deployment.caught_up("worker told to stop", since_s)
    if seat not in deployment.workers_by_seat:
        deployment.start_worker(seat)


@fault("worker suspended", "worker", "as if it were killed; when it wakes, what it still writes changes nothing")
async def worker_suspended(deployment: Deployment) -> None:
    """SIGSTOP for longer than the session time-out: it wakes as a zombie with work in flight."""
    seat = deployment.seat_in_use()
    deployment.signal(seat, signal.SIGSTOP)
    await asyncio.sleep(SESSION_TIMEOUT_S + deployment.dice.uniform(0.5, 2))
    since_s = time.monotonic()
    deployment.signal(seat, signal.SIGCONT)
    await deployment.caught_up("worker suspended", since_s)


@fault("worker added", "worker", "the group deals the partitions anew")
async def worker_added(deployment: Deployment) -> None:
    """One more, where there is a seat."""
    seat = deployment.free_seat()
    since_s = time.monotonic()
    if seat is not None:
        await deployment.start_worker(seat).listening()
    await deployment.caught_up("worker added", since_s)


def faketime() -> Path | None:
    """The library that shifts a process's clock; with `REQUIRE_SERVERS=1` it is an error if there is none."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found and os.environ.get("REQUIRE_SERVERS") == "1":
        raise RuntimeError("REQUIRE_SERVERS=1, but libfaketime is missing: apt-get install faketime")
    return found[0] if found else None


def _odd_clock(shift: str) -> dict[str, str]:
    return {"LD_PRELOAD": str(faketime()), "FAKETIME": shift, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


async def _worker_with_clock(deployment: Deployment, name: str, shift: str) -> None:
    seat = await vacated(deployment)
    worker = deployment.start_worker(seat, _odd_clock(shift))
    await worker.listening()
    await asyncio.sleep(deployment.dice.uniform(1, 3))
    since_s = time.monotonic()
    await worker.terminate()
    await replaced(deployment, seat)
    await deployment.caught_up(name, since_s)


@fault(
    "worker's clock an hour ahead",
    "worker",
    "nothing: workers go by the clock of Redis",
    faketime=True,
)
async def clock_ahead(deployment: Deployment) -> None:
    """A worker that is an hour ahead joins and leaves."""
    await _worker_with_clock(deployment, "worker's clock an hour ahead", "+1h")


@fault("worker's clock an hour behind", "worker", "nothing: workers go by the clock of Redis", faketime=True)
async def clock_behind(deployment: Deployment) -> None:
    """A worker that is an hour behind joins and leaves."""
    await _worker_with_clock(deployment, "worker's clock an hour behind", "-1h")
