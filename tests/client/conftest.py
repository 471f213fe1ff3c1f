"""A Redis of each kind with some hundred sessions, read by a user who may only read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from aggregator.adapters.redis.connections import connect
from aggregator.adapters.redis.keys import Keys
from aggregator.client import Client
from tests import ran_on
from tests.access.redis_with_acls import VIEWER, allow
from tests.client.sessions import fill, puts
from tests.contract.builders import T0_MS
from tests.contract.conftest import Stores, redis_stores
from tests.redis_servers import Cluster, RedisServer, RunningServers, redis_servers_available


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where sessions are: the workers' stores, a client that may only read, and a plain one to look with."""

    stores: Stores
    client: Client
    plain: Any
    keys: Keys
    url: str
    cluster: bool


def allow_reader(place: RedisServer | Cluster) -> str:
    """Make the user that is shipped for whoever only looks; gives the URL for it."""
    allow(place, VIEWER, "a%2Fb")
    return place.url.replace("redis://", f"redis://{VIEWER}:a%252Fb@")


@pytest.fixture(params=[*sorted(redis_servers_available()), "cluster"])
async def place(request: pytest.FixtureRequest, running_servers: RunningServers) -> AsyncIterator[Place]:
    """Empty."""
    keys = Keys(closing_shards=8)
    clustered = request.param == "cluster"
    server = running_servers.cluster() if clustered else running_servers.server(request.param)
    ran_on.note("redis_cluster" if clustered else "redis_server", server, request)
    url = allow_reader(server)
    connections = connect(server.url, cluster=clustered)
    plain: Any = server.client()
    try:
        async with Client(url, cluster=clustered, closing_shards=8) as client:
            stores = redis_stores(connections, plain, keys)
            yield Place(stores=stores, client=client, plain=plain, keys=keys, url=url, cluster=clustered)
    finally:
        plain.close()
        await connections.close()


@pytest.fixture
async def filled(place: Place) -> Place:
    """With four hundred sessions of three projects."""
    await fill(place.stores, list(puts(400)), now_ms=T0_MS)
    return place
