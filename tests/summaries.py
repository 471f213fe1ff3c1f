"""Holds a published summary to its model and to the JSON Schema that consumers get."""

from __future__ import annotations

import json
from datetime import datetime
from functools import cache
from typing import Any

import jsonschema

from aggregator.summary import SCHEMA_FILE, Summary

_formats = jsonschema.FormatChecker(formats=())


@_formats.checks("date-time", raises=ValueError)
def _is_a_time(value: object) -> bool:
    """The library looks at this format only with a further package installed."""
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


@cache
def _validator() -> jsonschema.Draft202012Validator:
    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema, format_checker=_formats)


def check_schema(document: dict[str, Any]) -> None:
    """Raise `jsonschema.ValidationError` where the document is not what consumers were promised."""
    _validator().validate(document)


def check_summary(value: bytes) -> Summary:
    """Read the value of a summary record; raises where the schema, the model or its own arithmetic is broken."""
    document = json.loads(value)
    check_schema(document)
    summary = Summary.model_validate_json(value)
    assert summary.model_dump(mode="json") == document, "a field that the model does not know"
    assert summary.summary_id.endswith(f"@{summary.revision}")
    assert summary.tokens.total == summary.tokens.prompt + summary.tokens.completion
    assert summary.user_id == (summary.user_ids[0] if summary.user_ids else None)
    assert summary.services == sorted(summary.services)
    assert len(summary.traces) <= summary.trace_count
    starts = [
        (trace.started_at is None, trace.started_at or summary.opened_at, trace.trace_id) for trace in summary.traces
    ]
    assert starts == sorted(starts)
    return summary
