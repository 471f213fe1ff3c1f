"""Where partitions start, and how lost state is noticed (DESIGN section 9)."""

from __future__ import annotations

import pytest

from aggregator.progress import Start, decide_start
from aggregator.telemetry import StartReason


@pytest.mark.parametrize(
    ("applied", "committed", "rewind", "expected"),
    [
        (None, None, True, Start(10, StartReason.FIRST)),
        (50, 50, True, Start(50, StartReason.COMMITTED)),
        (60, 50, True, Start(50, StartReason.COMMITTED, again=10)),  # a crash between the two: read again, counted once
        (40, 50, True, Start(40, StartReason.REDIS_BEHIND, again=10)),  # Redis lost writes
        (40, 50, False, Start(40, StartReason.REDIS_BEHIND, again=10)),
        (40, None, True, Start(10, StartReason.NOT_COMMITTED, again=30)),
        (40, None, False, Start(10, StartReason.NOT_COMMITTED, again=30)),
        (10, None, True, Start(10, StartReason.FIRST)),  # nothing was applied yet
        (None, 50, True, Start(10, StartReason.STATE_LOST, again=40)),
        (None, 50, False, Start(50, StartReason.STATE_LOST)),
        (5, 50, True, Start(10, StartReason.LOG_CUT, lost=5, again=40)),  # retention took what was to be read again
        (150, 150, True, Start(10, StartReason.LOG_CUT)),  # the topic was made anew
        (100, 100, True, Start(100, StartReason.COMMITTED)),  # at the very end
        (10, 10, True, Start(10, StartReason.COMMITTED)),
    ],
)
def test_the_earlier_of_redis_and_kafka_decides(
    applied: int | None, committed: int | None, rewind: bool, expected: Start
) -> None:
    start = decide_start(applied=applied, committed=committed, beginning=10, end=100, rewind_on_loss=rewind)
    assert start == expected
