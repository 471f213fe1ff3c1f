"""The schema file is the model's, and it says yes and no in the right places."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
from pydantic import ValidationError

from aggregator.schema import SCHEMA_FILE, Summary, schema_text
from tests.summaries import check_schema, check_summary

TOKENS = {
    "prompt": 1200,
    "completion": 300,
    "total": 1500,
    "cache_read": 100,
    "cache_write": 0,
    "reasoning": 20,
    "embedding": 0,
}
EXAMPLE: dict[str, Any] = {
    "schema": "session-summary/1",
    "summary_id": "demo/s-1@1",
    "project": "demo",
    "session_id": "s-1",
    "revision": 1,
    "close_reason": "idle",
    "opened_at": "2026-11-22T10:00:00.400000Z",
    "started_at": "2026-11-22T10:00:00.123456Z",
    "ended_at": "2026-11-22T10:01:01.357956Z",
    "duration_ms": 61234.5,
    "user_id": "u-1",
    "user_ids": ["u-1"],
    "trace_count": 1,
    "span_count": 24,
    "llm_span_count": 9,
    "error_count": 1,
    "error_trace_count": 1,
    "tokens": TOKENS,
    "llm_span_tokens": {"prompt": 1200, "completion": 300, "total": 1500},
    "cost_usd": "0.012300000",
    "cost_source": "reported",
    "unpriced_calls": 0,
    "models": {
        "gpt-4o": {
            "calls": 9,
            "prompt": 1200,
            "completion": 300,
            "embedding": 0,
            "cost_usd": "0.012300000",
            "cost_source": "priced",
        }
    },
    "services": ["chat"],
    "traces": [
        {
            "trace_id": "0af7651916cd43dd8448eb211c80319c",
            "name": "turn",
            "started_at": "2026-11-22T10:00:00.123456Z",
            "ended_at": None,
            "duration_ms": None,
            "span_count": 24,
            "error_count": 1,
            "tokens": TOKENS,
            "cost_usd": "0.012300000",
            "cost_source": "priced",
        }
    ],
    "flags": {
        "conflicting_claim_traces": 0,
        "wrapper_usage_traces": 0,
        "nested_llm_traces": 0,
        "missing_root_traces": 0,
        "repeated_call_traces": 0,
    },
    "truncated": False,
}


def test_the_schema_file_is_what_the_model_gives() -> None:
    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text(), "run `make schema`"


def test_the_documented_example_is_valid() -> None:
    summary = check_summary(json.dumps(EXAMPLE).encode())
    assert summary.model_dump(by_alias=True) == EXAMPLE


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema", "session-summary/2"),
        ("revision", 0),
        ("close_reason", "tired"),
        ("opened_at", "2026-11-22T10:00:00Z"),
        ("started_at", "2026-13-22T10:00:00.123456Z"),
        ("cost_usd", "0.01"),
        ("cost_usd", 0.01),
        ("span_count", -1),
        ("user_ids", ["u"] * 17),
        ("truncated", 0),
    ],
)
def test_what_was_not_promised_is_refused(field: str, value: object) -> None:
    with pytest.raises(jsonschema.ValidationError):
        check_schema({**EXAMPLE, field: value})


@pytest.mark.parametrize("field", [field.alias or name for name, field in Summary.model_fields.items()])
def test_every_field_is_required(field: str) -> None:
    document = copy.deepcopy(EXAMPLE)
    del document[field]
    with pytest.raises(jsonschema.ValidationError):
        check_schema(document)


def test_consumers_accept_later_fields_and_our_own_tests_do_not() -> None:
    later = {**EXAMPLE, "later": 1}
    check_schema(later)
    with pytest.raises(ValidationError):
        check_summary(json.dumps(later).encode())


OF_0_1_0: Final = Path(__file__).with_name("session-summary-1.of-0.1.0.schema.json")
"""The first release's: a consumer that was written for it goes on reading what this one publishes."""


def test_the_schema_has_only_grown() -> None:
    assert_only_grown(json.loads(OF_0_1_0.read_text()), json.loads(SCHEMA_FILE.read_text()), "")
    jsonschema.Draft202012Validator(json.loads(OF_0_1_0.read_text())).validate(EXAMPLE)


def assert_only_grown(old: Any, new: Any, place: str) -> None:
    """Nothing was taken away, nothing means something else, and what was always there still is."""
    if not isinstance(old, dict):
        assert new == old, place
        return
    for name, value in old.items():
        assert name in new, f"{place}/{name}"
        if name == "required":
            assert set(value) <= set(new[name]), place
        elif name not in ("title", "description"):
            assert_only_grown(value, new[name], f"{place}/{name}")
