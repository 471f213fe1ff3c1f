"""The fast decoder, the official parser and OTLP JSON say the same of any record.

Where the official parser rejects what the fast decoder accepts, the fault must lie in what the fast one skips: with
that taken out, the official parser accepts it and says the same.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from aggregator.core.conventions import Conventions
from aggregator.core.decode import decode, decode_reference
from aggregator.core.errors import UndecodableRecord
from aggregator.core.model import Decoded
from aggregator.core.wire import decode_wire
from aggregator.core.wire_format import Unusual

from .test_conventions import (
    CELLS,
    CLASSES,
    COSTS,
    MODELS,
    PROJECTS,
    PROVIDERS,
    SESSION_IDS,
    USER_IDS,
    any_value,
    as_dict,
)
from .test_decode import full_record

LOG_MS = 1_763_900_000_000
CONVENTIONS = Conventions()


def outcome(decoder: Callable[..., Decoded], data: bytes, **options: str) -> object:
    """All that a decoder says of a record; None where it rejects it."""
    try:
        decoded = decoder(data, log_ms=LOG_MS, conventions=CONVENTIONS, **options)
    except UndecodableRecord:
        return None
    spans = [as_dict(span) for span in decoded.spans]
    return spans, decoded.ignored, decoded.dropped, decoded.partial_reason, decoded.partial_detail


# --- records in the words of OTLP, written as protobuf and as JSON ---------------------------------------------------

PLAIN = [name for name in [*SESSION_IDS, *USER_IDS, *PROVIDERS, *MODELS] if "|" not in name]
FIGURES = sorted({name.partition("|")[0] for _, _, name in CELLS} | {name.partition("|")[0] for name in COSTS})
KEYS = [
    *PLAIN,
    *FIGURES,
    *{attribute for attribute, _, _ in CLASSES},
    "logfire.span_type",
    "llm.input_messages.0.message.role",
    "llm.input_messagesX",
    "input.value",
    "é" * 70,
]
TEXTS = [
    *{value for _, value, _ in CLASSES},
    "pending_span",
    "s-1",
    " \t",
    "",
    "x" * 513,
    '"quoted"',
    '"\\ud800"',
    "12",
    "-3",
    "1e2",
    '{"input": 3, "output": 4, "total": 7}',
    '{"input_tokens": 3, "input_tokens_details": {"cached_tokens": 2}, "total_tokens": 5}',
    '{"total": 0.25}',
    "{",
]
NUMBERS = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 300),
    st.sampled_from([-1, 0, 127, 128, 2**62, 2**63 - 1, -(2**63)]),
)
VALUES = st.one_of(
    st.sampled_from(TEXTS),
    st.text(max_size=90),
    NUMBERS,
    st.booleans(),
    st.floats(),
    st.sampled_from([0.0000000005, 0.01, 5.0]),
    st.binary(max_size=5),
    st.none(),
    st.just(["in", "an", "array"]),
)
ATTRIBUTES = st.lists(st.tuples(st.sampled_from(KEYS), VALUES), max_size=12)
TIMES = st.one_of(
    st.integers(0, 2**64 - 1),
    st.integers((LOG_MS - 10) * 10**6, (LOG_MS + 10) * 10**6),
    st.integers(-2000, 2000).map(lambda d: (LOG_MS + 86_400_000) * 10**6 + d),
)
SPANS = st.fixed_dictionaries(
    {
        "trace_id": st.one_of(st.binary(min_size=16, max_size=16), st.sampled_from([b"t" * 16, bytes(16), b"short"])),
        "span_id": st.one_of(st.binary(min_size=8, max_size=8), st.sampled_from([b"", bytes(8)])),
        "parent_span_id": st.sampled_from([b"", b"p" * 8, bytes(8), b"p"]),
        "name": st.one_of(st.text(max_size=20), st.just("n" * 300)),
        "start_time_unix_nano": TIMES,
        "end_time_unix_nano": TIMES,
        "status": st.sampled_from([0, 1, 2]),
        "attributes": ATTRIBUTES,
        "events": st.integers(0, 2),
    }
)
RESOURCE_ATTRIBUTES = st.lists(
    st.tuples(st.sampled_from([*PROJECTS, "service.name", "session.id", "host"]), VALUES), max_size=4
)
SCOPES = st.tuples(st.sampled_from(["", "openinference", "mlflow.fluent", "s" * 300]), st.lists(SPANS, max_size=3))
RECORDS = st.lists(st.tuples(RESOURCE_ATTRIBUTES, st.lists(SCOPES, max_size=2)), max_size=2)


def as_protobuf(record: Any) -> bytes:
    data = TracesData()
    for attributes, scopes in record:
        resource_spans = data.resource_spans.add()
        for key, value in attributes:
            resource_spans.resource.attributes.add(key=key).value.CopyFrom(any_value(value))
        for name, spans in scopes:
            scope_spans = resource_spans.scope_spans.add()
            scope_spans.scope.name = name
            for given_span in spans:
                fields = dict(given_span)
                status, given_attributes, events = fields.pop("status"), fields.pop("attributes"), fields.pop("events")
                span = scope_spans.spans.add(**fields)
                span.status.code = status
                for key, value in given_attributes:
                    span.attributes.add(key=key).value.CopyFrom(any_value(value))
                for _ in range(events):
                    span.events.add(name="e").attributes.add(key="session.id").value.string_value = "event"
                    span.links.add().attributes.add(key="session.id").value.string_value = "link"
    return data.SerializeToString()


def json_value(value: object) -> dict[str, object]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value) if value % 2 else value}
    if isinstance(value, float):
        return {
            "doubleValue": value
            if math.isfinite(value)
            else {"nan": "NaN", "inf": "Infinity"}.get(str(value), "-Infinity")
        }
    if isinstance(value, bytes):
        return {"bytesValue": base64.b64encode(value).decode()}
    if isinstance(value, list):
        return {"arrayValue": {"values": [json_value(element) for element in value]}}
    return {} if value is None else {"stringValue": value}


def json_attributes(attributes: list[tuple[str, object]]) -> list[dict[str, object]]:
    return [{"key": key, "value": json_value(value)} for key, value in attributes]


def as_json(record: Any) -> bytes:
    def span(fields: dict[str, Any]) -> dict[str, object]:
        return {
            "traceId": fields["trace_id"].hex(),
            "spanId": fields["span_id"].hex().upper(),
            "parentSpanId": fields["parent_span_id"].hex(),
            "name": fields["name"],
            "startTimeUnixNano": str(fields["start_time_unix_nano"]),
            "endTimeUnixNano": fields["end_time_unix_nano"],
            "status": {"code": fields["status"]},
            "attributes": json_attributes(fields["attributes"]),
            "events": [{}] * fields["events"],
        }

    document = [
        {
            "resource": {"attributes": json_attributes(attributes)},
            "scopeSpans": [
                {"scope": {"name": name}, "spans": [span(fields) for fields in spans]} for name, spans in scopes
            ],
        }
        for attributes, scopes in record
    ]
    return json.dumps({"resourceSpans": document}).encode()


@given(RECORDS)
def test_three_decoders_say_the_same(record: Any) -> None:
    data = as_protobuf(record)
    expected = outcome(decode_reference, data)
    assert expected is not None
    assert outcome(decode_wire, data) == expected  # without help of the reference
    assert outcome(decode, data) == expected
    assert outcome(decode, as_json(record)) == expected


# --- hostile bytes --------------------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def block(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def joined(*parts: st.SearchStrategy[bytes], most: int = 8) -> st.SearchStrategy[bytes]:
    """Fields of a message, in any order and number."""
    return st.lists(st.one_of(*parts), max_size=most).map(b"".join)


def blocks(number: int, content: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return content.map(lambda inside: block(number, inside))


VARINTS = st.one_of(
    st.integers(0, 2**64 - 1).map(varint),
    st.integers(0, 3).map(varint),
    st.sampled_from(
        [b"\x80\x00", b"\x82\x80\x00", b"\xff" * 9 + b"\x01", b"\xff" * 9 + b"\x02", b"\xff" * 10 + b"\x01"]
    ),
)
SCALARS = st.one_of(
    st.tuples(st.integers(0, 20).map(lambda n: varint(n << 3)), VARINTS).map(b"".join),
    st.tuples(st.integers(0, 20).map(lambda n: varint(n << 3 | 1)), st.binary(min_size=8, max_size=8)).map(b"".join),
    st.tuples(st.integers(0, 20).map(lambda n: varint(n << 3 | 5)), st.binary(min_size=4, max_size=4)).map(b"".join),
    st.tuples(
        st.integers(0, 20).map(lambda n: varint(n << 3 | 2)), st.binary(max_size=4).map(lambda b: varint(len(b)) + b)
    ).map(b"".join),
    st.sampled_from(
        [b"\x0b\x0c", b"\x83\x01\x84\x01", b"\x0b", b"\x07", b"\x8a\x00\x00", b"\xff\xff\x03\x00", b"\x00\x00"]
    ),
)
STRINGS = st.one_of(
    st.sampled_from(TEXTS).map(str.encode), st.sampled_from([b"\xff", b"ok\xed\xa0\x80"]), st.binary(max_size=3)
)
ANY_VALUES = st.one_of(
    blocks(1, STRINGS),
    st.sampled_from(
        [b"", b"\x10\x01", b"\x10\x02", b"\x10\x81\x00", b"\x18\x05", b"\x21" + bytes(8), b"\x2a\x00", b"\x32\x01"]
    ),
    VARINTS.map(lambda value: b"\x18" + value),
    st.binary(max_size=4).map(lambda inside: block(5, inside)),
    joined(blocks(1, STRINGS), SCALARS, most=2),
)
KEY_BYTES = st.one_of(
    st.sampled_from(KEYS).map(str.encode), st.sampled_from([b"", b"\xff", b"llm.input_messages.\xff"])
)
KEY_VALUES = st.one_of(
    st.tuples(blocks(1, KEY_BYTES), blocks(2, ANY_VALUES)).map(b"".join),
    blocks(1, KEY_BYTES),
    joined(blocks(1, KEY_BYTES), blocks(2, ANY_VALUES), SCALARS, most=3),
)
FIXED = st.binary(min_size=8, max_size=8)
SPAN_BYTES = st.tuples(
    st.just(block(1, b"t" * 16) + block(2, b"s" * 8)),
    joined(
        blocks(9, KEY_VALUES),
        blocks(5, STRINGS),
        blocks(15, st.sampled_from([b"", b"\x18\x02", b"\x18\x01", b"\x12\x01x\x18\x02", b"\x18\x82\x00", b"\x18"])),
        blocks(11, st.binary(max_size=3)),
        FIXED.map(lambda time: b"\x39" + time),
        FIXED.map(lambda time: b"\x41" + time),
        st.sampled_from(
            [block(1, b"u" * 16), block(2, b""), block(4, b"p" * 8), b"\x85\x01\x01\x00\x00\x00", b"\x39abc"]
        ),
        SCALARS,
    ),
).map(b"".join)
SCOPE_SPANS = joined(blocks(1, joined(blocks(1, STRINGS), SCALARS, most=2)), blocks(2, SPAN_BYTES), SCALARS, most=3)
RESOURCE_BYTES = joined(blocks(1, KEY_VALUES), SCALARS, most=3)
RESOURCE_SPANS = joined(blocks(1, RESOURCE_BYTES), blocks(2, SCOPE_SPANS), SCALARS, most=3)
HOSTILE = st.one_of(
    joined(blocks(1, RESOURCE_SPANS), SCALARS, most=3),
    blocks(1, blocks(2, blocks(2, SPAN_BYTES))),
    st.tuples(blocks(1, RESOURCE_BYTES), blocks(2, blocks(2, SPAN_BYTES))).map(lambda parts: block(1, b"".join(parts))),
)


def _skeleton() -> Any:
    """TracesData cut down to what the fast decoder looks at, with everything else opaque."""
    file = descriptor_pb2.FileDescriptorProto(name="skeleton.proto", package="skeleton", syntax="proto3")
    kind = descriptor_pb2.FieldDescriptorProto
    shapes: dict[str, dict[str, tuple[int, int, str]]] = {
        "KeyValue": {"key": (1, kind.TYPE_BYTES, ""), "value": (2, kind.TYPE_BYTES, "")},
        "Status": {"code": (3, kind.TYPE_INT32, "")},
        "Resource": {"attributes": (1, kind.TYPE_MESSAGE, "KeyValue")},
        "Scope": {"name": (1, kind.TYPE_BYTES, "")},
        "Span": {
            "trace_id": (1, kind.TYPE_BYTES, ""),
            "span_id": (2, kind.TYPE_BYTES, ""),
            "parent_span_id": (4, kind.TYPE_BYTES, ""),
            "name": (5, kind.TYPE_BYTES, ""),
            "start": (7, kind.TYPE_FIXED64, ""),
            "end": (8, kind.TYPE_FIXED64, ""),
            "attributes": (9, kind.TYPE_MESSAGE, "KeyValue"),
            "status": (15, kind.TYPE_MESSAGE, "Status"),
        },
        "ScopeSpans": {"scope": (1, kind.TYPE_MESSAGE, "Scope"), "spans": (2, kind.TYPE_MESSAGE, "Span")},
        "ResourceSpans": {
            "resource": (1, kind.TYPE_MESSAGE, "Resource"),
            "scope_spans": (2, kind.TYPE_MESSAGE, "ScopeSpans"),
        },
        "TracesData": {"resource_spans": (1, kind.TYPE_MESSAGE, "ResourceSpans")},
    }
    repeated = {"attributes", "spans", "scope_spans", "resource_spans"}
    for name, fields in shapes.items():
        message = file.message_type.add(name=name)
        for field, (number, type_, of) in fields.items():
            label = kind.LABEL_REPEATED if field in repeated else kind.LABEL_OPTIONAL
            type_name = f".skeleton.{of}" if of else None
            message.field.add(
                name=field,
                number=number,
                label=label,
                type=type_,
                type_name=type_name,
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("skeleton.TracesData"))


SKELETON = _skeleton()
RESOURCE_KEYS = {name.encode() for name in (*PROJECTS, "service.name", "session.id")}


def _clean_attributes(attributes: Any, wanted: Any) -> None:
    kept = []
    for attribute in attributes:
        if attribute.key in wanted:
            # The inside of arrays, lists and byte strings is skipped too.
            value = b"\x2a\x00" if attribute.value[:1] in (b"\x2a", b"\x32", b"\x3a") else attribute.value
            kept.append((attribute.key, value))
        elif attribute.key.startswith(b"llm.input_messages."):
            kept.append((b"llm.input_messages.0", b""))
    del attributes[:]
    for key, value in kept:
        attributes.add(key=key, value=value)


def cleaned(data: bytes) -> bytes:
    """The record without all that the fast decoder skips; raises where even the rest is malformed."""
    record = SKELETON()
    record.ParseFromString(data)
    record.DiscardUnknownFields()
    for resource_spans in record.resource_spans:
        _clean_attributes(resource_spans.resource.attributes, RESOURCE_KEYS)
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                _clean_attributes(span.attributes, CONVENTIONS.codes)
    return bytes(record.SerializeToString())


def check(data: bytes) -> None:
    expected = outcome(decode_reference, data)
    found = outcome(decode, data, encoding="otlp_proto")
    if expected is not None:
        assert found == expected
    elif found is not None:
        assert found == outcome(decode_reference, cleaned(data))


@settings(max_examples=500)
@given(HOSTILE)
def test_hostile_fields_get_one_verdict(data: bytes) -> None:
    check(data)


@given(RECORDS, st.data())
def test_broken_records_get_one_verdict(record: Any, data: st.DataObject) -> None:
    whole = as_protobuf(record) or full_record()
    check(whole[: data.draw(st.integers(0, len(whole)))])
    flipped = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        flipped[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    check(bytes(flipped))


def test_every_truncation_and_every_flipped_bit_of_one_record() -> None:
    whole = full_record()
    head, tail = whole.find(b"x" * 100), whole.rfind(b"x" * 100) + 100
    places = [*range(head + 2), *range(tail - 2, len(whole))]  # not all of the long value's 20,000 bytes
    for place in places:
        check(whole[:place])
        for bit in range(8):
            check(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])


@given(st.binary(max_size=60))
@example(b"\n\x7b" + b" " * 123)
def test_any_bytes_get_one_verdict(data: bytes) -> None:
    check(data)
    for encoding in ("auto", "otlp_json"):
        outcome(decode, data, encoding=encoding)  # nothing but UndecodableRecord comes out


@given(RECORDS, st.data())
def test_broken_json_is_rejected_or_read(record: Any, data: st.DataObject) -> None:
    whole = as_json(record)
    cut = whole[: data.draw(st.integers(1, len(whole) - 1))]
    assert outcome(decode, cut) is None
    place = data.draw(st.integers(0, len(whole) - 1))
    outcome(decode, whole[:place] + data.draw(st.binary(min_size=1, max_size=2)) + whole[place + 1 :])


def test_the_fast_decoder_needs_no_help_with_what_exporters_write() -> None:
    decode_wire(full_record(), log_ms=LOG_MS, conventions=CONVENTIONS)


def test_what_the_official_parser_rejects_only_for_what_is_skipped() -> None:
    def record(key: bytes) -> bytes:
        attribute = block(9, block(1, key) + block(2, block(1, b"\xff")))
        return block(1, block(2, block(2, block(1, b"t" * 16) + block(2, b"s" * 8) + attribute)))

    assert outcome(decode_reference, record(b"input.value")) is None
    assert outcome(decode, record(b"input.value")) is not None
    assert outcome(decode, record(b"user.id")) is None


IDS = block(1, b"t" * 16) + block(2, b"s" * 8)


def one_span(*fields: bytes) -> bytes:
    return block(1, block(2, block(2, IDS + b"".join(fields))))


def session(value: bytes) -> bytes:
    return one_span(block(9, block(1, b"session.id") + block(2, value)))


@pytest.mark.parametrize(
    ("data", "usual", "accepted"),
    [
        (one_span(block(9, b"\x0a\x00" + block(2, block(1, b"v")))), True, True),  # an empty key
        (one_span(block(9, block(1, b"session.id"))), True, True),  # no value
        (one_span(block(9, block(2, block(1, b"v")))), False, True),  # no key
        (one_span(block(9, block(1, b"session.id") + b"\x18\x05")), False, True),  # a new field for the value
        (one_span(block(9, block(1, b"a") + block(2, b"") + block(1, b"session.id"))), False, True),  # a key again
        (one_span(b"\x5a\x80\x80\x80\x80\x80\x80\x00"), False, False),  # a length of seven bytes
        (one_span(b"\x5a\x80\x00"), False, True),  # an overlong length
        (one_span(b"\x5a\xff\xff\xff\xff\x07"), False, False),  # a length of 2 GiB
        (one_span(b"\x50" + b"\xff" * 9 + b"\x01"), False, True),  # a count of ten bytes
        (one_span(b"\x50" + b"\xff" * 10 + b"\x01"), False, False),
        (one_span(b"\x50\x80\x01"), True, True),
        (one_span(b"\xd0\x0f\x01"), True, True),  # an unknown field
        (one_span(b"\x07"), False, False),  # field number 0, and a wire type that is none
        (one_span(b"\x0e"), False, False),
        (one_span(b"\x8a\x00\x00"), False, True),  # an overlong tag
        (one_span(b"\x9b\x06\x9c\x06"), False, True),  # a group
        (one_span(b"\x39\x00"), False, False),  # a time cut short
        (one_span(b"\x85\x01\x00"), False, False),  # flags cut short
        (one_span(b"\x08\x01\x38\x01"), True, True),  # known fields with another wire type
        (one_span(block(15, b"\x18")), False, False),
        (one_span(block(15, b"\x18\x82\x00")), False, True),
        (one_span(block(15, b"\x18\x02"), block(15, b"")), True, True),  # merged: still an error
        (one_span(block(5, b"a"), block(5, b"b")), True, True),
        (one_span(block(5, b"\xff")), False, False),
        (session(b"\x18\x80\x00"), False, True),  # an overlong number
        (session(b"\x18\x05\x18\x06"), False, True),  # two values, the last counts
        (session(b"\x18" + b"\xff" * 9 + b"\x01"), True, True),  # -1
        (session(b"\x18" + b"\xff" * 9 + b"\x02"), False, True),
        (session(b"\x18" + b"\xff" * 9), False, False),
        (session(b"\x10\x02"), False, True),
        (session(b"\x21\x00"), False, False),
        (session(block(1, b"a") + block(1, b"b")), False, True),
        (session(block(8, b"")), False, True),
        (block(1, block(2, block(2, IDS)) + block(1, b"")), False, True),  # the resource after its spans
        (block(1, block(2, block(2, IDS) + block(1, block(1, b"scope")))), False, True),  # the scope after its spans
        (block(2, b"x") + one_span(), True, True),
        (block(1, block(3, b"url") + block(2, block(3, b"url") + block(2, IDS))), True, True),
    ],
)
def test_odd_bytes(data: bytes, usual: bool, accepted: bool) -> None:
    expected = outcome(decode_reference, data)
    assert (expected is not None) == accepted
    assert outcome(decode, data) == expected
    if usual:
        assert outcome(decode_wire, data) == expected
    else:
        with pytest.raises(Unusual):
            decode_wire(data, log_ms=LOG_MS, conventions=CONVENTIONS)


def test_unusual_bytes_are_left_to_the_official_parser() -> None:
    with pytest.raises(Unusual):
        decode_wire(b"\n", log_ms=LOG_MS, conventions=CONVENTIONS)
