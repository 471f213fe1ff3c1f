"""Sessions are erased on every kind of Redis, by the command; `tests/sessions/test_erase.py` has the rest."""

from __future__ import annotations

import asyncio

from aggregator.core.model import SessionRef
from aggregator.ports import PutOutcome, SessionPut
from tests.access.redis_with_acls import VIEWER
from tests.client.conftest import Place
from tests.client.sessions import whole_put
from tests.contract.builders import T0_MS, T0_US
from tests.paths.test_erasing import assert_erased
from tests.sessions.test_commands import invoked


async def test_all_sessions_of_a_user_are_erased(place: Place) -> None:
    ref = SessionRef("demo", "a")
    trace = whole_put(1, users=[(T0_US, "ab" * 8, "ada")])
    await place.stores.sessions.put([SessionPut(ref, [trace])])
    await place.stores.index.write([ref], now_ms=T0_MS)
    environ = {
        "AGGREGATOR_REDIS__URL": place.url.replace(f"{VIEWER}:a%252Fb@", ""),
        "AGGREGATOR_REDIS__CLUSTER": str(place.cluster),
        "AGGREGATOR_SESSION__CLOSING_SHARDS": "8",
    }
    arguments = ["sessions", "erase", "--user", "ada", "--yes", "--no-tombstone", "--hold", "3600"]
    code, _, err = await asyncio.to_thread(invoked, arguments, environ)
    assert code == 0, err
    assert_erased(place.plain, ref, place.keys)
    (reply,) = await place.stores.sessions.put([SessionPut(ref, [trace])])
    assert reply is not None
    assert reply.outcomes == [PutOutcome.ERASED]
    assert_erased(place.plain, ref, place.keys)
