"""A server that Sentinels watch: found, logged in to, and found again after a failover."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest

from aggregator.adapters.redis.connections import connect
from aggregator.adapters.redis.keys import Keys
from aggregator.adapters.redis.progress import RedisProgress
from aggregator.adapters.redis.servers import servers
from aggregator.check import check
from aggregator.core.errors import ConfigurationError, StoreUnavailable
from aggregator.core.model import Partition
from aggregator.embedded.process import free_port
from aggregator.ports import Applied
from aggregator.settings import load_settings
from tests.e2e.waiting import until
from tests.redis_servers import Guard, redis_servers_available

P = Partition("otlp_spans", 0)
SERVERS, SENTINELS = "of-servers", "of-sentinels"


@pytest.fixture
def guard() -> Iterator[Guard]:
    program = next(iter(redis_servers_available().values()))
    # Two Sentinels may each vote for itself; then they try again after twice this time.
    made = Guard(program, sentinels=2, password=SERVERS, own_password=SENTINELS, failover_timeout_s=3)
    yield made
    made.remove()


async def test_a_failover_is_followed_and_what_the_replica_has_missed_shows(guard: Guard) -> None:
    guard.wait_for_replica()
    connections = connect(guard.url)
    progress = RedisProgress(connections, Keys())
    try:
        assert await progress.write({P: Applied(None, 5, None)}) == {}
        guard.wait_for_replica()
        guard.stop_replication()
        assert await progress.write({P: Applied(5, 9, None)}) == {}
        (before,) = await servers(connections)
        assert before.address.startswith(f"127.0.0.1:{guard.master.port} (mymaster of the Sentinels 127.0.0.1:")
        guard.kill_master()
        with pytest.raises(StoreUnavailable):  # once, since another server answers now
            await progress.write({P: Applied(9, 12, None)})

        async def it_is_told() -> bool:
            with suppress(StoreUnavailable):  # until the Sentinels, too, take the new master to be up
                assert await progress.write({P: Applied(9, 12, None)}) == {P: 5}
                return True
            return False

        await until("the new master answers", it_is_told)
        (after,) = await servers(connections)
        assert after.address.startswith(f"127.0.0.1:{guard.master.port} ")
        assert after.run_id != before.run_id
    finally:
        await connections.close()


async def test_check_says_what_the_sentinels_led_to(guard: Guard) -> None:
    lines: list[str] = []
    environment = {
        "AGGREGATOR_REDIS__URL": guard.url,
        "AGGREGATOR_KAFKA__BOOTSTRAP_SERVERS": f"localhost:{free_port()}",
    }
    await check(load_settings(environment), lines.append)
    (line,) = [line for line in lines if line.startswith("redis")]
    assert f"127.0.0.1:{guard.master.port} (mymaster of the Sentinels" in line
    assert "master" in line
    assert "of-se" not in "\n".join(lines)


async def test_what_is_wrong_is_said_without_passwords(guard: Guard) -> None:
    for right, wrong, words in (
        ("mymaster", "other", "no Sentinel names a master that is up"),
        ("of-sentinels", "wrong", "(a Sentinel, whose log-in is sentinel_username and _password) does not let user"),
        ("of-servers", "wrong", "mymaster of the Sentinels"),
    ):
        connections = connect(guard.url.replace(right, wrong))
        try:
            with pytest.raises(StoreUnavailable) as raised:
                await servers(connections)
            assert words in str(raised.value)
            assert "of-se" not in str(raised.value)
            assert "0x" not in str(raised.value)
        finally:
            await connections.close()


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://:hunter2@h:26379",
        "redis+sentinel://h/m/0?sentinel_pasword=hunter2",
        "redis+sentinel://h:26379,/m",
        "redis+sentinel://h:1/m/x",
    ],
)
def test_a_url_that_can_not_be_read_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        connect(url)
    assert "hunter2" not in str(raised.value)


def test_a_cluster_has_no_sentinels() -> None:
    environment = {"AGGREGATOR_REDIS__URL": "redis+sentinel://h,g:26380/m/3", "AGGREGATOR_REDIS__CLUSTER": "true"}
    with pytest.raises(ConfigurationError, match="Sentinels lead to a single server") as raised:
        load_settings(environment)
    assert len(str(raised.value).splitlines()) == 1
    del environment["AGGREGATOR_REDIS__CLUSTER"]
    assert str(load_settings(environment).redis.url) == environment["AGGREGATOR_REDIS__URL"]
