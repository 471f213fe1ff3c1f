"""Transient trouble is waited out and shown; everything else passes through at once."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from aggregator.core.errors import BrokerUnavailable, ConfigurationError, StoreUnavailable
from aggregator.retry import Retrying
from aggregator.telemetry import Metrics
from tests.fake_log import ManualClock


class Flaky:
    """Fails with each of these in turn, then answers; notes what trouble was shown at each try."""

    def __init__(self, retrying: Retrying, *errors: Exception) -> None:
        self.retrying = retrying
        self.errors = list(errors)
        self.troubles: list[list[str]] = []

    async def __call__(self) -> str:
        self.troubles.append(self.retrying.trouble())
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def retrying(registry: CollectorRegistry) -> Retrying:
    clock = ManualClock(0)
    return Retrying(clock=clock, metrics=Metrics(registry, monotonic_s=clock.monotonic_s))


def retries(registry: CollectorRegistry) -> float | None:
    return registry.get_sample_value("aggregator_redis_retries_total")


async def test_trouble_is_waited_out_and_shown_meanwhile(retrying: Retrying, registry: CollectorRegistry) -> None:
    call = Flaky(retrying, StoreUnavailable("away"), StoreUnavailable("away"), StoreUnavailable("loading"))
    assert await retrying("store", lambda: call()) == "answer"  # as the paths do: no coroutine function
    assert call.troubles == [[], ["store: away"], ["store: away"], ["store: loading"]]
    assert retrying.trouble() == []
    assert retries(registry) == 3


async def test_three_tries_in_a_row_lie_within_two_seconds_however_long_the_trouble_was(
    retrying: Retrying, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two after the server's return may fail as well: the connection was made anew, and another is the master now."""
    waits_s: list[float] = []

    async def sleep_s(seconds: float) -> None:
        waits_s.append(seconds)

    monkeypatch.setattr(retrying._clock, "sleep_s", sleep_s)
    await retrying("store", Flaky(retrying, *[StoreUnavailable("away")] * 30))
    assert len(waits_s) == 30
    assert waits_s[0] < 0.1 < 0.5 < waits_s[-1]
    assert max(map(sum, zip(waits_s, waits_s[1:], waits_s[2:], strict=False))) < 2


async def test_a_broker_in_trouble_is_no_redis_retry(retrying: Retrying, registry: CollectorRegistry) -> None:
    assert await retrying("publish", Flaky(retrying, BrokerUnavailable("away"))) == "answer"
    assert retries(registry) == 0


async def test_what_no_repeating_mends_passes_through(retrying: Retrying) -> None:
    with pytest.raises(ConfigurationError):
        await retrying("store", Flaky(retrying, ConfigurationError("wrong")))
    with pytest.raises(ConfigurationError):
        await retrying("store", Flaky(retrying, StoreUnavailable("away"), ConfigurationError("wrong")))
