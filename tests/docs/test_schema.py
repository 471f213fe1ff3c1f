"""The schema file is the model's, and it says yes and no in the right places."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
from pydantic import ValidationError

from aggregator.summary import SCHEMA_FILE, Summary, schema_text
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
    assert json.loads(summary.model_dump_json()) == EXAMPLE


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
    later = {**EXAMPLE, "later": 1, "tokens": {**TOKENS, "later": 1}}
    check_schema(later)
    assert json.loads(Summary.model_validate_json(json.dumps(later)).model_dump_json()) == EXAMPLE
    with pytest.raises(AssertionError, match="does not know"):
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


@pytest.mark.parametrize(
    ("field", "value"),
    [("schema", "session-summary/2"), ("revision", "1"), ("opened_at", "soon"), ("cost_usd", "-1.000000000")],
)
def test_the_model_refuses_what_it_would_misread(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        Summary.model_validate_json(json.dumps({**EXAMPLE, field: value}))


def test_a_summary_knows_its_types_and_its_version() -> None:
    summary = Summary.model_validate_json(json.dumps(EXAMPLE))
    assert summary.cost_usd == Decimal("0.0123")
    assert summary.version == (datetime(2026, 11, 22, 10, 0, 0, 400_000, tzinfo=UTC), 1)
    assert summary.started_at is not None
    assert summary.started_at < summary.version[0]


def test_the_model_is_light_to_import() -> None:
    code = "import sys, aggregator.summary; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pydantic" in done.stdout.split()
    assert not {"aiokafka", "redis", "structlog", "typer", "prometheus_client"} & set(done.stdout.split())
