"""The life of a session as a table, and its deadline."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.core.lifecycle import CloseReason, Due, Event, Status, after, deadline_ms, due

NOTHING = None
EXPECTED = {
    # status: after put, claim, drop, settle
    NOTHING: (Status.OPEN, NOTHING, NOTHING, NOTHING),
    Status.OPEN: (Status.OPEN, Status.CLOSING, NOTHING, Status.OPEN),
    Status.CLOSING: (Status.OPEN, Status.CLOSING, Status.CLOSING, Status.CLOSED),
    Status.CLOSED: (Status.OPEN, Status.CLOSED, Status.CLOSED, Status.CLOSED),
}


@pytest.mark.parametrize("status", EXPECTED)
@pytest.mark.parametrize("event", Event)
def test_every_status_meets_every_event(status: Status | None, event: Event) -> None:
    assert after(status, event) == EXPECTED[status][list(Event).index(event)]


@pytest.mark.parametrize(
    ("watermark_ms", "last_ms", "entered_ms", "expected"),
    [
        (29, 20, 0, Due(None, 30)),
        (30, 20, 0, Due(CloseReason.IDLE, 30)),
        (99, 95, 0, Due(None, 100)),
        (100, 95, 0, Due(CloseReason.MAX_DURATION, 100)),
        (104, 95, 0, Due(CloseReason.MAX_DURATION, 100)),
        (105, 95, 0, Due(CloseReason.IDLE, 100)),
    ],
)
def test_when_and_why_a_session_is_due(watermark_ms: int, last_ms: int, entered_ms: int, expected: Due) -> None:
    assert due(watermark_ms, last_ms, entered_ms, idle_timeout_ms=10, max_duration_ms=100) == expected


@given(watermark=st.integers(0, 10**13), last=st.integers(0, 10**13), entered=st.integers(0, 10**13))
def test_due_and_deadline_agree(watermark: int, last: int, entered: int) -> None:
    found = due(watermark, last, entered, idle_timeout_ms=1_800_000, max_duration_ms=86_400_000)
    assert found.deadline_ms == deadline_ms(last, entered, 1_800_000, 86_400_000)
    assert (found.reason is not None) == (watermark >= found.deadline_ms)
