"""The stores that the contract suite runs on: the fakes, each single server, and a Cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from aggregator.adapters.redis.access import Access
from aggregator.adapters.redis.connections import Connections, connect
from aggregator.adapters.redis.index import RedisSessionIndex
from aggregator.adapters.redis.keys import Keys
from aggregator.adapters.redis.progress import RedisProgress
from aggregator.adapters.redis.schedule import RedisSchedule
from aggregator.adapters.redis.sessions import RedisSessions
from aggregator.adapters.redis.traces import RedisTraces
from aggregator.core.model import SessionRef
from aggregator.ports import Progress, Schedule, SessionIndex, SessionStore, TraceStore
from tests import ran_on
from tests.access.redis_with_acls import WORKER, allow
from tests.fake_index import FakeSessionIndex
from tests.fakes import FakeProgress, FakeSchedule, FakeSessionStore, FakeTraceStore, hash_fields
from tests.redis_servers import RunningServers, assert_every_key_lives_or_expires, redis_servers_available

IDLE_MS = 1_800_000
MAX_DURATION_MS = 86_400_000
RETENTION_MS = 7_200_000
TRACE_LIFE_MS = IDLE_MS + RETENTION_MS
MAX_TRACES = 20


class Stores:
    """The stores of one make, and ways to look at what they hold."""

    def __init__(
        self,
        traces: TraceStore,
        sessions: SessionStore,
        schedule: Schedule,
        progress: Progress,
        index: SessionIndex,
        keys: Keys,
    ) -> None:
        self.traces = traces
        self.sessions = sessions
        self.schedule = schedule
        self.progress = progress
        self.index = index
        self.keys = keys
        self.connections: Connections | None = None
        self.client: Any = None

    def session_hash(self, ref: SessionRef) -> dict[str, str]:
        """The public fields of the session hash; empty where there is none."""
        if isinstance(self.sessions, FakeSessionStore):
            session = self.sessions.sessions.get(ref)
            return hash_fields(ref, session) if session else {}
        stored = self.client.hgetall(self.keys.session(ref).session)
        return {key.decode(): value.decode() for key, value in stored.items() if not key.startswith(b"_")}

    def model_fields(self, ref: SessionRef) -> dict[str, int]:
        """What `:models` holds."""
        if isinstance(self.sessions, FakeSessionStore):
            fields: dict[str, int] = {}
            session = self.sessions.sessions.get(ref)
            for name, figures in (session.models if session else {}).items():
                names = ("calls", "prompt_tokens", "completion_tokens", "embedding_tokens", "cost_nano_usd")
                values = (*figures[:4], figures[4] * 10**9 + figures[5])
                fields |= {f"{name}:{figure}": value for figure, value in zip(names, values, strict=True)}
                costs = zip(("reported_costs", "priced_costs"), figures[6:], strict=True)
                fields |= {f"{name}:{figure}": value for figure, value in costs if value}
            return fields
        stored = self.client.hgetall(self.keys.session(ref).models)
        return {key.decode(): int(value) for key, value in stored.items()}

    def assert_lives_or_expires(self, *, indexed: bool = False, settled: bool = False) -> None:
        """Law 6, where there are keys."""
        if self.client is not None:
            assert_every_key_lives_or_expires(self.client, self.keys.prefix, indexed=indexed, settled=settled)


def fake_stores(keys: Keys) -> Stores:
    sessions = FakeSessionStore(
        idle_timeout_ms=IDLE_MS,
        max_duration_ms=MAX_DURATION_MS,
        max_session_traces=MAX_TRACES,
        trace_life_ms=TRACE_LIFE_MS,
    )
    schedule = FakeSchedule(closing_shards=keys.closing_shards)
    return Stores(FakeTraceStore(), sessions, schedule, FakeProgress(), FakeSessionIndex(sessions, schedule), keys)


def redis_stores(connections: Connections, client: Any, keys: Keys) -> Stores:
    sessions = RedisSessions(
        connections,
        keys,
        idle_timeout_ms=IDLE_MS,
        max_duration_ms=MAX_DURATION_MS,
        retention_ms=RETENTION_MS,
        max_session_traces=MAX_TRACES,
        trace_life_ms=TRACE_LIFE_MS,
    )
    schedule = RedisSchedule(connections, keys)
    index = RedisSessionIndex(connections, keys, retention_ms=RETENTION_MS)
    stores = Stores(RedisTraces(connections, keys), sessions, schedule, RedisProgress(connections, keys), index, keys)
    stores.connections, stores.client = connections, client
    return stores


@pytest.fixture(params=["fake", *sorted(redis_servers_available()), "cluster"])
async def stores(request: pytest.FixtureRequest, running_servers: RunningServers) -> AsyncIterator[Stores]:
    """Empty stores of each make; law 6 is checked when a test is over."""
    keys = Keys(closing_shards=8)
    if request.param == "fake":
        yield fake_stores(keys)
        return
    clustered = request.param == "cluster"
    place = running_servers.cluster() if clustered else running_servers.server(request.param)
    ran_on.note("redis_cluster" if clustered else "redis_server", place, request)
    # As the user that is shipped for the worker, so that every contract also shows that its rights are enough.
    allow(place, WORKER, "password")
    connections = connect(place.url, cluster=clustered, access=Access(username=WORKER, password="password"))  # noqa: S106
    client: Any = place.client()
    try:
        made = redis_stores(connections, client, keys)
        yield made
        made.assert_lives_or_expires()
    finally:
        client.close()
        await connections.close()
