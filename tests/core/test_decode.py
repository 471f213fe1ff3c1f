"""Decoding record by record: encodings, rejects, ids, times, and what is dropped or ignored."""

from __future__ import annotations

import json
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status, TracesData

from aggregator.core.conventions import TABLE_CLAIM_ROW, Conventions
from aggregator.core.decode import decode, decode_reference
from aggregator.core.errors import UndecodableRecord
from aggregator.core.model import DEFAULT_PROJECT, LLM, NO_CLAIM, OTHER, Decoded

from .test_conventions import any_value, key_values

LOG_MS = 1_763_900_000_000
LOG_NS = LOG_MS * 1_000_000
DAY_NS = 24 * 3600 * 10**9
TRACE, SPAN = bytes(range(16)), bytes(range(8))
CONVENTIONS = Conventions()


def run(data: bytes, encoding: str = "auto") -> Decoded:
    return decode(data, log_ms=LOG_MS, conventions=CONVENTIONS, encoding=encoding)


def rejected(data: bytes, encoding: str = "auto") -> tuple[str, str]:
    with pytest.raises(UndecodableRecord) as caught:
        run(data, encoding)
    return caught.value.reason, caught.value.detail


def traces(*spans: ProtoSpan) -> bytes:
    data = TracesData()
    data.resource_spans.add().scope_spans.add().spans.extend(spans)
    return data.SerializeToString()


def good(**fields: Any) -> ProtoSpan:
    return ProtoSpan(
        **{
            "trace_id": TRACE,
            "span_id": SPAN,
            "start_time_unix_nano": LOG_NS,
            "end_time_unix_nano": LOG_NS + 1999,
            **fields,
        }
    )


JSON_SPAN: dict[str, Any] = {
    "traceId": TRACE.hex(),
    "spanId": SPAN.hex().upper(),
    "startTimeUnixNano": str(LOG_NS),
    "endTimeUnixNano": LOG_NS + 1999,
}


def as_json(*spans: object, **resource: object) -> bytes:
    return json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans}]}]}).encode()


# --- which encoding -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["auto", "otlp_proto", "otlp_json"])
def test_no_bytes_are_a_record_with_nothing_in_it(encoding: str) -> None:
    decoded = run(b"", encoding)
    assert (decoded.spans, decoded.dropped, decoded.ignored, decoded.partial_reason) == ([], [], [], "")


@pytest.mark.parametrize("text", ["{}", '{"resourceSpans": []}', '{"resourceSpans": null}', '{"logs": [1]}'])
def test_an_object_without_spans_has_nothing_in_it(text: str) -> None:
    assert run(text.encode()).spans == []


@pytest.mark.parametrize(
    "before", [b"", b"\xef\xbb\xbf", b"  \t", b"\r\n", b"\n", b"\n\n  ", b"\xef\xbb\xbf \n", b" " * 500]
)
def test_json_is_known_by_its_brace(before: bytes) -> None:
    assert len(run(before + as_json(JSON_SPAN)).spans) == 1


def test_a_record_that_begins_with_a_line_feed_is_protobuf_first() -> None:
    record = next(r for r in (traces(good(name="x" * n)) for n in range(128)) if r.startswith(b"\n{"))
    assert len(run(record).spans) == 1


def test_encoding_can_be_fixed() -> None:
    assert len(run(traces(good()), "otlp_proto").spans) == 1
    assert len(run(as_json(JSON_SPAN), "otlp_json").spans) == 1
    assert rejected(as_json(JSON_SPAN), "otlp_proto")[0] == "not_protobuf"
    assert rejected(traces(good()), "otlp_json")[0] == "not_json"
    with pytest.raises(ValueError, match="'thrift', not one of auto, otlp_proto, otlp_json"):
        run(b"", "thrift")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"hello", "not_protobuf"),
        (b"\n", "not_protobuf"),
        (b"\n\x05ab", "not_protobuf"),
        (traces(good())[:-1], "not_protobuf"),
        (b"[]", "not_protobuf"),
        (b"\xff" * 40, "not_protobuf"),
        (b"{", "not_json"),
        (b"\n{", "not_json"),
        (b'{"a": NaN}', "not_json"),
        (b'{"a": "\xff"}', "not_json"),
        (b'{"a": "\\ud800"}', "not_json"),
        (b"{}{}", "not_json"),
        (b'{"a":' * 5000, "not_json"),
    ],
)
def test_what_auto_rejects(data: bytes, reason: str) -> None:
    found, detail = rejected(data)
    assert found == reason
    assert detail


