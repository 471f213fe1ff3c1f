"""A hundred thousand sessions on one Redis."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import pytest

from aggregator.adapters.redis.connections import connect
from aggregator.adapters.redis.keys import Keys
from tests.client.conftest import allow_reader
from tests.client.sessions import fill, puts
from tests.contract.builders import T0_MS
from tests.contract.conftest import redis_stores
from tests.indexes import Hashes, session_hashes
from tests.redis_servers import RedisServer, redis_servers_available

T = TypeVar("T")

MANY: Final = 100_000
KEYS: Final = Keys()


@dataclass(frozen=True, kw_only=True)
class Many:
    """Where they are, for a user who may only read, and what their hashes say."""

    url: str
    plain: Any
    hashes: Hashes


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this folder are heavy."""
    for item in items:
        if "tests/heavy/" in item.path.as_posix():
            item.add_marker(pytest.mark.heavy)


def in_a_thread(work: Coroutine[object, object, T]) -> T:
    """Playwright keeps a loop running in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


@contextmanager
def server_of_many() -> Iterator[RedisServer]:
    """A server of its own that holds them, of three projects, `demo` with nine in ten."""
    server = RedisServer(next(iter(redis_servers_available().values())))

    async def make() -> None:
        connections = connect(server.url, socket_timeout_s=60)
        projects = ["demo"] * 18 + ["shop/eu {1}", "größe"]
        with server.client() as plain:
            stores = redis_stores(connections, plain, KEYS)
            await fill(stores, list(puts(MANY, projects=projects)), now_ms=T0_MS, closed_share=0.9)
        await connections.close()

    try:
        in_a_thread(make())
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def many() -> Iterator[Many]:
    """What no test changes."""
    with server_of_many() as server, server.client() as plain:
        made = Many(url=allow_reader(server), plain=plain, hashes=session_hashes(plain))
        gc.freeze()  # else each collection would walk over what a server does not hold
        yield made
