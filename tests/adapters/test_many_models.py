"""A producer that makes up a model's name for each call: a session names a hundred, and its sums stay right."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from aggregator.adapters.redis.connections import connect
from aggregator.adapters.redis.keys import Keys
from aggregator.core.model import ModelUsage, TraceRollup
from aggregator.core.put import MOST_MODELS, OTHER_MODELS
from aggregator.core.summary import summary
from aggregator.ports import SessionPut
from tests.contract import builders
from tests.contract.conftest import IDLE_MS, Stores, redis_stores
from tests.puts import plain_put
from tests.redis_servers import RedisServer, redis_servers_available

REF = builders.ref("s")
one_server = pytest.mark.parametrize("redis_server", sorted(redis_servers_available())[:1], indirect=True)


@pytest.fixture
async def stores(redis_server: RedisServer) -> AsyncIterator[Stores]:
    connections = connect(redis_server.url)
    client: Any = redis_server.client()
    try:
        made = redis_stores(connections, client, Keys(closing_shards=8))
        yield made
        made.assert_lives_or_expires()
    finally:
        client.close()
        await connections.close()


async def put(stores: Stores, number: int, version: int, models: dict[str, list[int]]) -> None:
    trace = builders.trace_put(number, version, first=version == 1, models=models)
    await stores.sessions.put([SessionPut(REF, [trace])])


def names_of(stores: Stores) -> set[str]:
    return {field.rpartition(":")[0] for field in stores.model_fields(REF)}


@one_server
@pytest.mark.parametrize("seed", range(4))
async def test_whatever_comes_and_goes_nothing_is_lost_between_the_names(stores: Stores, seed: int) -> None:
    """Traces of some models each that are changed, emptied and filled again, over twice as many names as fit."""
    chance = random.Random(seed)
    shown: dict[int, dict[str, list[int]]] = {}
    for version in range(1, 160):
        number = chance.randrange(16)
        many = chance.choice([0, 1, 12, 30])
        shown[number] = {
            f"m-{chance.randrange(2 * MOST_MODELS)}": [chance.randrange(1, 9) for _ in range(4)]
            + [chance.randrange(3), chance.randrange(10**9), 1, 0]
            for _ in range(many)
        }
        await put(stores, number, version, shown[number])
        fields = stores.model_fields(REF)
        assert len(names_of(stores) - {OTHER_MODELS}) <= MOST_MODELS
        assert all(value >= 0 for value in fields.values())
        for position, figure in enumerate(("calls", "prompt_tokens", "completion_tokens", "embedding_tokens")):
            found = sum(value for field, value in fields.items() if field.endswith(f":{figure}"))
            assert found == sum(one[position] for models in shown.values() for one in models.values())
        nano = sum(value for field, value in fields.items() if field.endswith(":cost_nano_usd"))
        assert nano == sum(one[4] * 10**9 + one[5] for models in shown.values() for one in models.values())
        assert (stores.session_hash(REF)["truncated"] == "1") == (OTHER_MODELS in names_of(stores))
    for number in shown:
        await put(stores, number, 1000, {})
    assert not stores.model_fields(REF)


@one_server
@pytest.mark.parametrize("at_once", [1, 7, 250])
async def test_a_session_names_so_many_and_says_that_there_are_more(stores: Stores, at_once: int) -> None:
    total = 250
    for start in range(0, total, at_once):
        await put(
            stores, start, 1, {f"m-{n:03d}": [1, 10, 1, 0, 0, 5] for n in range(start, min(start + at_once, total))}
        )
    assert len(names_of(stores)) <= MOST_MODELS + 1
    (claim,) = await stores.sessions.claim([REF], watermark_ms=builders.T0_MS + IDLE_MS)
    assert claim.rollup is not None
    said = json.loads(summary(claim.rollup))
    assert said["truncated"]
    assert sum(model["calls"] for model in said["models"].values()) == total
    assert said["models"][OTHER_MODELS]["calls"] >= total - MOST_MODELS


def test_a_trace_names_so_many_and_says_that_there_are_more() -> None:
    models = {f"m-{n:03d}": ModelUsage() for n in reversed(range(150))}
    for usage in models.values():
        usage.calls, usage.cost_nano = 1, 900_000_000
    rollup = TraceRollup()
    rollup.models = models
    made = plain_put(rollup)
    private = json.loads(made.entry)["_"]
    (named,) = [part for part in private if isinstance(part, dict)]
    assert sorted(named) == sorted([*(f"m-{n:03d}" for n in range(MOST_MODELS)), OTHER_MODELS])
    assert named[OTHER_MODELS][:6] == [50, 0, 0, 0, 45, 0]
