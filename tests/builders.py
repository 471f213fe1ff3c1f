"""Builds OTLP messages for tests, with the official classes.

The unit is the official `TracesData`: `emitted` gives one with a single span, `joined` makes one record of several.
`to_protobuf` and `to_json` give the bytes that stand on a topic.  Ids are made from small integers, times are
milliseconds after `BASE_MS`.  Random workloads are in `tests.workloads`.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Mapping, Sequence

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, TracesData

Value = str | bool | int | float | bytes | list[object] | dict[str, object] | None
Pairs = Mapping[str, Value] | Sequence[tuple[str, Value]]
"""Attributes; as a sequence a key may occur twice."""

BASE_MS = 1_760_000_000_000
"""The log time around which everything happens, in ms."""

UNKNOWN = None
"""Stands for a start or end time that the producer left out."""

UNDECODABLE: tuple[bytes, ...] = (
    b"\xff",
    b"not a record",
    b"\x0a\x05abc",  # a length beyond the end
    b"\x0a\x03\x12\x05\x0a",  # the same, deeper
    b'{"resourceSpans": [',
    b"{",
    b" \t{]",
    b"[1]",
    b"null",
    b"\x0a\x07\x12\x05\x12\x03\x2a\x01\xff",  # a span's name that is not UTF-8
)
"""Record values that neither encoding can read."""

EMPTY: tuple[bytes, ...] = (b"", b"{}", b' {"resourceSpans": []}', b"\xef\xbb\xbf{}", b"\x0a\x00")
"""Record values that are well formed and hold no span."""


def trace_id(number: int) -> bytes:
    """Makes a trace id; 0 makes the invalid one of zeros."""
    return number.to_bytes(16, "big")


def span_id(number: int) -> bytes:
    """Makes a span id; 0 makes the invalid one of zeros."""
    return number.to_bytes(8, "big")


def nanoseconds(after_ms: float | None) -> int:
    """Turns milliseconds after `BASE_MS` into OTLP's time; None is a missing time."""
    return 0 if after_ms is None else BASE_MS * 1_000_000 + round(after_ms * 1_000_000)


def any_value(value: Value) -> AnyValue:
    """Makes an attribute value; None makes one that is not set."""
    if value is None:
        return AnyValue()
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, str):
        return AnyValue(string_value=value)
    if isinstance(value, bytes):
        return AnyValue(bytes_value=value)
    made = AnyValue()
    if isinstance(value, dict):
        made.kvlist_value.values.extend(key_values(value))  # type: ignore[arg-type]
        made.kvlist_value.SetInParent()
    else:
        made.array_value.values.extend(any_value(item) for item in value)  # type: ignore[arg-type]
        made.array_value.SetInParent()
    return made


def key_values(attributes: Pairs) -> list[KeyValue]:
    """Makes attributes, in the order given."""
    pairs = attributes.items() if isinstance(attributes, Mapping) else attributes
    return [KeyValue(key=key, value=any_value(value)) for key, value in pairs]


def span(
    number: int = 1,
    attributes: Pairs = (),
    *,
    trace: int | bytes = 1,
    parent: int | bytes | None = None,
    name: str = "span",
    start: float | None = 0,
    end: float | None = 100,
    error: bool = False,
) -> Span:
    """Makes one span; `number`, `trace` and `parent` become ids, `start` and `end` are ms after `BASE_MS`."""
    made = Span(
        trace_id=trace_id(trace) if isinstance(trace, int) else trace,
        span_id=span_id(number),
        name=name,
        start_time_unix_nano=nanoseconds(start),
        end_time_unix_nano=nanoseconds(end),
        attributes=key_values(attributes),
    )
    if parent is not None:
        made.parent_span_id = span_id(parent) if isinstance(parent, int) else parent
    if error:
        made.status.code = made.status.STATUS_CODE_ERROR
    return made


def record(spans: Iterable[Span], *, resource: Pairs = (), scope: str = "") -> TracesData:
    """Makes a record of spans that share one resource and one scope."""
    resource_spans = ResourceSpans()
    resource_spans.resource.attributes.extend(key_values(resource))
    scope_spans = ScopeSpans(spans=spans)
    scope_spans.scope.name = scope
    resource_spans.scope_spans.append(scope_spans)
    return TracesData(resource_spans=[resource_spans])


def joined(messages: Iterable[TracesData]) -> TracesData:
    """Makes one record of several."""
    whole = TracesData()
    for message in messages:
        whole.resource_spans.extend(message.resource_spans)
    return whole


def to_protobuf(message: TracesData) -> bytes:
    """Gives a record as encoding `otlp_proto`."""
    return message.SerializeToString(deterministic=True)


def to_json(message: TracesData) -> bytes:
    """Gives a record as encoding `otlp_json`: hex ids, 64-bit integers as text, lowerCamelCase."""
    return json.dumps(
        {"resourceSpans": [json_resource_spans(one) for one in message.resource_spans]}, ensure_ascii=False
    ).encode()


def json_resource_spans(message: ResourceSpans) -> dict[str, object]:
    written: dict[str, object] = {"scopeSpans": [json_scope_spans(one) for one in message.scope_spans]}
    if message.HasField("resource"):
        written["resource"] = {"attributes": json_attributes(message.resource.attributes)}
    return written


def json_scope_spans(message: ScopeSpans) -> dict[str, object]:
    written: dict[str, object] = {"spans": [json_span(one) for one in message.spans]}
    if message.HasField("scope"):
        written["scope"] = {"name": message.scope.name}
    return written


def json_span(message: Span) -> dict[str, object]:
    written: dict[str, object] = {
        "traceId": message.trace_id.hex(),
        "spanId": message.span_id.hex(),
        "parentSpanId": message.parent_span_id.hex(),
        "name": message.name,
        "startTimeUnixNano": str(message.start_time_unix_nano),
        "endTimeUnixNano": str(message.end_time_unix_nano),
        "attributes": json_attributes(message.attributes),
    }
    if message.HasField("status"):
        written["status"] = {"code": int(message.status.code)}
    return written


def json_attributes(attributes: Iterable[KeyValue]) -> list[dict[str, object]]:
    return [{"key": one.key, "value": json_value(one.value)} for one in attributes]


def json_value(value: AnyValue) -> dict[str, object]:
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return {"stringValue": value.string_value}
    if kind == "bool_value":
        return {"boolValue": value.bool_value}
    if kind == "int_value":
        return {"intValue": str(value.int_value)}
    if kind == "double_value":
        return {"doubleValue": json_double(value.double_value)}
    if kind == "bytes_value":
        return {"bytesValue": base64.b64encode(value.bytes_value).decode()}
    if kind == "array_value":
        return {"arrayValue": {"values": [json_value(one) for one in value.array_value.values]}}
    if kind == "kvlist_value":
        return {"kvlistValue": {"values": json_attributes(value.kvlist_value.values)}}
    return {}


def json_double(value: float) -> float | str:
    """Numbers that JSON does not have are written as text, as protobuf's mapping does."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value
