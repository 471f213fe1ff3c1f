"""A few schedules of mixed faults for every run of the tests, side by side; `make faults` runs them by the hour."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.e2e.deliveries import drawn_workloads
from tests.faults.brokers import SEATS, kafka
from tests.faults.schedules import carry_out, drawn, eligible
from tests.faults.stores import single
from tests.faults.toxiproxy import Toxiproxy

_SEEDS = (7, 8)


async def test_no_way_leads_past_the_proxies() -> None:
    """Else faults of the network would be none, and nothing would tell."""
    command = [sys.executable, "-m", "tests.faults.worker", "check"]
    environment = os.environ | {"FAULTS_WAYS": "{}"}
    piped = asyncio.subprocess.PIPE
    checking = await asyncio.create_subprocess_exec(*command, env=environment, stdout=piped, stderr=piped)
    _, said = await checking.communicate()
    assert checking.returncode == 1
    assert b"no way through a proxy leads to localhost:" in said


@pytest.mark.timeout(240)
async def test_whatever_breaks_nothing_is_lost_and_nothing_counts_twice(tmp_path: Path) -> None:
    drawn_workloads()  # once, not in each lane
    faults = [fault for fault in eligible(store="single") if fault.domain != "kafka"]  # the lanes share a broker
    async with Toxiproxy(tmp_path) as proxies, kafka(proxies, tmp_path, seats=SEATS * len(_SEEDS)) as brokers:

        async def lane(number: int, seed: int) -> None:
            schedule = drawn(seed, faults, seats=3)
            log_dir = tmp_path / str(seed)
            log_dir.mkdir()
            seats = range(number * SEATS, (number + 1) * SEATS)
            async with single(proxies, seats=seats.stop, replica=schedule.replica) as store:
                await carry_out(schedule, brokers, store, log_dir, seats=seats)

        async with asyncio.TaskGroup() as lanes:
            for number, seed in enumerate(_SEEDS):
                lanes.create_task(lane(number, seed))
