"""Log time and watermarks (DESIGN section 5)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aggregator.core.logtime import PartitionClock

TIMES = st.integers(0, 1000)


def test_log_time_is_the_records_timestamp() -> None:
    clock = PartitionClock(allowed_skew_ms=10)
    assert [clock.log_time_ms(100, 1000), clock.log_time_ms(200, 1000)] == [100, 200]


def test_log_time_is_never_earlier_than_an_earlier_records() -> None:
    clock = PartitionClock(allowed_skew_ms=10)
    assert [clock.log_time_ms(200, 1000), clock.log_time_ms(100, 1000)] == [200, 200]


def test_log_time_is_never_later_than_now() -> None:
    assert PartitionClock(allowed_skew_ms=10).log_time_ms(10**15, 1000) == 1000


def test_a_record_without_timestamp_gets_now() -> None:
    assert PartitionClock(allowed_skew_ms=10).log_time_ms(-1, 1000) == 1000


def test_log_time_is_never_earlier_than_an_announced_watermark() -> None:
    clock = PartitionClock(allowed_skew_ms=10, announced_ms=500)
    assert clock.log_time_ms(100, 1000) == 500
    clock.applied(0, caught_up_ms=900)
    assert clock.watermark_ms == 890
    assert clock.log_time_ms(100, 1000) == 890


def test_what_is_in_redis_wins_over_a_slow_clock() -> None:
    assert PartitionClock(allowed_skew_ms=10, announced_ms=500).log_time_ms(400, 300) == 500


def test_the_watermark_is_what_was_applied_less_the_skew() -> None:
    clock = PartitionClock(allowed_skew_ms=10)
    assert clock.watermark_ms == 0
    assert clock.applied(100) == 90
    assert clock.applied(0) == 90


def test_only_a_fetch_answer_that_showed_the_end_moves_time_beyond_the_records() -> None:
    clock = PartitionClock(allowed_skew_ms=10)
    assert clock.applied(100) == 90
    assert clock.applied(100, caught_up_ms=700) == 690


def test_nothing_applied_announces_nothing() -> None:
    assert PartitionClock(allowed_skew_ms=10).applied(0) == 0
    assert PartitionClock(allowed_skew_ms=10).applied(5) == 0


@given(st.lists(st.tuples(TIMES, TIMES, st.booleans(), st.integers(0, 1))), TIMES)
def test_neither_log_time_nor_watermark_ever_falls(steps: list[tuple[int, int, bool, int]], announced_ms: int) -> None:
    clock = PartitionClock(allowed_skew_ms=10, announced_ms=announced_ms)
    last, watermark = announced_ms, announced_ms
    for timestamp_ms, now_ms, apply, at_end in steps:
        log_ms = clock.log_time_ms(timestamp_ms, now_ms)
        assert log_ms >= max(last, watermark)
        last = log_ms
        if apply:
            reached = clock.applied(log_ms, caught_up_ms=now_ms * at_end)
            assert reached >= watermark
            watermark = reached