@pytest.mark.parametrize("text", ["[]", "null", "5", '"text"', " [{}]"])
def test_json_that_is_not_an_object(text: str) -> None:
    assert rejected(text.encode(), "otlp_json")[0] == "not_an_object"


# --- spans ----------------------------------------------------------------------------------------------------------


def full_span() -> ProtoSpan:
    span = good(parent_span_id=b"p" * 8, name="turn", trace_state="a=b", kind=3, flags=257, dropped_attributes_count=3)
    span.status.code = Status.STATUS_CODE_ERROR
    span.status.message = "broken"
    span.attributes.extend(key_values({"session.id": "s", "openinference.span.kind": "LLM", "k" * 300: "x" * 20_000}))
    span.events.add(name="e").attributes.extend(key_values({"session.id": "of the event"}))
    span.links.add(trace_id=TRACE).attributes.extend(key_values({"session.id": "of the link"}))
    return span


def full_record() -> bytes:
    data = TracesData()
    resource_spans = data.resource_spans.add(schema_url="https://schema")
    resource_spans.resource.attributes.extend(
        key_values({"service.name": "chat", "host": "h", "openinference.project.name": "demo"})
    )
    scope_spans = resource_spans.scope_spans.add(schema_url="https://schema")
    scope_spans.scope.name = "scope"
    scope_spans.scope.version = "1"
    scope_spans.scope.attributes.extend(key_values({"session.id": "of the scope"}))
    scope_spans.spans.append(full_span())
    scope_spans.spans.append(good(span_id=b"2" * 8))
    resource_spans.scope_spans.add().spans.append(good(span_id=b"3" * 8))
    data.resource_spans.add().scope_spans.add().spans.append(good(span_id=b"4" * 8))
    return data.SerializeToString()


def test_every_field() -> None:
    decoded = run(full_record())
    first, second, third, fourth = decoded.spans
    assert (first.trace_id, first.span_id, first.parent_id) == (TRACE, SPAN, b"p" * 8)
    assert (first.name, first.error, first.span_class) == ("turn", True, LLM)
    assert (first.start_us, first.end_us) == (LOG_MS * 1000, LOG_MS * 1000 + 1)
    assert (first.service, first.project, first.scope) == ("chat", "demo", "scope")
    assert (first.claim_row, first.claim_session_id) == (TABLE_CLAIM_ROW, "s")
    assert (second.parent_id, second.name, second.error, second.span_class) == (b"", "", False, OTHER)
    assert (second.service, second.scope, second.claim_row) == ("chat", "scope", NO_CLAIM)
    assert (third.service, third.scope) == ("chat", "")
    assert (fourth.service, fourth.project, fourth.scope) == ("", DEFAULT_PROJECT, "")
    assert (decoded.ignored, decoded.dropped) == ([], [])


def test_of_a_key_that_occurs_twice_the_last_counts() -> None:
    span = good()
    for value in ("a", None, "b"):
        span.attributes.add(key="session.id").value.CopyFrom(any_value(value))
    span.attributes.add(key="user.id").value.string_value = "u"
    span.attributes.add(key="user.id")
    (decoded,) = run(traces(span)).spans
    assert (decoded.claim_session_id, decoded.user_id) == ("b", "")


