"""Each fault alone, in the middle of traffic; whatever it was, what comes out is what the oracle says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.brokers import Kafka
from tests.faults.catalogue import Fault
from tests.faults.clusters import Clustered
from tests.faults.guarded import guarded
from tests.faults.schedules import Schedule, carry_out, eligible
from tests.faults.stores import Store, single
from tests.faults.toxiproxy import Toxiproxy

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

_TRAFFIC_S = 4.0
_MIDWAY_S = 1.5


async def alone(fault: Fault, kafka: Kafka, store: Store, log_dir: Path) -> None:
    """Do it midway, with two workers and seats for more."""
    schedule = Schedule(seed=1, workers=2, spans=300, odd_clocks=False, faults=[(_MIDWAY_S, fault)], seconds=_TRAFFIC_S)
    found = await carry_out(schedule, kafka, store, log_dir)
    assert found.recovery_s[fault.name] < fault.within_s


@pytest.mark.parametrize("fault", eligible(store="single", alone=True), ids=str)
async def test_on_one_broker_and_one_redis(fault: Fault, one_broker: Kafka, proxies: Toxiproxy, tmp_path: Path) -> None:
    async with single(proxies, replica=fault.replica) as store:
        await alone(fault, one_broker, store, tmp_path)


@pytest.mark.parametrize("fault", [fault for fault in eligible(store="cluster") if fault.domain in ("redis", "network")], ids=str)
async def test_on_redis_cluster(fault: Fault, one_broker: Kafka, cluster: Clustered, tmp_path: Path) -> None:
    await cluster.flush()
    await alone(fault, one_broker, cluster, tmp_path)


@pytest.mark.parametrize("fault", [fault for fault in eligible(store="guarded") if fault.store == "guarded"], ids=str)
async def test_under_sentinels(fault: Fault, one_broker: Kafka, proxies: Toxiproxy, tmp_path: Path) -> None:
    async with guarded(proxies) as store:
        await alone(fault, one_broker, store, tmp_path)


@pytest.mark.parametrize(
    "fault", [fault for fault in eligible(store="single", brokers=3) if fault.brokers == 3], ids=str
)
async def test_on_three_brokers(fault: Fault, three_brokers: Kafka, proxies: Toxiproxy, tmp_path: Path) -> None:
    async with single(proxies) as store:
        await alone(fault, three_brokers, store, tmp_path)
