"""`sessions erase` as an operator runs it, on a real Redis and a real broker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer

from aggregator.adapters.kafka.sink import KafkaSummarySink
from aggregator.adapters.redis.connections import connect
from aggregator.adapters.redis.index import LOOK_EVERY_MS
from aggregator.adapters.redis.keys import Keys
from aggregator.core.errors import BrokerUnavailable
from aggregator.core.model import SessionRef
from aggregator.ports import SessionPut
from aggregator.sessions import erase as erasing
from tests.access.kafka_with_acls import PASSWORD
from tests.client.conftest import allow_reader
from tests.client.sessions import whole_put
from tests.contract.builders import T0_MS, T0_US
from tests.contract.conftest import redis_stores
from tests.kafka_servers import Broker
from tests.paths.test_erasing import HOLD_MS, assert_erased
from tests.redis_servers import redis_servers_available
from tests.sessions.hostile import ESCAPES
from tests.sessions.test_commands import STEERING, Shop, invoked
from tests.test_cli import command

KEYS = Keys()
HOLD = ("--hold", str(HOLD_MS // 1000))

pytestmark = pytest.mark.parametrize("redis_server", sorted(redis_servers_available())[:1], indirect=True)


@pytest.fixture
async def shop(redis_server: object, running_servers: object) -> AsyncIterator[Shop]:
    url: str = redis_server.url  # type: ignore[attr-defined]
    connections = connect(url)
    with redis_server.client() as plain:  # type: ignore[attr-defined]
        yield Shop(stores=redis_stores(connections, plain, KEYS), environ={"AGGREGATOR_REDIS__URL": url}, plain=plain)
    await connections.close()


async def read(broker: Broker, topic: str, count: int) -> list[Any]:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=broker.bootstrap_servers, auto_offset_reset="earliest")
    await consumer.start()
    try:
        async with asyncio.timeout(20):
            return [await consumer.getone() for _ in range(count)]
    finally:
        await consumer.stop()


async def put(shop: Shop, session_id: str, *users: str, project: str = "demo", number: int = 1) -> SessionRef:
    """A session with one trace; the users in the order of their first use."""
    ref = SessionRef(project, session_id)
    uses = [(T0_US + at, f"{at:016x}", user) for at, user in enumerate(users)]
    await shop.stores.sessions.put([SessionPut(ref, [whole_put(number, users=uses)])])
    await shop.stores.index.write([ref], now_ms=T0_MS)
    await shop.stores.schedule.add([(ref, T0_MS)])
    return ref


async def test_it_logs_in_as_the_settings_say(shop: Shop) -> None:
    ref = await put(shop, "a", "ada")
    shop.plain.config_set("requirepass", PASSWORD)
    try:
        shop.environ["AGGREGATOR_REDIS__PASSWORD"] = PASSWORD
        assert (await shop("erase", "a", "--yes", "--no-tombstone", *HOLD))[0] == 0
    finally:
        shop.plain.config_set("requirepass", "")
    assert_erased(shop.plain, ref, KEYS)


async def test_a_session_goes_from_redis_and_its_summaries_are_taken_back(
    shop: Shop, kafka_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "PUBLISHED_WITHIN_S", 0.1)
    topic = await kafka_broker.create_topic()
    ref, other = await put(shop, "s 1", "ada"), await put(shop, "s-2", "ada", number=2)
    kafka = {
        "AGGREGATOR_KAFKA__BOOTSTRAP_SERVERS": kafka_broker.bootstrap_servers,
        "AGGREGATOR_KAFKA__SUMMARY_TOPIC": topic,
    }
    environ = shop.environ | kafka
    code, out, err = await asyncio.to_thread(invoked, ["sessions", "erase", "s 1", "--yes", *HOLD], environ)
    assert code == 0, err
    assert out.startswith("demo/s 1: erased, with 1 trace\nLate spans are refused for 1 h 00 m.\n")
    assert f"{topic} says so" in out
    assert "otlp_spans and otlp_spans_dead_letter" in out
    assert_erased(shop.plain, ref, KEYS)
    assert shop.plain.exists(KEYS.session(other).session)
    assert shop.plain.zrange(KEYS.user("demo", "ada"), 0, -1) == [b"s-2"]
    again = await asyncio.to_thread(
        invoked, ["sessions", "erase", "s 1", "-p", "demo", "--yes", "--json", *HOLD], environ
    )
    assert "waiting until it has" in again[2]  # the first call may have been cut off while it waited
    assert json.loads(again[1]) == {
        "sessions": [{"project": "demo", "session_id": "s 1", "found": False, "traces": 0}],
        "hold_s": 3600.0,
        "summaries_taken_back": True,
    }
    records = await read(kafka_broker, topic, 2)
    assert [(record.key, record.value) for record in records] == [(b"demo/s%201", None)] * 2


async def test_all_sessions_that_name_a_user_go(shop: Shop) -> None:
    """Also where another one came first, and in each project, or in one."""
    first, second = await put(shop, "a", "ada"), await put(shop, "b", "bob", "ada", number=2)
    elsewhere, other = await put(shop, "c", "ada", project="p/2", number=3), await put(shop, "d", "bob", number=4)
    code, out, _ = await shop("erase", "--user", "ada", "--dry-run", "--json")
    assert code == 0
    assert [(one["project"], one["session_id"]) for one in json.loads(out)["would_erase"]] == [first, second, elsewhere]
    assert shop.plain.exists(KEYS.session(first).session)
    code, out, _ = await shop("erase", "--user", "ada", "-p", "demo", "--yes", "--no-tombstone", *HOLD)
    assert code == 0
    assert out.startswith("demo/a: erased, with 1 trace\ndemo/b: erased, with 1 trace\n")
    for ref in (first, second):
        assert_erased(shop.plain, ref, KEYS)
    assert not shop.plain.exists(KEYS.user("demo", "ada"))
    assert [bool(shop.plain.exists(KEYS.session(ref).session)) for ref in (elsewhere, other)] == [True, True]
    assert (await shop("erase", "--user", "nobody", "--yes"))[0] == 1


async def test_a_former_user_s_set_forgets_the_session_too(shop: Shop) -> None:
    ref = await put(shop, "a", "bob")
    earlier = [(T0_US - 1, "ab" * 8, "ada")]
    await shop.stores.sessions.put([SessionPut(ref, [whole_put(2, users=earlier)])])
    await shop.stores.index.write([ref], now_ms=T0_MS)
    assert shop.plain.exists(KEYS.user("demo", "ada"), KEYS.user("demo", "bob")) == 2
    assert (await shop("erase", "a", "--yes", "--no-tombstone", *HOLD))[0] == 0
    assert_erased(shop.plain, ref, KEYS)


async def test_an_index_written_by_a_slower_worker_is_mended_at_its_next_look(shop: Shop) -> None:
    """It had read the session before."""
    ref = await put(shop, "a", "ada")
    read = await shop.stores.index._read([ref])  # type: ignore[attr-defined]
    assert (await shop("erase", "a", "--yes", "--no-tombstone", *HOLD))[0] == 0
    asked, shop.stores.index._read = shop.stores.index._read, lambda _: asyncio.sleep(0, read)  # type: ignore[attr-defined]
    await shop.stores.index.write([ref], now_ms=T0_MS)
    shop.stores.index._read = asked  # type: ignore[attr-defined]
    assert shop.plain.exists(KEYS.user("demo", "ada"))
    shards, now_ms = range(KEYS.closing_shards), T0_MS + LOOK_EVERY_MS
    await shop.stores.index.look(await shop.stores.index.due(shards, now_ms=now_ms, limit=100), now_ms=now_ms)
    assert_erased(shop.plain, ref, KEYS)


async def test_it_asks_first_and_says_what_it_can_t_do(shop: Shop) -> None:
    ref = await put(shop, ESCAPES, "ada")
    code, out, err = await shop("erase", "--", ESCAPES)
    assert code == 1
    assert "Erase 1 session for good" in err
    assert not STEERING.search(out + err)
    assert shop.plain.exists(KEYS.session(ref).session)
    await put(shop, ESCAPES, "ada", project="other")
    code, _, err = await shop("erase", "--yes", "--", ESCAPES)
    assert code == 1
    assert "--project: demo, other" in err
    code, _, err = await shop("erase", "nothing", "--yes")
    assert code == 1
    assert "--project" in err
    assert (await shop("erase", "--yes"))[0] == (await shop("erase", "x", "--user", "y"))[0] == 2


async def test_who_may_only_read_erases_nothing(shop: Shop, redis_server: object) -> None:
    ref = await put(shop, "a", "ada")
    url = allow_reader(redis_server)  # type: ignore[arg-type]
    code, out, err = await command("sessions", "erase", "a", "--yes", "--no-tombstone", AGGREGATOR_REDIS__URL=url)
    assert (code, out) == (2, "")
    assert "permission" in err.lower()
    assert "Traceback" not in err
    assert shop.plain.exists(KEYS.session(ref).session)


async def test_where_kafka_is_away_nothing_is_begun(shop: Shop) -> None:
    ref = await put(shop, "a", "ada")
    code, _, err = await command(
        *("sessions", "erase", "--user", "ada", "--yes"),
        **shop.environ,
        AGGREGATOR_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1",
    )
    assert code == 1
    assert "127.0.0.1:1" in err
    assert shop.plain.exists(KEYS.session(ref).session)


async def test_where_kafka_fails_after_redis_it_says_how_to_go_on(
    shop: Shop, kafka_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = await put(shop, "a b", "ada")

    async def fails(*_: object) -> None:
        raise BrokerUnavailable("away")

    monkeypatch.setattr(KafkaSummarySink, "erase", fails)
    environ = shop.environ | {"AGGREGATOR_KAFKA__BOOTSTRAP_SERVERS": kafka_broker.bootstrap_servers}
    code, _, err = await asyncio.to_thread(invoked, ["sessions", "erase", "a b", "--yes", *HOLD], environ)
    assert code == 1
    assert "sessions erase --yes --hold 3600 --project demo -- 'a b'" in err
    assert_erased(shop.plain, ref, KEYS)


async def test_a_summary_that_is_under_way_comes_before_what_takes_it_back(
    shop: Shop, kafka_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = await kafka_broker.create_topic()
    ref = await put(shop, "a", "ada")
    (claim,) = await shop.stores.sessions.claim([ref], watermark_ms=2**50)
    assert claim.rollup is not None
    monkeypatch.setattr(erasing, "PUBLISHED_WITHIN_S", 5.0)
    kafka = {
        "AGGREGATOR_KAFKA__BOOTSTRAP_SERVERS": kafka_broker.bootstrap_servers,
        "AGGREGATOR_KAFKA__SUMMARY_TOPIC": topic,
    }
    arguments = ["sessions", "erase", "a", "--yes", *HOLD]
    async with kafka_broker.producer() as producer:
        running = asyncio.create_task(asyncio.to_thread(invoked, arguments, shop.environ | kafka))
        while shop.plain.exists(KEYS.session(ref).session):  # noqa: ASYNC110 - Redis tells nobody
            await asyncio.sleep(0.01)
        await producer.send_and_wait(topic, b"{}", key=b"demo/a")
    assert await shop.stores.sessions.settle([(ref, claim.rollup.revision)]) == [False]
    assert (await running)[0] == 0
    records = await read(kafka_broker, topic, 2)
    assert [record.value for record in records] == [b"{}", None]
