"""Back-pressure: behind a slow Redis a lag waits in Kafka, not in the worker, and nobody takes it for dead."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.pipeline import Pipeline, pipeline
from tests.e2e.pressure import SESSION_SPANS, Look, pile_up, resident_bytes, running_for, share_for_a_tenth
from tests.e2e.waiting import until
from tests.e2e.workers import Answer, Worker
from tests.kafka_servers import Broker
from tests.redis_servers import RedisServer, redis_servers_available

MOST_BYTES: Final = 256 * 1024 * 1024
STANDSTILL_S: Final = 5.0
SESSION_TIMEOUT_S: Final = 3.0
DEFAULTS: Final = {
    "INGEST__MAX_BATCH_RECORDS": "500",
    "REDIS__TIMEOUT_S": "5",
    "SESSION__IDLE_TIMEOUT_S": "3600",
    "KAFKA__SESSION_TIMEOUT_MS": f"{SESSION_TIMEOUT_S * 1000:g}",
}
ALL_WELL: Final = {Answer(200, "ok\n")}


async def under_pressure(
    made: Pipeline, redis: RedisServer, records: int, *, slow_s: float, **settings: str
) -> tuple[Worker, Look]:
    """Read that lag, at first with a Redis at a tenth of its speed, with as much as a tenth of it again in a burst."""
    await pile_up(made, 0, records)
    share, slowed = await asyncio.to_thread(share_for_a_tenth, redis)
    worker = made.worker(**(DEFAULTS | settings))
    await worker.listening()
    await until("the worker is ready", worker.is_ready)
    look = Look()
    burst = records // 10
    watching = asyncio.create_task(look.watch(made, worker, records + burst))
    with running_for(redis, share):
        await asyncio.sleep(slow_s / 2)
        scrape = await worker.metrics()
        lag, told = made.ends.total() - await asyncio.to_thread(made.applied), scrape.total("consumer_lag_records")
        await pile_up(made, records, burst)
        await asyncio.sleep(slow_s / 2)
        while_slow = await asyncio.to_thread(made.applied)
    await watching
    print(f"Redis at {slowed:.0%}: {while_slow} records; lag {lag}, told {told:.0f}; {look.longest_standstill_s:.1f} s")
    assert slowed < 0.2, "Redis was not slow"
    assert 0 < while_slow < records + burst, "the lag was gone too soon to show anything"
    assert told == pytest.approx(lag, abs=0.1 * records)
    return worker, look


async def assert_bore_it(made: Pipeline, worker: Worker, look: Look, *, growth_bytes: int) -> None:
    """Memory, health, progress and membership were as promised, and every span counts once."""
    total = made.ends.total()
    print(f"RSS {look.resident[0] >> 20} to {max(look.resident) >> 20} MB, at the end {look.resident[-1] >> 20} MB")
    assert look.live == ALL_WELL
    assert look.ready == ALL_WELL, "it works, and says so"
    assert look.longest_standstill_s < STANDSTILL_S
    assert resident_bytes(worker, "VmHWM") < MOST_BYTES
    assert max(look.resident) - look.resident[0] < growth_bytes, "what is read ahead of Redis is held in memory"
    assert len(worker.events("partitions_assigned")) == 1
    assert not worker.events("partitions_revoked")
    found = await worker.metrics()
    assert found.value("redis_retries_total") == 0
    assert found.value("spans_total", outcome="merged") == total
    assert found.total("consumer_lag_records") == 0
    counts = [int(made.redis.hget(key, "span_count")) for key in made.session_keys()]
    assert counts == [SESSION_SPANS] * (total // SESSION_SPANS)


@pytest.mark.heavy  # how fast Redis is meanwhile depends on what else the machine does
@pytest.mark.timeout(300)
@pytest.mark.parametrize("redis_server", sorted(redis_servers_available())[:1], indirect=True)
async def test_a_slow_redis_and_a_lag_are_borne(
    kafka_broker: Broker, redis_server: RedisServer, tmp_path: Path
) -> None:
    """`tests/heavy/test_lag.py` does the same with a million records."""
    async with pipeline(kafka_broker, redis_server, tmp_path) as made:
        # The cache of traces would be filled by as many spans, which takes 18 MB and has nothing to do with the lag.
        little = {"INGEST__TRACE_CACHE_SPANS": "1000"}
        worker, look = await under_pressure(made, redis_server, 40_000, slow_s=2.5 * SESSION_TIMEOUT_S, **little)
        await assert_bore_it(made, worker, look, growth_bytes=16 * 1024 * 1024)
