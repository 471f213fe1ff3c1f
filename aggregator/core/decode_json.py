"""OTLP JSON: the protobuf JSON mapping, but with ids in hex, and enums and 64-bit integers as number or text.

Names are lowerCamelCase, the original snake_case is taken too; unknown members are ignored and null means absent.
Members that nothing is read from are not looked at.
"""

from __future__ import annotations

import re
from typing import Final

import orjson

from .conventions import HAZARD_MESSAGES, Conventions
from .errors import UndecodableRecord
from .interpret import finish, put, resource_of, scope_of
from .model import Decoded
from .raw import UNUSABLE, RawSpan, Resource

NOT_JSON: Final = "not_json"
NOT_AN_OBJECT: Final = "not_an_object"
WRONG_TYPE: Final = "wrong_type"

Object = dict[str, object]

_BOM: Final = b"\xef\xbb\xbf"
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,20}", re.ASCII)
_MAX_NS: Final = 2**63 - 1
_STATUS_ERROR: Final = (2, "STATUS_CODE_ERROR")


def decode_json(data: bytes, *, log_ms: int, conventions: Conventions) -> Decoded:
    """Decode a record of OTLP JSON.

    Raises `UndecodableRecord` with reason `not_json`, `not_an_object`, or `wrong_type` where a member that is read
    has a type that OTLP does not allow.
    """
    out = Decoded()
    if not data:
        return out
    try:
        document = orjson.loads(data[3:] if data.startswith(_BOM) else data)
    except orjson.JSONDecodeError as error:
        raise UndecodableRecord(NOT_JSON, str(error)) from error
    if not isinstance(document, dict):
        raise UndecodableRecord(NOT_AN_OBJECT, f"the JSON text is {type(document).__name__}, not an object")
    raw: RawSpan | None = None
    for resource_spans in _objects(document, "resourceSpans", "resource_spans"):
        resource = _resource(_object(resource_spans, "resource"), conventions)
        for scope_spans in _objects(resource_spans, "scopeSpans", "scope_spans"):
            scope = scope_of(_text(_object(scope_spans, "scope"), "name"))
            if raw is None:
                raw = RawSpan(len(conventions.roles), resource, scope)
            raw.resource = resource
            raw.scope = scope
            for span in _objects(scope_spans, "spans"):
                _read(span, raw, conventions)
                finish(raw, conventions, log_ms, out)
    return out


def _resource(resource: Object, conventions: Conventions) -> Resource:
    attributes: dict[str, object] = {}
    for attribute in _objects(resource, "attributes"):
        key = _text(attribute, "key")
        if key in conventions.resource_attributes:
            attributes[key] = _value(_object(attribute, "value"))
    return resource_of(attributes, conventions)


def _read(span: Object, raw: RawSpan, conventions: Conventions) -> None:
    raw.begin()
    raw.trace_id = _id(span, "traceId", "trace_id")
    raw.span_id = _id(span, "spanId", "span_id")
    raw.parent_id = _id(span, "parentSpanId", "parent_span_id")
    raw.name = _text(span, "name")
    raw.start_ns = min(
        _integer(_member(span, "startTimeUnixNano", "start_time_unix_nano"), "startTimeUnixNano"), _MAX_NS
    )
    raw.end_ns = min(_integer(_member(span, "endTimeUnixNano", "end_time_unix_nano"), "endTimeUnixNano"), _MAX_NS)
    raw.error = _is_error(_object(span, "status").get("code"))
    for attribute in _objects(span, "attributes"):
        key = _text(attribute, "key")
        code = conventions.names.get(key)
        if code is not None:
            put(raw, conventions, code, _value(_object(attribute, "value")))
        elif key.startswith(HAZARD_MESSAGES):
            raw.messages = True


def _wrong(name: str, value: object, wanted: str) -> UndecodableRecord:
    # The value is not quoted: it may be what somebody said, and this is logged.
    return UndecodableRecord(WRONG_TYPE, f"{name} is {type(value).__name__}, wanted {wanted}")


def _member(parent: Object, name: str, snake: str = "") -> object:
    value = parent.get(name)
    return parent.get(snake) if value is None and snake else value


def _object(parent: Object, name: str) -> Object:
    value = parent.get(name)
    if value is None:
        return {}
    if isinstance(value, dict):
        return value
    raise _wrong(name, value, "an object")


def _objects(parent: Object, name: str, snake: str = "") -> list[Object]:
    value = _member(parent, name, snake)
    if value is None:
        return []
    if not isinstance(value, list):
        raise _wrong(name, value, "a list")
    for element in value:
        if not isinstance(element, dict):
            raise _wrong(f"an element of {name}", element, "an object")
    return value


def _text(parent: Object, name: str, snake: str = "") -> str:
    value = _member(parent, name, snake)
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    raise _wrong(name, value, "text")


def _id(span: Object, name: str, snake: str) -> bytes:
    """The bytes of an id in hex, in either case; what is no hex is as bad as an id of no bytes."""
    text = _text(span, name, snake)
    try:
        return bytes.fromhex(text) if text.isalnum() else b""
    except ValueError:
        return b""


def _integer(value: object, name: str, least: int = 0, most: int = 2**64 - 1) -> int:
    """An integer given as number or decimal text, 0 where it is absent."""
    if value is None:
        return 0
    number: int | None = None
    if isinstance(value, str):
        number = int(value) if _INTEGER.fullmatch(value) is not None else None
    elif isinstance(value, float):
        number = int(value) if value.is_integer() else None
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    if number is None or not least <= number <= most:
        raise _wrong(name, value, f"an integer from {least} to {most}")
    return number


def _double(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
    raise _wrong("doubleValue", value, "a number")


def _is_error(code: object) -> bool:
    if isinstance(code, float) and code.is_integer():
        code = int(code)
    if code is None or (isinstance(code, int | str) and not isinstance(code, bool)):
        return code in _STATUS_ERROR
    raise _wrong("code", code, "a status code")


def _value(value: Object) -> object:
    """The Python value of an `AnyValue`: None where it is empty, `UNUSABLE` for what nothing is read from."""
    for name, member in value.items():
        if member is None:
            continue
        if name in ("stringValue", "string_value"):
            return _text(value, name)
        if name in ("boolValue", "bool_value"):
            if isinstance(member, bool):
                return member
            raise _wrong(name, member, "true or false")
        if name in ("intValue", "int_value"):
            return _integer(member, name, -(2**63), 2**63 - 1)
        if name in ("doubleValue", "double_value"):
            return _double(member)
        if name in ("arrayValue", "array_value", "kvlistValue", "kvlist_value", "bytesValue", "bytes_value"):
            return UNUSABLE
    return None
