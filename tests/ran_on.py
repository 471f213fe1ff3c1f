"""Which outside servers the tests really ran on, for the one line at the end of a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:  # pytest wants to load these two itself, to rewrite their assertions
    from tests.kafka_servers import Broker
    from tests.postgresql_server import PostgreSQL
    from tests.redis_servers import Cluster, RedisServer

_USED = pytest.StashKey[dict[str, set[str]]]()


def note(fixture: str, server: Any, request: pytest.FixtureRequest) -> None:
    """Count the test that asked for this fixture, if the fixture is a server."""
    name_of = _FIXTURES.get(fixture)
    if name_of is None:
        return
    _used(request.config)[name_of(server)].add(request.node.nodeid)


def tell(config: pytest.Config, told: dict[str, Any]) -> None:
    """What one of several processes that share the tests has noted, as its controller is told it."""
    told[__name__] = {name: sorted(tests) for name, tests in _used(config).items()}


def take(config: pytest.Config, told: dict[str, Any]) -> None:
    """Add what another process has told to what is noted here."""
    for name, tests in told.get(__name__, {}).items():
        _used(config)[name].update(tests)


def line(config: pytest.Config) -> str:
    """`ran on: 41 tests Apache Kafka 4.1.1, 57 Redis 7.0.15`: each test counts once per server that it used."""
    used = sorted(_used(config).items())
    if not used:
        return "ran on: no server"
    (first, tests), *rest = used
    counts = [f"{len(tests)} tests {first}", *(f"{len(tests)} {name}" for name, tests in rest)]
    return f"ran on: {', '.join(counts)}"


def _used(config: pytest.Config) -> dict[str, set[str]]:
    nothing_yet: dict[str, set[str]] = defaultdict(set)
    return config.stash.setdefault(_USED, nothing_yet)


def _broker(broker: Broker) -> str:
    return broker.name


def _server(server: RedisServer) -> str:
    return " ".join(_redis(server))


def _cluster(cluster: Cluster) -> str:
    kind, version = _redis(cluster.nodes[0])
    return f"{kind} Cluster {version}"


def _postgresql(server: PostgreSQL) -> str:
    return server.version


@cache
def _redis(server: RedisServer) -> tuple[str, str]:
    with server.client() as client:
        about = client.info("server")
    if "valkey_version" in about:
        return "Valkey", about["valkey_version"]
    return "Redis", about["redis_version"]


_FIXTURES: Final[Mapping[str, Callable[[Any], str]]] = {
    "kafka_broker": _broker,
    "apache_kafka": _broker,
    "redis_server": _server,
    "redis_cluster": _cluster,
    "postgresql": _postgresql,
}
