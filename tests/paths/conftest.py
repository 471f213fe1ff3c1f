"""Path tests run many short lives of workers: only what goes wrong beyond the planned faults is worth a line."""

from __future__ import annotations

import pytest

from aggregator import ingest
from aggregator.telemetry import configure_logging


@pytest.fixture(scope="module", autouse=True)
def quiet_logs() -> None:
    configure_logging("critical")


@pytest.fixture(autouse=True)
def no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are handed over in real time: on a busy machine two lives that are to be compared would differ."""
    monkeypatch.setattr(ingest, "_HAND_OVER_S", 3600.0)
