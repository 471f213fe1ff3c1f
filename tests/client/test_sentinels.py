"""The client under Sentinels, as a user who may only read, before and after a failover."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from aggregator.adapters.redis.connections import connect
from aggregator.adapters.redis.keys import Keys
from aggregator.client import Client, Page, Query, Sort, StoreUnavailable
from tests.access.redis_with_acls import VIEWER, rules
from tests.client.sessions import expected, fill, puts
from tests.contract.builders import T0_MS
from tests.contract.conftest import redis_stores
from tests.e2e.waiting import until
from tests.indexes import session_hashes
from tests.redis_servers import Guard, redis_servers_available

SERVERS, SENTINELS = "of-servers", "of-sentinels"


@pytest.fixture
def guard() -> Iterator[Guard]:
    program = next(iter(redis_servers_available().values()))
    made = Guard(program, password=SERVERS, own_password=SENTINELS, failover_timeout_s=3)
    yield made
    made.remove()


async def test_lists_and_details_go_on_after_a_failover(guard: Guard) -> None:
    keys, query = Keys(closing_shards=8), Query(project="demo", sort=Sort.COST)
    connections = connect(guard.url)
    await fill(redis_stores(connections, None, keys), list(puts(100)), now_ms=T0_MS)
    await connections.close()
    guard.wait_for_replica()
    for server in (guard.master, guard.replica):  # users are not replicated
        with guard._client(server) as plain:
            plain.execute_command("ACL", "SETUSER", VIEWER, "reset", *rules(VIEWER), "on", ">a%2Fb")
    with guard.client() as plain:
        wanted = expected(session_hashes(plain), query, keys)
    async with Client(guard.url.replace(f"://:{SERVERS}@", f"://{VIEWER}:a%252Fb@"), closing_shards=8) as client:
        first = await client.list(query, limit=20)
        assert [session.ref for session in first.sessions] == wanted[:20]
        guard.look_again()
        guard.master.stop()

        async def look() -> list[Page]:
            try:
                return [await client.list(query, cursor=first.next, limit=500)]
            except StoreUnavailable:
                return []

        # On a busy machine a Sentinel may wait for 30 s by itself.
        (rest,) = await until("the client finds the new master", look, timeout_s=90)
        assert [session.ref for session in rest.sessions] == wanted[20:]
        session = await client.get(*wanted[0])
        assert session is not None
        assert len(session.traces) == session.trace_count
        assert (await client.totals("demo")).sessions == len(wanted)
        assert "demo" in await client.projects()
        assert (await client.changes(query, position=0)).sessions
