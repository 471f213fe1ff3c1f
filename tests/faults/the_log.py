"""What can happen to the log itself: it grows new partitions, is made again, or loses what nobody has read yet."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from tests.e2e.comparing import assert_equals_oracle
from tests.e2e.deliveries import PARTITIONS, Delivery
from tests.e2e.waiting import until
from tests.faults.brokers import Kafka
from tests.faults.deployment import Deployment, deployment
from tests.faults.outcome import assert_right
from tests.faults.schedules import traffic
from tests.faults.stores import single
from tests.faults.toxiproxy import Toxiproxy

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]


def on_partitions(records: list[Delivery], first: int, count: int) -> list[Delivery]:
    """The same records on so many partitions from `first` on."""
    return [one._replace(partition=first + one.partition % count) for one in records]


async def made_again(deployment: Deployment) -> None:
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


async def test_partitions_are_added_while_records_come_in(
    one_broker: Kafka, proxies: Toxiproxy, tmp_path: Path
) -> None:
    records = traffic(11, 300)
    half = len(records) // 2
    async with single(proxies) as store, deployment(one_broker, store, tmp_path, partitions=2) as made:
        for seat in (0, 1):
            made.start_worker(seat)
        await made.drip(on_partitions(records[:half], 0, 2), 2.0)
        await made.broker.add_partitions(made.topic, 6)
        await made.drip(on_partitions(records[half:], 0, 6), 3.0)
        await assert_right(made, records)


async def test_the_topic_is_made_again_while_workers_run(one_broker: Kafka, proxies: Toxiproxy, tmp_path: Path) -> None:
    records = traffic(12, 300)
    half = len(records) // 2
    async with single(proxies) as store, deployment(one_broker, store, tmp_path) as made:
        await made.start_workers(2)
        await made.drip(records[:half], 2.0)
        await made.wait_settled()
        await made_again(made)
        await made.drip(records[half:], 2.0)
        await made.wait_settled()
        await assert_equals_oracle(made, [one.message for one in records], round(time.time() * 1000))


async def test_the_topic_is_made_again_while_nobody_works_and_grows_beyond_what_was_read(
    one_broker: Kafka, proxies: Toxiproxy, tmp_path: Path
) -> None:
    records = traffic(13, 400)
    some = len(records) // 5
    async with single(proxies) as store, deployment(one_broker, store, tmp_path) as made:
        await made.start_workers(1)
        await made.drip(records[:some], 1.0)
        await made.wait_settled()
        assert await made.workers_by_seat.pop(0).terminate() == 0
        await made_again(made)
        await made.drip(records[some:], 1.0)
        made.start_worker(0)
        await made.wait_settled()
        await assert_equals_oracle(made, [one.message for one in records], round(time.time() * 1000))


@pytest.mark.parametrize("running", [True, False])
async def test_what_retention_took_before_it_was_read_is_counted(
    running: bool, one_broker: Kafka, proxies: Toxiproxy, tmp_path: Path
) -> None:
    """Running: the worker does not reach Kafka for a while; else it is not there."""
    records = on_partitions(traffic(14, 300), 0, 1)
    some, more = len(records) // 3, 2 * len(records) // 3
    async with single(proxies) as store, deployment(one_broker, store, tmp_path, partitions=1) as made:
        worker = made.start_worker(0)
        await made.drip(records[:some], 1.0)
        await made.wait_settled()
        if running:
            await one_broker.ways(0)[0].cut()
        else:
            assert await made.workers_by_seat.pop(0).terminate() == 0
        await made.drip(records[some:more], 1.0)
        cut = made.ends[0]
        async with made.broker.admin() as admin:
            await admin.delete_records({TopicPartition(made.topic, 0): RecordsToDelete(before_offset=cut)})
        await made.drip(records[more:], 1.0)
        if running:
            await one_broker.ways(0)[0].heal()
        else:
            worker = made.start_worker(0)
        await worker.listening()
        await made.wait_settled()

        async def counted() -> float:
            return (await worker.metrics()).value("records_lost_total", topic=made.topic)

        lost = await until("the lost records are counted", counted)
        assert lost == cut - some
        survivors = [*records[:some], *records[more:]]
        await assert_equals_oracle(made, [one.message for one in survivors], round(time.time() * 1000))
