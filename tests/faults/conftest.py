"""One broker and one toxiproxy for all faults of a run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.faults.brokers import Kafka, kafka
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


@pytest.fixture
def log_dir(tmp_path: Path) -> Path:
    """Where the workers of a test log to."""
    return tmp_path