def test_caches_stay_bounded() -> None:
    conventions = Conventions()
    for i in range(9000):
        data = TracesData()
        resource_spans = data.resource_spans.add()
        resource_spans.resource.attributes.extend(key_values({"service.name": f"r{i}"}))
        scope_spans = resource_spans.scope_spans.add()
        scope_spans.scope.name = f"s{i}"
        scope_spans.spans.append(good(name=f"n{i}"))
        (span,) = decode(data.SerializeToString(), log_ms=LOG_MS, conventions=conventions).spans
        assert (span.service, span.scope, span.name) == (f"r{i}", f"s{i}", f"n{i}")
    cache = conventions.cache
    before = len(cache.resources), len(cache.scopes), len(cache.strings)
    data = TracesData()
    resource_spans = data.resource_spans.add()
    resource_spans.resource.attributes.extend(key_values({"host": "h" * 4096}))
    resource_spans.scope_spans.add().scope.name = "s" * 4096
    decode(data.SerializeToString(), log_ms=LOG_MS, conventions=conventions)
    assert (len(cache.resources), len(cache.scopes), len(cache.strings)) == before
    assert len(cache.strings) <= 8192
    assert max(len(cache.resources), len(cache.scopes)) <= 1024


# --- ids ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "reason", "detail"),
    [
        ({"trace_id": b""}, "bad_trace_id", "trace id of 0 bytes"),
        ({"trace_id": b"t" * 15}, "bad_trace_id", "trace id of 15 bytes"),
        ({"trace_id": b"t" * 17}, "bad_trace_id", "trace id of 17 bytes"),
        ({"trace_id": bytes(16)}, "bad_trace_id", "trace id of 16 bytes, all zero"),
        ({"span_id": b""}, "bad_span_id", "span id of 0 bytes"),
        ({"span_id": b"s" * 9}, "bad_span_id", "span id of 9 bytes"),
        ({"span_id": bytes(8)}, "bad_span_id", "span id of 8 bytes, all zero"),
    ],
)
def test_a_span_with_a_bad_id_is_dropped_and_the_rest_counts(fields: dict[str, Any], reason: str, detail: str) -> None:
    bad = good(name="bad\n", **fields)
    decoded = run(traces(good(), bad, good(span_id=b"2" * 8), bad))
    assert [span.span_id for span in decoded.spans] == [SPAN, b"2" * 8]
    assert decoded.dropped == [reason, reason]
    assert (decoded.partial_reason, decoded.partial_detail) == ("bad_id", f"span 1 ('bad\\n'): {detail}")


@pytest.mark.parametrize("parent_id", [b"", b"p" * 7, b"p" * 9, bytes(8)])
def test_a_bad_parent_id_is_none(parent_id: bytes) -> None:
    decoded = run(traces(good(parent_span_id=parent_id)))
    assert decoded.spans[0].parent_id == b""
    assert decoded.dropped == []


def test_the_first_loss_makes_the_partial_detail() -> None:
    long = good(name="long")
    long.attributes.extend(key_values({"session.id": "x" * 513}))
    decoded = run(traces(long, good(span_id=b"")))
    assert decoded.partial_reason == "session_id_too_long"
    assert decoded.partial_detail.startswith("span 0 ('long')")
    decoded = run(traces(good(span_id=b"", name="y" * 300), long))
    assert (decoded.partial_reason, len(decoded.spans)) == ("bad_id", 1)
    assert len(decoded.partial_detail) < 120


