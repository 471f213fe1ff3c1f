"""What the client answers with.

Times are in UTC; in JSON they are RFC 3339 of fixed width, and costs are decimal text, as in summaries.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema

from aggregator.core.model import SessionRef
from aggregator.core.naming import encode_ref

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NANO: Final = Decimal(10) ** -9


def time_text(time: datetime) -> str:
    """RFC 3339 in UTC with microseconds, of fixed width."""
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


Time = Annotated[
    datetime,
    PlainSerializer(time_text, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Usd = Annotated[
    Decimal,
    PlainSerializer(lambda value: f"{value:.9f}", return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]+\.[0-9]{9}$", "description": "US dollars"}),
]
Count = Annotated[int, Field(ge=0)]
Milliseconds = Annotated[float, Field(description="Milliseconds with a resolution of one microsecond")]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class Tokens(_Answer):
    """Prompt includes cached tokens, completion includes reasoning; embeddings are in no total."""

    prompt: Count = 0
    completion: Count = 0
    total: Count = 0
    cache_read: Count = 0
    cache_write: Count = 0
    reasoning: Count = 0
    embedding: Count = 0


class Session(_Answer):
    """The live figures of one session; what is not known is null."""

    project: str
    session_id: str
    status: Literal["open", "closing", "closed"]
    revision: Count
    opened_at: Time
    started_at: Time | None
    ended_at: Time | None
    duration_ms: Milliseconds | None
    last_activity_at: Time
    user_id: str | None
    trace_count: Count
    span_count: Count
    llm_span_count: Count
    error_count: Count
    error_trace_count: Count
    tokens: Tokens
    cost_usd: Usd
    cost_source: Literal["reported", "priced", "mixed", "none"]
    unpriced_calls: Count
    truncated: bool

    @property
    def ref(self) -> SessionRef:
        """Project and id."""
        return SessionRef(self.project, self.session_id)

    @property
    def name(self) -> str:
        """`<project>/<session_id>`, percent-encoded as in keys of Redis and Kafka."""
        return encode_ref(self.ref)

    @classmethod
    def from_hash(cls, ref: SessionRef, fields: Mapping[str, str]) -> Session:
        """From the documented fields of a session hash; raises ValueError or KeyError where they are not readable."""
        return cls(**_figures(ref, fields))


class Trace(_Answer):
    """The figures of one trace of a session."""

    trace_id: str
    name: str
    started_at: Time | None
    ended_at: Time | None
    duration_ms: Milliseconds | None
    span_count: Count
    error_count: Count
    tokens: Tokens
    cost_usd: Usd


class ModelTotals(_Answer):
    """What one model did in a session."""

    calls: Count = 0
    prompt: Count = 0
    completion: Count = 0
    embedding: Count = 0
    cost_usd: Usd = Decimal(0)


class SessionDetail(Session):
    """A session with its traces by start and trace id, and its models by name."""

    traces: list[Trace]
    models: dict[str, ModelTotals]

    @classmethod
    def of(
        cls, ref: SessionRef, fields: Mapping[str, str], traces: Sequence[bytes], models: Mapping[str, str]
    ) -> SessionDetail:
        """From the three hashes of a session."""
        return cls(**_figures(ref, fields), traces=_traces(traces), models=_models(models))


class Page(_Answer):
    """Some sessions in the order that was asked for.

    `next` gives the page behind this one; a page may be short, or even empty, while there is a next one: not more than
    a bounded number of sessions is looked at for each.  `matching` is how many there are in all, null where telling
    that would take reading them all.
    """

    sessions: list[Session]
    next: str | None
    matching: int | None


class Changes(_Answer):
    """Sessions that have changed, and where to go on from."""

    sessions: list[Session]
    position: int


class Percentiles(_Answer):
    """Of durations in milliseconds, by nearest rank."""

    p50: float
    p90: float
    p95: float
    p99: float
    max: float


class Medians(_Answer):
    """Of sessions, each figure by itself, by nearest rank."""

    duration_ms: Milliseconds
    traces: Count
    tokens: Count
    cost_usd: Usd
    errors: Count


class Bucket(_Answer):
    """Sessions that last from `from_ms` until less than `to_ms` (null: any longer)."""

    from_ms: float
    to_ms: float | None
    sessions: Count


class TimeBucket(_Answer):
    """What the sessions come to that ended from `start` on for one step."""

    start: Time
    sessions: Count
    tokens: Count
    cost_usd: Usd


class Totals(_Answer):
    """What the sessions of a project come to: those that are open, and closed ones that are still retained."""

    project: str
    since: Time | None
    until: Time | None
    as_of: Time
    sessions: Count
    traces: Count
    tokens: Count
    cost_usd: Usd
    error_count: Count
    sessions_with_errors: Count
    error_rate: Annotated[float, Field(description="Share of the sessions that have an error")]
    duration: Percentiles | None
    median: Medians | None
    durations: list[Bucket]
    step_s: Count
    over_time: list[TimeBucket]


def from_ms(ms: float) -> datetime:
    """The time of milliseconds since the epoch."""
    return _EPOCH + timedelta(milliseconds=ms)


def to_ms(time: datetime) -> int:
    """Milliseconds since the epoch, rounded down; a time without a zone is taken as UTC."""
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(milliseconds=1)


def _figures(ref: SessionRef, fields: Mapping[str, str]) -> dict[str, Any]:
    def count(name: str) -> int:
        return int(fields[name])

    return {
        "project": ref.project,
        "session_id": ref.session_id,
        "status": fields["status"],
        "revision": count("revision"),
        "opened_at": fields["opened_at"],
        "started_at": fields.get("started_at"),
        "ended_at": fields.get("ended_at"),
        "duration_ms": float(fields["duration_ms"]) if "duration_ms" in fields else None,
        "last_activity_at": from_ms(count("last_activity_ms")),
        "user_id": fields.get("user_id"),
        "trace_count": count("trace_count"),
        "span_count": count("span_count"),
        "llm_span_count": count("llm_span_count"),
        "error_count": count("error_count"),
        "error_trace_count": count("error_trace_count"),
        "tokens": Tokens(
            prompt=count("prompt_tokens"),
            completion=count("completion_tokens"),
            total=count("total_tokens"),
            cache_read=count("cache_read_tokens"),
            cache_write=count("cache_write_tokens"),
            reasoning=count("reasoning_tokens"),
            embedding=count("embedding_tokens"),
        ),
        "cost_usd": Decimal(fields["cost_usd"]),
        "cost_source": fields["cost_source"],
        "unpriced_calls": count("unpriced_calls"),
        "truncated": fields["truncated"] == "1",
    }


def _traces(texts: Sequence[bytes]) -> list[Trace]:
    entries = [json.loads(text) for text in texts]
    shown = [Trace(**entry) for entry in entries if "trace_id" in entry]  # else it has moved to another session
    return sorted(shown, key=lambda trace: (trace.started_at is None, trace.started_at or _EPOCH, trace.trace_id))


def _models(fields: Mapping[str, str]) -> dict[str, ModelTotals]:
    figures: dict[str, dict[str, Any]] = {}
    for field, value in fields.items():
        name, _, figure = field.rpartition(":")
        if figure == "cost_nano_usd":
            figures.setdefault(name, {})["cost_usd"] = Decimal(value) * _NANO
        elif figure.removesuffix("_tokens") in ModelTotals.model_fields:
            figures.setdefault(name, {})[figure.removesuffix("_tokens")] = int(value)
    return {name: ModelTotals(**figures[name]) for name in sorted(figures)}
