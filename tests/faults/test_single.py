"""Each fault alone, in the middle of traffic; whatever it was, what comes out is what the oracle says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.brokers import Kafka
from tests.faults.catalogue import FAULTS
from tests.faults.schedules import Schedule, carry_out
from tests.faults.toxiproxy import Toxiproxy

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if fault.brokers == 1])
async def test_a_fault_alone(name: str, one_broker: Kafka, proxies: Toxiproxy, log_dir: Path) -> None:
    fault = FAULTS[name]
    schedule = Schedule(seed=1, workers=2, spans=300, odd_clocks=False, faults=[(1.5, fault)], seconds=4.0)
    found = await carry_out(schedule, one_broker, proxies, log_dir, seats=range(3))
    assert found.recovery_s[name] < fault.within_s
