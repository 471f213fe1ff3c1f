"""How a worker's clock is set right by the one that all share."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from aggregator.agreed_clock import AgreedClock
from aggregator.telemetry import Metrics
from tests.fake_log import ManualClock

DAY_MS = 86_400_000


class Reference:
    """Answers some time after it was asked; its time is that of some moment in between."""

    def __init__(self, own: ManualClock, skew_ms: int) -> None:
        self.own = own
        self.skew_ms = skew_ms
        self.there_ms = self.back_ms = 0
        self.asked = 0

    async def now_ms(self) -> int:
        self.asked += 1
        self.own.time_ms += self.there_ms
        told_ms = self.own.time_ms - self.skew_ms
        self.own.time_ms += self.back_ms
        return told_ms


def made(skew_ms: int) -> tuple[AgreedClock, ManualClock, Reference, Metrics]:
    own = ManualClock(10 * DAY_MS)
    reference = Reference(own, skew_ms)
    metrics = Metrics(CollectorRegistry(), monotonic_s=own.monotonic_s)
    return AgreedClock(own, reference, metrics), own, reference, metrics


@given(st.integers(-DAY_MS, DAY_MS), st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 5000)), min_size=1))
async def test_it_is_off_by_no_more_than_the_quickest_answer_took(skew_ms: int, ways: list[tuple[int, int]]) -> None:
    clock, own, reference, metrics = made(skew_ms)
    for reference.there_ms, reference.back_ms in ways:
        own.time_ms += 1000
        await clock.agree()
    error_ms = clock.now_ms() - (own.now_ms() - skew_ms)
    assert abs(error_ms) <= min(there_ms + back_ms for there_ms, back_ms in ways)
    assert clock.agreed_ms(own.now_ms()) == clock.now_ms()
    assert clock.agreed_ms(0) == 0
    told_s = metrics.registry.get_sample_value("aggregator_clock_correction_seconds")
    assert told_s == (clock.now_ms() - own.now_ms()) / 1000


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 5000)), min_size=1))
async def test_a_right_clock_is_left_alone(ways: list[tuple[int, int]]) -> None:
    clock, own, reference, _ = made(0)
    for reference.there_ms, reference.back_ms in ways:
        own.time_ms += 1000
        await clock.agree()
        assert clock.now_ms() == own.now_ms()


async def test_a_moment_told_before_the_clock_was_set_back_is_not_yet_to_come() -> None:
    clock, own, reference, _ = made(3_600_000)
    await clock.agree()
    told_ms = own.now_ms()
    own.time_ms -= 3_600_000
    reference.skew_ms = 0
    clock._agree_at_s = None  # a second has passed
    await clock.agree()
    assert clock.now_ms() == own.now_ms()
    assert clock.agreed_ms(told_ms) <= clock.now_ms()


async def test_two_may_ask_at_the_same_time() -> None:
    _, own, reference, metrics = made(DAY_MS)

    class Slow:
        async def now_ms(self) -> int:
            told_ms = await reference.now_ms()
            await asyncio.sleep(0)
            return told_ms

    clock = AgreedClock(own, Slow(), metrics)
    await asyncio.gather(clock.agree(), clock.agree())
    assert reference.asked == 2
    assert clock.now_ms() == own.now_ms() - DAY_MS


async def test_it_asks_once_a_second_and_follows_a_step() -> None:
    clock, own, reference, _ = made(0)
    await clock.agree()
    await clock.agree()
    assert reference.asked == 1
    reference.skew_ms = own_step_ms = 3_600_000
    own.time_ms += 1000
    await clock.agree()
    assert reference.asked == 2
    assert clock.now_ms() == own.now_ms() - own_step_ms
