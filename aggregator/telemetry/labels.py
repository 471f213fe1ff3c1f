"""The values that labels of metrics can have: closed sets, never ids."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar


class RecordOutcome(StrEnum):
    """What became of an input record."""

    APPLIED = "applied"
    PARTIAL = "partial"
    DEAD_LETTERED = "dead_lettered"


class SpanOutcome(StrEnum):
    """What became of a span."""

    MERGED = "merged"
    DUPLICATE = "duplicate"
    DROPPED = "dropped"
    TOO_LATE = "too_late"
    FOLDED = "folded"
    ERASED = "erased"  # of a session that has been erased


class CloseReason(StrEnum):
    """Why a session was closed."""

    IDLE = "idle"
    MAX_DURATION = "max_duration"


class Stage(StrEnum):
    """The steps of the two paths, in their order."""

    DECODE = "decode"
    FOLD = "fold"
    STORE = "store"
    COMMIT = "commit"
    CLAIM = "claim"
    PUBLISH = "publish"
    SETTLE = "settle"
    INDEX = "index"


class CorruptKind(StrEnum):
    """What a value in Redis that can't be read should have been."""

    TRACE = "trace"
    SESSION = "session"
    DUE = "due"
    PROGRESS = "progress"
    WATERMARKS = "watermarks"
    INDEX = "index"


class StartReason(StrEnum):
    """Why a partition is read from where it is."""

    FIRST = "first"  # neither Kafka nor Redis knows the partition
    COMMITTED = "committed"  # the usual: what was committed
    NOT_COMMITTED = "not_committed"  # Redis knows it, Kafka does not: a crash before the first commit, or a new topic
    REDIS_BEHIND = "redis_behind"  # Redis has lost writes that had been committed
    STATE_LOST = "state_lost"  # Redis knows nothing of what was committed
    LOG_CUT = "log_cut"  # the log no longer holds, or never held, what was recorded


class RejectReason(StrEnum):
    """Why a record went to the dead-letter topic; `other` is a reason that this list does not know."""

    NOT_PROTOBUF = "not_protobuf"
    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    WRONG_TYPE = "wrong_type"
    BAD_ID = "bad_id"
    SESSION_ID_TOO_LONG = "session_id_too_long"
    SESSION_ID_CONTROL_CHARACTERS = "session_id_control_characters"
    OTHER = "other"


class IgnoredField(StrEnum):
    """What was passed over: a value of a span that counts, or a whole span or record."""

    START_TIME = "start_time"
    END_TIME = "end_time"
    SESSION_ID = "session_id"
    USER_ID = "user_id"
    USAGE = "usage"
    COST = "cost"
    SPAN = "span"
    RECORD = "record"
    OTHER = "other"


class IgnoredReason(StrEnum):
    """Why it was passed over."""

    NEGATIVE = "negative"
    FRACTIONAL = "fractional"
    NOT_FINITE = "not_finite"
    TOO_LARGE = "too_large"
    INVALID = "invalid"
    MISSING = "missing"
    FUTURE = "future"
    TOO_LONG = "too_long"
    CONTROL_CHARACTERS = "control_characters"
    PLACEHOLDER = "placeholder"  # a span that announces another one
    OWN = "own"  # what a worker traces of itself
    BAD_TRACE_ID = "bad_trace_id"
    BAD_SPAN_ID = "bad_span_id"
    NULL = "null"
    OTHER = "other"


E = TypeVar("E", bound=StrEnum)


def known(kind: type[E], value: str) -> E:
    """The member with that value, else `other`: labels stay a closed set whatever the core comes to say."""
    try:
        return kind(value)
    except ValueError:
        return kind("other")
