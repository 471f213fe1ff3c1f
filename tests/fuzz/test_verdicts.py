"""What `make fuzz` searches for, in the small: the kept corpus, sound records that were mutated, and memory."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.core.decode import decode
from aggregator.core.errors import UndecodableRecord
from tests.core.test_decode_laws import CONVENTIONS, KEYS, LOG_MS, RECORDS, as_json, as_protobuf, block, varint
from tests.fuzz.verdicts import TARGETS, check_json, check_protobuf

CORPUS: Final = sorted(path for path in (Path(__file__).parent / "corpus").glob("*/*"))


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_corpus_gets_one_verdict(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


def test_there_is_a_corpus_for_each_encoding() -> None:
    assert {path.parent.name for path in CORPUS} == set(TARGETS)


# --- mutations of the wire -------------------------------------------------------------------------------------------

Field = tuple[int, int, bytes]  # number, wire type, and what follows the tag without the length


def fields_of(data: bytes) -> list[Field] | None:
    """The fields of a message, None for bytes that are none."""
    found, position = [], 0

    def number() -> int:
        nonlocal position
        value, shift = 0, 0
        while True:
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value

    try:
        while position < len(data):
            tag = number()
            wire_type, before = tag & 7, position
            if wire_type == 2:
                length = number()
                content = data[position : position + length]
                position += length
            elif wire_type in (0, 1, 5):
                position += {1: 8, 5: 4}.get(wire_type, 0)
                if wire_type == 0:
                    number()
                content = data[before:position]
            else:
                return None
            found.append((tag >> 3, wire_type, content))
        return found if position == len(data) else None
    except IndexError:
        return None


def written(fields: list[Field]) -> bytes:
    return b"".join(
        varint(number << 3 | wire_type) + (varint(len(content)) if wire_type == 2 else b"") + content
        for number, wire_type, content in fields
    )


def overlong(plain: bytes) -> bytes:
    """The same number in more bytes than it takes."""
    return plain[:-1] + bytes([plain[-1] | 0x80, 0x80, 0x00])


def changed(before: bytes, one: Field, after: bytes, draw: Callable[[st.SearchStrategy[Any]], Any]) -> bytes:
    """A message with one of its fields changed."""
    number, wire_type, content = one
    tag, field = varint(number << 3 | wire_type), written([one])
    changes: dict[str, Callable[[], bytes]] = {
        "left out": lambda: before + after,
        "twice": lambda: before + field + after + field,
        "moved to the end": lambda: after + before + field,
        "renumbered": lambda: before + written([(draw(st.integers(0, 20)), wire_type, content)]) + after,
        "of another wire type": lambda: before + varint(number << 3 | draw(st.integers(0, 7))) + content + after,
        "an overlong tag": lambda: before + overlong(tag) + field[len(tag) :] + after,
        "another key": lambda: before + block(number, draw(st.sampled_from(KEYS)).encode()) + after,
        "in a group": lambda: before + varint(number << 3 | 3) + field + varint(number << 3 | 4) + after,
        "longer": lambda: before + block(number, content + draw(st.binary(max_size=4))) + after,
        "followed by anything": lambda: before + field + draw(st.binary(max_size=3)) + after,
        "a number": lambda: before + varint(number << 3) + varint(draw(st.integers(0, 2**64 - 1))) + after,
    }
    return changes[draw(st.sampled_from(sorted(changes)))]()


def mutated(data: bytes, draw: Callable[[st.SearchStrategy[Any]], Any], depth: int = 0) -> bytes:
    """One change to a message, anywhere in its tree."""
    fields = fields_of(data)
    if not fields:
        return bytes(draw(st.binary(max_size=12)))
    place = draw(st.integers(0, len(fields) - 1))
    number, wire_type, content = fields[place]
    if wire_type == 2 and depth < 7 and draw(st.integers(0, 3)):
        fields[place] = (number, wire_type, mutated(content, draw, depth + 1))
        return written(fields)
    return changed(written(fields[:place]), fields[place], written(fields[place + 1 :]), draw)


@settings(max_examples=150)
@given(RECORDS, st.data())
def test_mutated_wire_gets_one_verdict(record: Any, data: st.DataObject) -> None:
    wire = as_protobuf(record)
    for _ in range(data.draw(st.integers(1, 4))):
        wire = mutated(wire, data.draw)
    check_protobuf(wire)


# --- mutations of JSON -----------------------------------------------------------------------------------------------

MEMBERS: Final = (
    "resourceSpans", "resource_spans", "resource", "attributes", "scopeSpans", "scope", "spans", "name", "key", "value",
    "traceId", "trace_id", "spanId", "parentSpanId", "startTimeUnixNano", "end_time_unix_nano", "status", "code",
    "stringValue", "string_value", "intValue", "doubleValue", "boolValue", "arrayValue", "kvlistValue", "bytesValue",
)  # fmt: skip
VALUES: Final = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**64), 2**65),
        st.floats(allow_nan=False, allow_infinity=False),
        st.sampled_from(KEYS),
        st.sampled_from(
            ["", " ", "1", "-1", "1.0", "1e3", "NaN", "Infinity", "-Infinity", "9" * 25, "0x1", "s-1", "ab" * 8]
        ),
        st.sampled_from(["STATUS_CODE_ERROR", "STATUS_CODE_OK", "ERROR", "74" * 16, "73" * 8, "7g" * 8]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.sampled_from(MEMBERS), inner, max_size=2)),
    max_leaves=4,
)


def mutate_json(value: Any, draw: Callable[[st.SearchStrategy[Any]], Any]) -> Any:
    """One change to a document, anywhere in its tree."""
    if not value or not isinstance(value, dict | list) or not draw(st.integers(0, 7)):
        return draw(VALUES)
    if isinstance(value, list):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], mutate_json(value[place], draw), *value[place + 1 :]]
    name = draw(st.sampled_from(sorted(value)))
    match draw(st.integers(0, 9)):
        case 0:
            return {member: inner for member, inner in value.items() if member != name}
        case 1:
            return {**value, draw(st.sampled_from(MEMBERS)): draw(VALUES)}
        case _:
            return {**value, name: mutate_json(value[name], draw)}


@settings(max_examples=150)
@given(RECORDS, st.data())
def test_mutated_json_gets_one_verdict(record: Any, data: st.DataObject) -> None:
    document = json.loads(as_json(record))
    for _ in range(data.draw(st.integers(1, 4))):
        document = mutate_json(document, data.draw)
    check_json(json.dumps(document).encode())


# --- memory ----------------------------------------------------------------------------------------------------------


def _within_span(field: bytes) -> bytes:
    return block(1, block(2, block(2, block(1, b"t" * 16) + block(2, b"s" * 8) + field)))


SPAN: Final = block(2, block(1, b"t" * 16) + block(2, b"s" * 8))
DENSE: Final[dict[str, Callable[[int], bytes]]] = {
    "empty resource spans": lambda size: b"\x0a\x00" * (size // 2),
    "empty spans": lambda size: block(1, block(2, b"\x12\x00" * (size // 2))),
    "smallest spans": lambda size: block(1, block(2, SPAN * (size // len(SPAN)))),
    "empty attributes": lambda size: _within_span(b"\x4a\x00" * (size // 2)),
    "one wanted attribute": lambda size: _within_span(
        block(9, block(1, b"session.id") + block(2, block(1, b"x" * size)))
    ),
    "an attribute that is an array of nothing": lambda size: _within_span(
        block(9, block(1, b"session.id") + block(2, block(5, b"\x0a\x00" * (size // 2))))
    ),
    "unusual groups": lambda size: _within_span(b"\x9b\x06\x9c\x06" * (size // 4)),
    "JSON: empty resource spans": lambda size: b'{"resourceSpans":[' + b"{}," * (size // 3) + b"{}]}",
    "JSON: empty spans": lambda size: (
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[' + b"{}," * (size // 3) + b"{}]}]}]}"
    ),
    "JSON: brackets": lambda size: b'{"x":' + b"[" * 500 + b"[]," * (size // 3) + b"0" + b"]" * 500 + b"}",
    "JSON: one text": lambda size: b'{"x":"' + b"\\u0001" * (size // 6) + b'"}',
}
MOST_TIMES: Final = 60
"""Python objects a byte of input at most, in bytes: JSON's empty objects take the most."""


def peak(data: bytes) -> int:
    tracemalloc.start()
    try:
        decode(data, log_ms=LOG_MS, conventions=CONVENTIONS)
    except UndecodableRecord:
        pass
    finally:
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return found


@pytest.mark.parametrize("shape", DENSE)
def test_memory_is_linear_in_the_size_of_a_record(shape: str) -> None:
    small, large = (peak(DENSE[shape](size)) for size in (25_000, 200_000))
    assert large <= 8 * small + 100_000
    assert large <= MOST_TIMES * 200_000
