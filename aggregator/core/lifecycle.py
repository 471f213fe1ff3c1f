"""The life of a session: its statuses, what moves it between them, and when it is due.

              put                    claim, due              settle
    (none) ---------> open ------------------------> closing --------> closed ----> (expires)
                       ^ |                             |                 |
                       | `- claim, nothing in it: gone |                 |
                       `-------------- put ------------+-----------------'

`put` stands for a put that changes something; one that brings nothing new moves nothing.  The scripts beside the Redis
adapter follow this table, and the fake stores use it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple


class Status(StrEnum):
    """The `status` field of a session."""

    OPEN = "open"
    CLOSING = "closing"  # claimed under a revision; its summary is on the way
    CLOSED = "closed"  # published and settled; expires unless something arrives


class Event(StrEnum):
    """What happens to a session."""

    PUT = "put"  # a put that changed something
    CLAIM = "claim"  # at a watermark at which it is due
    DROP = "drop"  # a claim that finds no trace and nothing published
    SETTLE = "settle"  # of the revision it is closing under


class CloseReason(StrEnum):
    """Why a session was due."""

    IDLE = "idle"
    MAX_DURATION = "max_duration"


TRANSITIONS: Final[dict[tuple[Status | None, Event], Status | None]] = {
    (None, Event.PUT): Status.OPEN,
    (Status.OPEN, Event.PUT): Status.OPEN,
    (Status.OPEN, Event.CLAIM): Status.CLOSING,
    (Status.OPEN, Event.DROP): None,
    (Status.CLOSING, Event.PUT): Status.OPEN,
    (Status.CLOSING, Event.CLAIM): Status.CLOSING,
    (Status.CLOSING, Event.SETTLE): Status.CLOSED,
    (Status.CLOSED, Event.PUT): Status.OPEN,
    (Status.CLOSED, Event.SETTLE): Status.CLOSED,
}
"""Status and event -> next status; None is a session that has no key.  What is not in the table changes nothing."""


class Due(NamedTuple):
    """Whether a session is due, why (None if it is not), and its deadline either way."""

    reason: CloseReason | None
    deadline_ms: int


def after(status: Status | None, event: Event) -> Status | None:
    """The status after an event."""
    return TRANSITIONS.get((status, event), status)


def deadline_ms(last_activity_ms: int, entered_ms: int, idle_timeout_ms: int, max_duration_ms: int) -> int:
    """When a session falls due if nothing more arrives, in log time.

    `entered_ms` is when it opened or, after a close, reopened.
    """
    return min(last_activity_ms + idle_timeout_ms, entered_ms + max_duration_ms)


def due(
    watermark_ms: int, last_activity_ms: int, entered_ms: int, *, idle_timeout_ms: int, max_duration_ms: int
) -> Due:
    """A session is due once the watermark has reached its deadline; idleness is the reason where both hold.

    The watermark is the time up to which everything has been applied, so equality is enough.
    """
    deadline = deadline_ms(last_activity_ms, entered_ms, idle_timeout_ms, max_duration_ms)
    if watermark_ms < deadline:
        return Due(None, deadline)
    idle = last_activity_ms + idle_timeout_ms <= watermark_ms
    return Due(CloseReason.IDLE if idle else CloseReason.MAX_DURATION, deadline)
