"""`make faults`: seeded schedules one after another, two deployments at a time, and the table of what came of them.

FAULTS_MINUTES bounds how long new ones are begun (10), FAULTS_SCHEDULES how many (no bound), FAULTS_SEED is the first
seed (1; each deployment counts on from it), FAULTS_LANES how many deployments there are at a time (2), FAULTS_STORE is
`single` or `cluster`, FAULTS_BROKERS 1 or 3.
With FAULTS_TABLE=docs/guarantees.md the table is entered there, in its place for that store and so many brokers.
The first that fails ends the run, with its seed, its schedule and the first difference.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from tests.faults.brokers import SEATS, Kafka, kafka
from tests.faults.clusters import Clustered, clustered
from tests.faults.outcome import Outcome
from tests.faults.schedules import carry_out, drawn, eligible
from tests.faults.stores import single
from tests.faults.table import Tally, enter
from tests.faults.toxiproxy import Toxiproxy


def _number(name: str, default: float) -> float:
    return float(os.environ.get(name) or default)


class Run:
    """What the lanes share."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = "cluster" if os.environ.get("FAULTS_STORE") == "cluster" else "single"
        self.brokers = int(_number("FAULTS_BROKERS", 1))
        self.lanes = 1 if self.store == "cluster" else int(_number("FAULTS_LANES", 2))
        self.ends_s = time.monotonic() + 60 * _number("FAULTS_MINUTES", 10)
        first, most = int(_number("FAULTS_SEED", 1)), int(_number("FAULTS_SCHEDULES", 10**9))
        self.seeds: Iterator[int] = iter(range(first, first + most))
        self.tally = Tally()
        self.failed = False

    def next_seed(self) -> int | None:
        """The seed of the next schedule, None where none is to be begun."""
        if self.failed or time.monotonic() > self.ends_s:
            return None
        return next(self.seeds, None)


async def _lane(run: Run, number: int, brokers: Kafka, proxies: Toxiproxy, cluster: Clustered | None) -> None:
    seats = range(number * SEATS, (number + 1) * SEATS)
    faults = eligible(store="cluster" if cluster else "single", brokers=run.brokers)
    while (seed := run.next_seed()) is not None:
        schedule = drawn(seed, faults, seats=SEATS)
        log_dir = run.directory / f"seed-{seed}"
        await asyncio.to_thread(log_dir.mkdir)
        began_s = time.monotonic()
        try:
            if cluster is not None:
                await cluster.flush()
                found = await carry_out(schedule, brokers, cluster, log_dir, seats=seats)
            else:
                async with single(proxies, seats=seats.stop, replica=schedule.replica) as store:
                    found = await carry_out(schedule, brokers, store, log_dir, seats=seats)
        except Exception:  # whatever it is, it is this schedule's failure
            run.failed = True
            traceback.print_exc()
            print(f"FAILED: repeat with FAULTS_SEED={seed} FAULTS_SCHEDULES=1", file=sys.stderr)
            return
        run.tally.add(schedule, found)
        _say(seed, len(schedule.faults), found, time.monotonic() - began_s)


def _say(seed: int, faults: int, found: Outcome, took_s: float) -> None:
    print(
        f"seed {seed}: ok in {took_s:.0f} s, {faults} faults, {found.spans} spans, {found.sessions} sessions",
        file=sys.stderr,
        flush=True,
    )


async def _main() -> int:
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        directory = Path(name)
        run = Run(directory)
        async with Toxiproxy(directory) as proxies:
            seats = run.lanes * SEATS
            async with kafka(proxies, directory, nodes=run.brokers, seats=seats) as brokers:
                if run.store == "cluster":
                    async with clustered(proxies) as cluster:
                        await _lane(run, 0, brokers, proxies, cluster)
                else:
                    await asyncio.gather(*(_lane(run, lane, brokers, proxies, None) for lane in range(run.lanes)))
    table = run.tally.table()
    print(table)
    if file := os.environ.get("FAULTS_TABLE"):
        await asyncio.to_thread(enter, Path(file), f"{run.store}-{run.brokers}", table)
    return int(run.failed)


if __name__ == "__main__":
    sys.exit(asyncio.run(_main()))
