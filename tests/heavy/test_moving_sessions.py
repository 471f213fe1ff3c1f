"""With 100,000 sessions whose figures move while somebody turns the pages."""

from __future__ import annotations

import asyncio
import random
from typing import Final

import pytest

from aggregator.adapters.redis.connections import connect
from aggregator.client import Client, Query, Sort
from aggregator.core.model import SessionRef
from aggregator.ports import SessionPut
from tests.client.sessions import expected
from tests.contract.builders import T0_MS, trace_put
from tests.contract.conftest import redis_stores
from tests.heavy.conftest import KEYS, server_of_many
from tests.indexes import session_hashes

AT_ONCE: Final = 200


@pytest.mark.timeout(900)
async def test_no_session_is_missing_or_twice_over_the_pages_while_traffic_goes_on() -> None:
    """Nine in ten of 100,000, by a figure that the traffic changes all the time."""
    query = Query(project="demo", sort=Sort.TOKENS)
    with server_of_many() as server, server.client() as plain:
        there = expected(session_hashes(plain), query, KEYS)
        connections = connect(server.url)
        stores = redis_stores(connections, plain, KEYS)
        drawn = random.Random(5)
        batches = 0

        async def batch() -> None:
            """Some overtake those that were shown, some fall in behind them, some are new."""
            nonlocal batches
            new = [SessionRef("demo", f"new-{batches}-{at}") for at in range(AT_ONCE // 10)]
            movers = dict.fromkeys([*drawn.sample(there, AT_ONCE), *new])
            tokens = {"span_count": 1, "prompt_tokens": drawn.randrange(10**6)}
            puts = [
                SessionPut(who, [trace_put(10**6 + batches * AT_ONCE * 2 + at, counts=tokens)])
                for at, who in enumerate(movers)
            ]
            await stores.sessions.put(puts)
            await stores.index.write(list(movers), now_ms=T0_MS + batches)
            batches += 1

        async def traffic() -> None:
            while True:
                await batch()

        seen, cursor, pages = list[SessionRef](), None, 0
        moving = asyncio.create_task(traffic())
        try:
            async with Client(server.url) as client:
                while pages == 0 or cursor is not None:
                    page = await client.list(query, cursor=cursor, limit=500)
                    seen += [session.ref for session in page.sessions]
                    cursor, pages = page.next, pages + 1
                    assert not moving.done(), moving.exception()
        finally:
            moving.cancel()
            await asyncio.gather(moving, return_exceptions=True)
            await connections.close()
    print(f"{len(seen)} sessions on {pages} pages while {batches * AT_ONCE} moved")
    assert batches > 20
    assert len(seen) == len(set(seen))
    assert sorted(one for one in seen if not one.session_id.startswith("new-")) == sorted(there)
