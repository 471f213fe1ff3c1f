"""One toxiproxy, one broker, three brokers and one Cluster for all faults of a run, each started when asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.faults.brokers import Kafka, kafka
from tests.faults.clusters import Clustered, clustered
from tests.faults.toxiproxy import Toxiproxy


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def proxies(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Toxiproxy]:
    """The running toxiproxy."""
    async with Toxiproxy(tmp_path_factory.mktemp("toxiproxy")) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def one_broker(proxies: Toxiproxy, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Kafka]:
    """A cluster of one broker."""
    async with kafka(proxies, tmp_path_factory.mktemp("kafka")) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def three_brokers(proxies: Toxiproxy, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Kafka]:
    """A cluster of three brokers."""
    async with kafka(proxies, tmp_path_factory.mktemp("kafka"), nodes=3) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def cluster(proxies: Toxiproxy) -> AsyncIterator[Clustered]:
    """A Redis Cluster; whoever takes it empties it."""
    async with clustered(proxies) as running:
        yield running
