"""The summary of a session as its consumers read it: `Summary.model_validate_json(record.value)`.

This module is public and needs nothing but pydantic.  Times are aware datetimes in UTC, costs are decimals; fields that
a later version adds are passed over.  `model_dump_json()` gives the document as the worker wrote it.

`python -m aggregator.summary` writes the JSON Schema anew.  The service itself writes summaries without these models
(core/summary.py); the tests hold each summary to them.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema

SCHEMA_FILE: Final = Path(__file__).with_name("session-summary-1.schema.json")

Count = Annotated[int, Field(ge=0)]
Cost = Annotated[
    Decimal,
    Field(ge=0),
    PlainSerializer(lambda cost: f"{cost:.9f}", return_type=str, when_used="json"),
    WithJsonSchema(
        {"type": "string", "pattern": r"^[0-9]+\.[0-9]{9}$", "description": "US dollars with nine decimals"}
    ),
]
Time = Annotated[
    datetime,
    PlainSerializer(lambda time: f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}", return_type=str, when_used="json"),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$",
            "description": "RFC 3339 in UTC with microseconds",
            "format": "date-time",
        }
    ),
]
Duration = Annotated[float, Field(description="Milliseconds with a resolution of one microsecond")]
TraceId = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
CostSource = Literal["reported", "priced", "mixed", "none"]
SessionId = Annotated[str, Field(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, serialize_by_alias=True)


class Tokens(_Part):
    """Tokens that count; prompt includes cached ones, completion includes reasoning, embedding is in no total."""

    prompt: Count
    completion: Count
    total: Annotated[Count, Field(description="prompt + completion")]
    cache_read: Count
    cache_write: Count
    reasoning: Count
    embedding: Count


class LlmSpanTokens(_Part):
    """The plain sum over LLM spans of the figures as written, repeats included."""

    prompt: Count
    completion: Count
    total: Annotated[Count, Field(description="prompt + completion")]


class ModelUse(_Part):
    """What one model did in the session."""

    calls: Count
    prompt: Count
    completion: Count
    embedding: Count
    cost_usd: Cost
    cost_source: CostSource


class TraceEntry(_Part):
    """The figures of one trace."""

    trace_id: TraceId
    name: str
    started_at: Time | None
    ended_at: Time | None
    duration_ms: Duration | None
    span_count: Count
    error_count: Count
    tokens: Tokens
    cost_usd: Cost
    cost_source: CostSource


class Flags(_Part):
    """Traces whose figures ask for a second look."""

    conflicting_claim_traces: Annotated[Count, Field(description="Some spans claim another session")]
    wrapper_usage_traces: Annotated[Count, Field(description="Tokens were only told by a wrapping span")]
    nested_llm_traces: Annotated[Count, Field(description="An LLM call inside another, both counted")]
    missing_root_traces: Annotated[Count, Field(description="No span without a parent")]
    repeated_call_traces: Annotated[
        Count, Field(description="Seem to tell the calls of another trace again, whose tokens are then counted twice")
    ]


class Summary(_Part):
    """A session's state when it closed; keep the one with the greatest (opened_at, revision)."""

    schema_: Annotated[Literal["session-summary/1"], Field(alias="schema")]
    summary_id: Annotated[str, Field(description="<project>/<session_id>@<revision>, percent-encoded")]
    project: Annotated[str, Field(min_length=1)]
    session_id: SessionId
    revision: Annotated[int, Field(ge=1)]
    close_reason: Literal["idle", "max_duration"]
    opened_at: Time
    started_at: Time | None
    ended_at: Time | None
    duration_ms: Duration | None
    user_id: str | None
    user_ids: Annotated[list[str], Field(max_length=16, description="By first use")]
    trace_count: Count
    span_count: Count
    llm_span_count: Count
    error_count: Count
    error_trace_count: Count
    tokens: Tokens
    llm_span_tokens: LlmSpanTokens
    cost_usd: Cost
    cost_source: CostSource
    unpriced_calls: Annotated[Count, Field(description="Calls with neither a reported cost nor a known price")]
    models: dict[str, ModelUse]
    services: Annotated[list[str], Field(max_length=16, description="Sorted")]
    traces: Annotated[list[TraceEntry], Field(description="By start and trace id; not all when truncated")]
    flags: Flags
    truncated: Annotated[bool, Field(description="Sums are complete, details may not be")]

    @property
    def version(self) -> tuple[datetime, int]:
        """(`opened_at`, `revision`): of a session's summaries the greatest counts, of equals the last on the topic."""
        return self.opened_at, self.revision


def schema_text() -> str:
    """The JSON Schema (2020-12) as it is kept in the schema file."""
    document: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Summary.model_json_schema(by_alias=True),
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema_text(), encoding="utf-8")
