"""A worker that dies at a step of its work, as entries of the catalogue: before it is done, or before it is known.

Alone there is no other worker, so recovery takes the start of a process as well.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterable
from typing import Final

from tests.faults.catalogue import fault, replaced, vacated
from tests.faults.deployment import Deployment
from tests.faults.worker import CLOSE, INGEST, When, dies

_WAIT_S: Final = 30.0  # a step may have nothing to do any more
_WHENS: Final[tuple[When, ...]] = ("before", "after")


async def _die(deployment: Deployment, name: str, steps: Iterable[str]) -> None:
    """At one of the steps; alone at each, one after another, without others who would do its work."""
    points = [(when, step) for step in steps for when in _WHENS]
    for when, step in points if deployment.unhurried else [deployment.dice.choice(points)]:
        if deployment.unhurried:
            await asyncio.gather(*(worker.terminate() for worker in deployment.workers_by_seat.values()))
            deployment.workers_by_seat.clear()
        seat = await vacated(deployment)
        worker = deployment.start_worker(
            seat, dies(when, step, 1 if deployment.unhurried else deployment.dice.randint(1, 3))
        )
        ends_s = time.monotonic() + (_WAIT_S if deployment.unhurried else _WAIT_S / 4)
        while worker.child.exit_code() is None and time.monotonic() < ends_s:  # noqa: ASYNC110 - a process sets no event
            await asyncio.sleep(0.05)
        since_s, code = time.monotonic(), worker.child.exit_code()
        deployment.note(f"{name}: {when} it could {step}, exit code {code}")
        if code is None:
            assert not deployment.unhurried, f"a worker was to die {when} it could {step}, and did not"
            await worker.terminate()
        else:
            assert code == -signal.SIGKILL, f"a worker that was to die at a step ended with {code}"
        await replaced(deployment, seat)
    await deployment.caught_up(name, since_s)


@fault(
    "worker dies at a step of ingest",
    "worker",
    "as if it were killed",
    traffic_s=90.0,
    within_s=30.0,
)
async def ingest_cut(deployment: Deployment) -> None:
    """It sends a dead letter, stores traces, puts sessions, writes progress or commits, and is gone."""
    await _die(deployment, "worker dies at a step of ingest", INGEST)


@fault(
    "worker dies at a step of closing",
    "worker",
    "as if it were killed; who is next publishes the same again",
    traffic_s=90.0,
    within_s=30.0,
)
async def close_cut(deployment: Deployment) -> None:
    """It claims, publishes, settles, writes the indexes or removes deadlines, and is gone."""
    await _die(deployment, "worker dies at a step of closing", CLOSE)