# --- times ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nanoseconds", "microseconds", "reason"),
    [
        (LOG_NS + 999, LOG_NS // 1000, None),
        (1000, 1, None),
        (LOG_NS + DAY_NS, (LOG_NS + DAY_NS) // 1000, None),
        (LOG_NS + DAY_NS + 1000, 0, "future"),
        (2**63 - 1, 0, "future"),
        (2**63, 0, "future"),
        (2**64 - 1, 0, "future"),
        (0, 0, "missing"),
        (999, 0, "missing"),
    ],
)
def test_times_that_are_believed(nanoseconds: int, microseconds: int, reason: str | None) -> None:
    start = traces(good(start_time_unix_nano=nanoseconds))
    end = traces(good(end_time_unix_nano=nanoseconds))
    start_json = as_json({**JSON_SPAN, "startTimeUnixNano": nanoseconds})
    end_json = as_json({**JSON_SPAN, "endTimeUnixNano": str(nanoseconds)})
    for record in (start, start_json):
        decoded = run(record)
        assert decoded.spans[0].start_us == microseconds
        assert decoded.ignored == ([("start_time", reason)] if reason else [])
    for record in (end, end_json):
        decoded = run(record)
        assert decoded.spans[0].end_us == microseconds
        assert decoded.ignored == ([("end_time", reason)] if reason else [])
    reference = decode_reference(start, log_ms=LOG_MS, conventions=CONVENTIONS)
    assert reference.spans[0].start_us == microseconds


def test_json_without_times() -> None:
    decoded = run(as_json({"traceId": TRACE.hex(), "spanId": SPAN.hex()}))
    assert (decoded.spans[0].start_us, decoded.spans[0].end_us) == (0, 0)
    assert decoded.ignored == [("start_time", "missing"), ("end_time", "missing")]


def test_an_end_before_the_start_is_kept() -> None:
    (span,) = run(traces(good(end_time_unix_nano=LOG_NS - 5000))).spans
    assert (span.start_us, span.end_us) == (LOG_MS * 1000, LOG_MS * 1000 - 5)


# --- OTLP JSON ------------------------------------------------------------------------------------------------------


def test_json_in_both_spellings() -> None:
    camel = {
        "resourceSpans": [
            {
                "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "chat"}}]},
                "scopeSpans": [
                    {
                        "scope": {"name": "scope"},
                        "spans": [
                            {
                                **JSON_SPAN,
                                "parentSpanId": "70" * 8,
                                "name": "turn",
                                "kind": "SPAN_KIND_SERVER",
                                "status": {"code": "STATUS_CODE_ERROR"},
                                "attributes": [
                                    {"key": "session.id", "value": {"intValue": "-12"}},
                                    {"key": "user.id", "value": {"boolValue": True}},
                                    {"key": "llm.cost.total", "value": {"doubleValue": "0.5"}},
                                    {"key": "enduser.id", "value": {"bytesValue": "AAE="}},
                                ],
                            }
                        ],
                    }
                ],
            }
        ]
    }
    snake = json.dumps(camel)
    for name in ("resourceSpans", "scopeSpans", "traceId", "spanId", "parentSpanId", "stringValue", "intValue"):
        snake = snake.replace(name, "".join(f"_{c.lower()}" if c.isupper() else c for c in name))
    for name in ("startTimeUnixNano", "endTimeUnixNano", "boolValue", "doubleValue", "bytesValue"):
        snake = snake.replace(name, "".join(f"_{c.lower()}" if c.isupper() else c for c in name))
    assert not any(c.isupper() for c in snake.split("kind")[0].replace(JSON_SPAN["spanId"], ""))
    for text in (json.dumps(camel), snake):
        (span,) = run(text.encode()).spans
        assert (span.trace_id, span.span_id, span.parent_id) == (TRACE, SPAN, b"p" * 8)
        assert (span.name, span.error, span.scope, span.service) == ("turn", True, "scope", "chat")
        assert (span.start_us, span.end_us) == (LOG_MS * 1000, LOG_MS * 1000 + 1)
        assert (span.claim_session_id, span.user_id, span.cost_nano) == ("-12", "true", 500_000_000)


@pytest.mark.parametrize(
    ("value", "session_id"),
    [
        ({"stringValue": "s"}, "s"),
        ({"stringValue": None, "intValue": 5}, "5"),
        ({"int_value": 5.0}, "5"),
        ({"boolValue": False}, "false"),
        ({"future": 1, "string_value": "s"}, "s"),
        ({"doubleValue": 5.0}, ""),
        ({"arrayValue": {}}, ""),
        ({"kvlistValue": 3}, ""),
        ({}, ""),
        (None, ""),
    ],
)
def test_json_values(value: object, session_id: str) -> None:
    span = {**JSON_SPAN, "attributes": [{"key": "session.id", "value": value}]}
    assert run(as_json(span)).spans[0].claim_session_id == session_id


@pytest.mark.parametrize(
    ("code", "error"), [(2, True), (1, False), (0, False), ("STATUS_CODE_OK", False), (None, False)]
)
def test_json_status(code: object, error: bool) -> None:
    assert run(as_json({**JSON_SPAN, "status": {"code": code}})).spans[0].error is error


@pytest.mark.parametrize(
    ("double", "nano", "ignored"),
    [(0.5, 5 * 10**8, []), (2, 2 * 10**9, []), ("NaN", -1, ["not_finite"]), ("-Infinity", -1, ["not_finite"])],
)
def test_json_doubles(double: object, nano: int, ignored: list[str]) -> None:
    span = {**JSON_SPAN, "attributes": [{"key": "operation.cost", "value": {"doubleValue": double}}]}
    decoded = run(as_json(span))
    assert decoded.spans[0].cost_nano == nano
    assert decoded.ignored == [("cost", reason) for reason in ignored]


@pytest.mark.parametrize("bad", ["", "zz" * 16, "00" * 16, "ab", "ab " * 8, "é" * 16, "a" * 31])
def test_json_ids_that_are_bad(bad: str) -> None:
    decoded = run(as_json(JSON_SPAN, {**JSON_SPAN, "traceId": bad}, {**JSON_SPAN, "spanId": bad}))
    assert len(decoded.spans) == 1
    assert decoded.dropped == ["bad_trace_id", "bad_span_id"]
    assert decoded.partial_reason == "bad_id"
    assert run(as_json({**JSON_SPAN, "parentSpanId": bad})).spans[0].parent_id == b""


def attribute(value: object, key: object = "session.id") -> dict[str, object]:
    return {"attributes": [{"key": key, "value": value}]}


@pytest.mark.parametrize(
    "members",
    [
        {"traceId": 5},
        {"name": ["n"]},
        {"startTimeUnixNano": "soon"},
        {"startTimeUnixNano": -1},
        {"startTimeUnixNano": 2**64},
        {"startTimeUnixNano": 1.5},
        {"endTimeUnixNano": True},
        {"endTimeUnixNano": []},
        {"status": 2},
        {"status": {"code": True}},
        {"status": {"code": 2.5}},
        {"attributes": {}},
        {"attributes": ["a"]},
        attribute("s"),
        attribute({"stringValue": 5}),
        attribute({"stringValue": "s"}, key=5),
        attribute({"boolValue": "true"}),
        attribute({"intValue": "5.0"}),
        attribute({"intValue": 2**63}),
        attribute({"doubleValue": "many"}),
        attribute({"doubleValue": True}),
        attribute({"doubleValue": []}),
    ],
    ids=str,
)
def test_json_members_of_a_wrong_type(members: dict[str, object]) -> None:
    reason, detail = rejected(as_json({**JSON_SPAN, **members}))
    assert reason == "wrong_type"
    assert "wanted" in detail


@pytest.mark.parametrize(
    "text",
    [
        '{"resourceSpans": {}}',
        '{"resourceSpans": [5]}',
        '{"resourceSpans": [{"resource": []}]}',
        '{"resourceSpans": [{"resource": {"attributes": [{"key": "service.name", "value": 5}]}}]}',
        '{"resourceSpans": [{"scopeSpans": 5}]}',
        '{"resourceSpans": [{"scopeSpans": [{"scope": {"name": 5}}]}]}',
        '{"resourceSpans": [{"scopeSpans": [{"spans": ["s"]}]}]}',
    ],
)
def test_json_of_a_wrong_shape(text: str) -> None:
    assert rejected(text.encode())[0] == "wrong_type"


def test_json_members_that_nothing_reads_may_be_anything() -> None:
    resource = {"attributes": [{"key": "host", "value": 5}], "droppedAttributesCount": "x"}
    span = {**JSON_SPAN, "events": 5, "links": {}, "kind": [], "attributes": [{"key": "other", "value": 5}]}
    assert len(run(as_json(span, **resource)).spans) == 1
