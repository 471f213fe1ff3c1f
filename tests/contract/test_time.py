"""The clock of Redis."""

from __future__ import annotations

import time

import pytest

from aggregator.adapters.redis.time import RedisTime
from tests.contract.conftest import Stores
from tests.redis_servers import redis_servers_available


@pytest.mark.parametrize("stores", [*sorted(redis_servers_available()), "cluster"], indirect=True)
async def test_the_server_tells_its_time(stores: Stores) -> None:
    assert stores.connections is not None
    before_ms = time.time_ns() // 1_000_000
    told_ms = await RedisTime(stores.connections, stores.keys).now_ms()
    assert before_ms <= told_ms <= time.time_ns() // 1_000_000
