"""Path tests run many short lives of workers: only what goes wrong beyond the planned faults is worth a line."""

from __future__ import annotations

import pytest

from aggregator.telemetry import configure_logging


@pytest.fixture(scope="module", autouse=True)
def quiet_logs() -> None:
    configure_logging("critical")
