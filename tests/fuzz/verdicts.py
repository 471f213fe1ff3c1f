"""What must hold of any bytes, in both encodings: the decoder says what the official parser says.

For protobuf that is the law of `tests/core/test_decode_laws.py`.  For OTLP JSON the official parser is protobuf's own
for JSON, given the document with ids in base64 (OTLP writes them in hex) and without the members that nothing is read
from.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, Final

import orjson
from google.protobuf import json_format
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from aggregator.core.decode import decode, decode_reference
from tests.core.test_decode_laws import CONVENTIONS, RESOURCE_KEYS, check, outcome

_BOM: Final = b"\xef\xbb\xbf"
_UNUSED_VALUES: Final = ("arrayValue", "array_value", "kvlistValue", "kvlist_value", "bytesValue", "bytes_value")
_VALUES: Final = tuple(
    name for kind in ("string", "bool", "int", "double") for name in (f"{kind}Value", f"{kind}_value")
)
_SPAN_KEYS: Final = {key.decode() for key in CONVENTIONS.codes}
_RESOURCE_KEYS: Final = {key.decode() for key in RESOURCE_KEYS}


class LenientReadingError(Exception):
    """The document says something in a way that OTLP does not give, and which the two do not take alike."""


def check_protobuf(data: bytes) -> None:
    """One verdict and the same spans, and nothing but `UndecodableRecord` comes out."""
    check(data)


def check_json(data: bytes) -> None:
    """The same for OTLP JSON, where the official parser can judge."""
    found = outcome(decode, data, encoding="otlp_json")
    outcome(decode, data)
    try:
        expected = _official(data)
    except LenientReadingError:
        return
    assert found == expected, f"{data!r}: {found} instead of {expected}"


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {"protobuf": check_protobuf, "json": check_json}


def _official(data: bytes) -> object:
    try:
        document = orjson.loads(data.removeprefix(_BOM)) if data else {}
    except orjson.JSONDecodeError:
        return None
    if not isinstance(document, dict):
        return None
    message = TracesData()
    try:
        json_format.ParseDict(_record(document), message, ignore_unknown_fields=True, max_recursion_depth=1000)
    except (json_format.ParseError, ValueError):
        return None
    return outcome(decode_reference, message.SerializeToString())


def _member(parent: dict[str, Any], name: str, snake: str) -> Any:
    if parent.get(name) is not None and parent.get(snake) is not None:
        raise LenientReadingError(name)  # the official parser takes neither, we the first
    value = parent.get(name)
    return parent.get(snake) if value is None else value


def _each(values: Any, clean: Callable[[dict[str, Any]], object]) -> Any:
    """The elements, each cleaned; what is no list goes to the official parser as it is."""
    return [_object(value, clean) for value in values] if isinstance(values, list) else values


def _object(value: Any, clean: Callable[[dict[str, Any]], object]) -> object:
    """The official parser takes a text for an object with its letters as unknown members."""
    if not isinstance(value, dict):
        raise json_format.ParseError("no object")
    return clean(value)


def _within(value: Any, clean: Callable[[dict[str, Any]], object]) -> object:
    return None if value is None else _object(value, clean)


def _record(document: dict[str, Any]) -> dict[str, Any]:
    return {"resourceSpans": _each(_member(document, "resourceSpans", "resource_spans"), _resource_spans)}


def _resource_spans(given: dict[str, Any]) -> dict[str, Any]:
    return {
        "resource": _within(given.get("resource"), lambda resource: _with_attributes(resource, _RESOURCE_KEYS)),
        "scopeSpans": _each(_member(given, "scopeSpans", "scope_spans"), _scope_spans),
    }


def _scope_spans(given: dict[str, Any]) -> dict[str, Any]:
    return {
        "scope": _within(given.get("scope"), lambda scope: {"name": scope.get("name")}),
        "spans": _each(given.get("spans"), _span),
    }


def _span(given: dict[str, Any]) -> dict[str, Any]:
    span = _with_attributes(given, _SPAN_KEYS)
    span["name"] = given.get("name")
    for name, snake in (("traceId", "trace_id"), ("spanId", "span_id"), ("parentSpanId", "parent_span_id")):
        span[name] = _id(_member(given, name, snake))
    for name, snake in (
        ("startTimeUnixNano", "start_time_unix_nano"),
        ("endTimeUnixNano", "end_time_unix_nano"),
    ):
        span[name] = _number(_member(given, name, snake))
    span["status"] = _within(given.get("status"), lambda status: {"code": _code(status.get("code"))})
    return span


def _id(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        raw = bytes.fromhex(value)
    except ValueError:
        raw = b""  # an id of no bytes: its span is dropped, the record is not
    if len(value) != 2 * len(raw):  # blanks in between
        raw = b""
    return base64.b64encode(raw).decode()


def _number(value: Any) -> Any:
    if isinstance(value, str) and (value != value.strip() or "_" in value or value[:1] == "+"):
        raise LenientReadingError(value)
    return value


def _code(value: Any) -> Any:
    if isinstance(value, float) and not value.is_integer():
        raise LenientReadingError(str(value))  # the official parser cuts it off, we refuse it
    if isinstance(value, str) and not value.startswith("STATUS_CODE_"):
        return 0  # an unknown name is no error
    if isinstance(value, int) and not isinstance(value, bool) and value not in range(3):
        return 0
    return value


def _with_attributes(given: dict[str, Any], wanted: set[str]) -> dict[str, Any]:
    def kept(attribute: Any) -> bool:
        key = attribute.get("key") if isinstance(attribute, dict) else 0
        if key is None:
            return False
        return not isinstance(key, str) or key in wanted or key.startswith("llm.input_messages.")

    attributes = given.get("attributes")
    if isinstance(attributes, list):
        attributes = [attribute for attribute in attributes if kept(attribute)]
    return {"attributes": _each(attributes, _attribute)}


def _attribute(given: dict[str, Any]) -> dict[str, Any]:
    key = given.get("key")
    hazard = isinstance(key, str) and key.startswith("llm.input_messages.")
    return {"key": key, "value": {} if hazard else _within(given.get("value"), _any_value)}


def _any_value(given: dict[str, Any]) -> dict[str, Any]:
    known = {
        name: value
        for name, value in given.items()
        if value is not None and (name in _UNUSED_VALUES or name in _VALUES)
    }
    if len(known) > 1:
        raise LenientReadingError("two values")  # the official parser takes none, we the first
    for name, value in known.items():
        if name in _UNUSED_VALUES:
            return {"bytesValue": ""}
        if name in ("intValue", "int_value", "doubleValue", "double_value"):
            _number(value)
    return known
