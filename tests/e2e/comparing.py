"""Holds what a deployment shows to its users against what the oracle says must come out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from aiokafka.structs import ConsumerRecord
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from aggregator.adapters.redis.keys import Keys
from tests.e2e.pipeline import Pipeline
from tests.e2e.waiting import until
from tests.indexes import assert_indexes_show_sessions
from tests.oracle import ExpectedSession, comparable_hash, comparable_summary, expected_sessions
from tests.redis_servers import assert_every_key_lives_or_expires
from tests.summaries import check_summary

_EXPLAINS: Final = ("dead-letter-reason", "source-topic", "source-partition", "source-offset")


async def assert_equals_oracle(
    pipeline: Pipeline, messages: list[TracesData], now_ms: int, *, lost: bool = False
) -> None:
    """Once all sessions are closed: Redis and the last summaries are what the oracle says.

    Session hashes and summaries that the oracle does not know are those of sessions that all traces have left.
    `lost`: Redis has lost everything meanwhile, so that revisions began anew; the summary published last counts, and
    of a session that was published before the loss and left after it nobody can tell that it is empty now.
    """
    found = expected_sessions([(message, now_ms) for message in messages], price=_no_price)
    expected = {session.key: session for session in found.values()}
    _compare_redis(pipeline, expected)
    records = await pipeline.read(pipeline.summary_topic)
    _compare_summaries(latest_summaries(records) if lost else last_summaries(records), expected, lost=lost)
    assert_every_key_lives_or_expires(pipeline.redis, indexed=True, settled=True)
    await until("the indexes show what the sessions show", lambda: _indexes_are_right(pipeline, lost=lost))


async def _indexes_are_right(pipeline: Pipeline, *, lost: bool) -> bool:
    try:
        assert_indexes_show_sessions(pipeline.redis, Keys(), looked=False, forgotten=lost)
    except AssertionError as error:
        print(f"indexes: {error}")  # shown after a failure
        return False
    return True


def _no_price(*_: object) -> int:
    return -1


def _compare_redis(pipeline: Pipeline, expected: dict[str, ExpectedSession]) -> None:
    keys = {f"agg:session:{{{key}}}": session for key, session in expected.items()}
    found = pipeline.session_keys()
    assert set(keys) <= found, "sessions are missing"
    for key in found - set(keys):
        assert pipeline.hash(key)["trace_count"] == "0", f"{key} should have been left by all its traces"
    for key, session in keys.items():
        fields = pipeline.hash(key)
        assert fields["status"] == "closed", f"{key}: {fields}"
        assert (shown := comparable_hash(fields)) == session.hash_fields, (
            f"{key}: {_differing(shown, session.hash_fields)}"
        )
        models = {name: int(value) for name, value in pipeline.hash(f"{key}:models").items()}
        assert models == session.models_hash
        entries: Any = session.summary["traces"]
        traces, by_id = pipeline.traces(f"{key}:traces"), {entry["trace_id"]: entry for entry in entries}
        assert traces == by_id, f"{key}:traces: {_differing(traces, by_id)}"


def _differing(shown: Mapping[str, object], expected: Mapping[str, object]) -> str:
    """What differs, as shown and as expected."""
    names = sorted({*shown, *expected})
    return "; ".join(
        f"{name} is {shown.get(name)!r}, not {expected.get(name)!r}"
        for name in names
        if shown.get(name) != expected.get(name)
    )


def _compare_summaries(last: dict[str, dict[str, Any]], expected: dict[str, ExpectedSession], *, lost: bool) -> None:
    for key, summary in last.items():
        if key not in expected and not lost:
            assert summary["trace_count"] == 0, f"{key} should have been left by all its traces"
    for key, session in expected.items():
        shown = comparable_summary(last[key])
        assert shown == session.summary, f"{last[key]['summary_id']}: {_differing(shown, session.summary)}"


def last_summaries(records: list[ConsumerRecord]) -> dict[str, dict[str, Any]]:
    """The summary of each session that consumers keep; on the way: each is valid, and one revision has one content."""
    contents: dict[tuple[str, str, int], bytes] = {}
    last: dict[str, dict[str, Any]] = {}
    for record in records:
        key, summary = _read(record)
        order = (summary["opened_at"], summary["revision"])
        assert contents.setdefault((key, *order), record.value) == record.value
        kept = last.get(key)
        if kept is None or order > (kept["opened_at"], kept["revision"]):
            last[key] = summary
    return last


def latest_summaries(records: list[ConsumerRecord]) -> dict[str, dict[str, Any]]:
    """The summary of each session that was published last."""
    return dict(_read(record) for record in records)


def _read(record: ConsumerRecord) -> tuple[str, dict[str, Any]]:
    check_summary(record.value)
    assert dict(record.headers) == {"content-type": b"application/json", "schema": b"session-summary/1"}
    key, summary = record.key.decode(), json.loads(record.value)
    assert summary["summary_id"] == f"{key}@{summary['revision']}"
    return key, summary


async def assert_dead_letters(pipeline: Pipeline, *, repeated: bool = False) -> None:
    """What could not be used is on the dead-letter topic as it was, with why and whence, and nothing else is.

    `repeated` allows for records that were read again after a crash.
    """
    found: dict[tuple[int, int], ConsumerRecord] = {}
    for record in await pipeline.read(pipeline.dead_letter_topic):
        headers = {name: value.decode() for name, value in record.headers}
        assert set(_EXPLAINS) <= set(headers)
        assert headers["source-topic"] == pipeline.topic
        place = int(headers["source-partition"]), int(headers["source-offset"])
        assert repeated or place not in found, f"the record at {place} has two dead letters"
        found[place] = record
        delivery = pipeline.sent[place]
        assert record.value == delivery.value
        assert headers["dead-letter-reason"] in delivery.reasons
        assert headers["dead-letter-detail"]
        assert int(headers["source-timestamp"]) > 0
        assert headers.get("partial") == ("true" if delivery.partial else None)
    assert set(found) == {place for place, delivery in pipeline.sent.items() if delivery.reasons}
