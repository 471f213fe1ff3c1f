"""A lag of a million records, as `tests/e2e/test_pressure.py` has a small one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.pipeline import pipeline
from tests.e2e.test_pressure import SESSION_TIMEOUT_S, assert_bore_it, under_pressure
from tests.kafka_servers import Broker
from tests.redis_servers import RedisServer, redis_servers_available

RECORDS = 1_000_000


@pytest.mark.timeout(900)
@pytest.mark.parametrize("redis_server", sorted(redis_servers_available())[:1], indirect=True)
async def test_a_lag_of_a_million_records_is_borne(
    apache_kafka: Broker, redis_server: RedisServer, tmp_path: Path
) -> None:
    async with pipeline(apache_kafka, redis_server, tmp_path) as made:
        worker, look = await under_pressure(made, redis_server, RECORDS, slow_s=10 * SESSION_TIMEOUT_S)
        await assert_bore_it(made, worker, look, growth_bytes=96 * 1024 * 1024)
