"""A rolling restart of four workers under load, with and without static membership of the group."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from typing import Final

from tests.e2e.deliveries import Delivery
from tests.e2e.waiting import until
from tests.faults.deployment import Deployment
from tests.faults.outcome import Outcome, TooSlowError, assert_right
from tests.faults.scenes import scene
from tests.faults.schedules import traffic

_WORKERS: Final = 4
_TRAFFIC_S: Final = 40.0
_SESSION_TIMEOUT_MS: Final = "30000"  # a static member that takes longer to come back is taken for dead
_MOST_LAG_S: Final = {False: 5.0, True: 10.0}  # by whether it is static; docs/guarantees.md


class Lag:
    """How far the workers are behind what has been sent, looked at ten times a second."""

    def __init__(self, made: Deployment, records: Sequence[Delivery]) -> None:
        self._made = made
        self._rate = len(records) / _TRAFFIC_S
        self.most_s = 0.0  # records behind, as seconds of the traffic
        self.longest_standstill_s = 0.0  # of one partition with something to read

    async def watch(self) -> None:
        """Look until cancelled."""
        moved_s: dict[int, tuple[int, float]] = {}
        while True:
            await asyncio.sleep(0.1)
            applied = await asyncio.to_thread(self._made.progress)
            if not applied:
                continue  # Redis did not answer in time, which says nothing of how far they are
            now_s = time.monotonic()
            behind = {number: end - applied.get(number, 0) for number, end in self._made.ends.items()}
            self.most_s = max(self.most_s, sum(behind.values()) / self._rate)
            for number, records in behind.items():
                place, since_s = moved_s.get(number, (-1, now_s))
                if records <= 0 or applied.get(number, 0) != place:
                    moved_s[number] = (applied.get(number, 0), now_s)
                else:
                    self.longest_standstill_s = max(self.longest_standstill_s, now_s - since_s)


def start(made: Deployment, seat: int, *, static: bool) -> None:
    """Start the worker of a seat, under the name that it had before if that is `static`."""
    name = {"KAFKA__GROUP_INSTANCE_ID": f"worker-{seat}"} if static else {}
    made.start_worker(seat, KAFKA__SESSION_TIMEOUT_MS=_SESSION_TIMEOUT_MS, **name)


async def restart_all(made: Deployment, *, static: bool) -> None:
    """One after another, as a Deployment or a StatefulSet does; the next once the last is ready."""
    for seat in range(_WORKERS):
        await made.workers_by_seat.pop(seat).terminate_within()
        start(made, seat, static=static)
        await made.workers_by_seat[seat].listening()
        await until(f"the worker on seat {seat} is ready", made.workers_by_seat[seat].is_ready)


async def _rolled(made: Deployment, name: str, *, static: bool) -> Outcome:
    records = await asyncio.to_thread(traffic, 21, 1000)
    for seat in range(_WORKERS):
        start(made, seat, static=static)
    for worker in list(made.workers_by_seat.values()):
        await worker.listening()
    await made.balanced(*made.workers_by_seat.values())
    lag = Lag(made, records)
    watching = asyncio.create_task(lag.watch())
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(made.drip(records, _TRAFFIC_S))
            tasks.create_task(restart_all(made, static=static))
    finally:
        watching.cancel()
    found = await assert_right(made, records)
    made.note(f"lag {lag.most_s:.1f} s of traffic")
    found.recovery_s[name] = lag.longest_standstill_s
    print(f"{name}: lag {lag.most_s:.1f} s of traffic, standstill {lag.longest_standstill_s:.1f} s", file=sys.stderr)
    if lag.most_s >= _MOST_LAG_S[static]:
        raise TooSlowError(f"{name}: {lag.most_s:.1f} s of traffic behind, not {_MOST_LAG_S[static]:g}")
    return found


@scene(
    "rolling restart", "each partition stands still for seconds; all change hands twice per restart", seconds=_TRAFFIC_S
)
async def dynamic(made: Deployment) -> Outcome:
    """Four workers, one after another, under load."""
    return await _rolled(made, "rolling restart", static=False)


@scene(
    "rolling restart, static membership",
    "the partitions of the restarted worker wait for its return",
    seconds=_TRAFFIC_S,
)
async def fixed(made: Deployment) -> Outcome:
    """The same with a name for each member of the group."""
    return await _rolled(made, "rolling restart, static membership", static=True)
