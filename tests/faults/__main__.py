"""`make faults`: each fault alone, then mixed ones by seeded schedules, and the tables of what came of them.

FAULTS_MINUTES bounds how long new schedules are begun (10), FAULTS_SCHEDULES how many (no bound), FAULTS_SEED is the
first seed (1).  FAULTS_ALONE is a regular expression: only those faults are done alone (all; `none` for none).
There are four lanes, with brokers of their own: two with a single Redis, one with a Cluster and with Sentinels in
turn, and one with three brokers.  FAULTS_STORE (`single`, `cluster` or `guarded`) or FAULTS_BROKERS (1 or 3) ask for
one kind of deployment only, in FAULTS_LANES lanes (2).
With FAULTS_TABLE=docs/guarantees.md the tables are entered there, each in the place of its kind.
The first that fails ends the run, with its schedule, the first difference and how to repeat it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.e2e.deliveries import drawn_workloads
from tests.faults.lanes import Lane, Run
from tests.faults.table import enter
from tests.faults.toxiproxy import Toxiproxy


async def _main() -> int:
    drawn_workloads()  # before there are threads: it takes seconds, and nobody else may draw at random meanwhile
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # the run's own clients, on brokers that it breaks
    # One that waits for a server keeps its thread; by default there are so few that lanes would wait for each other.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(64))
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        directory = Path(name)
        async with Toxiproxy(directory) as proxies:
            run = Run(directory, proxies)
            lanes = [Lane(run, index, kinds) for index, kinds in enumerate(run.lanes)]
            await asyncio.gather(*(lane.work() for lane in lanes))
    for kind, tally in sorted(run.tallies.items()):
        print(f"\n{kind}\n{tally.table()}")
        if file := os.environ.get("FAULTS_TABLE"):
            await asyncio.to_thread(enter, Path(file), str(kind), tally.table())
    print(f"{'FAILED' if run.failed else 'all is well'} after {time.monotonic() - began_s:.0f} s", file=sys.stderr)
    return int(run.failed)


if __name__ == "__main__":
    sys.exit(asyncio.run(_main()))
