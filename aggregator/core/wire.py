"""The fast decoder: walks OTLP protobuf by hand and takes only the wanted attributes.

It knows the shapes that exporters write.  At anything else (a broken or overlong varint, a group, a known field with
another wire type, fields in an unusual order) it raises `Unusual`, and the official parser decides what it is.
It does not look into what it skips: trace state, status message, events, links, unknown fields, the attributes of
scopes, unwanted attributes and the inside of arrays, lists and byte strings.  So it accepts a record whose only fault
is there, such as invalid UTF-8 or a malformed event, which the official parser rejects; what it takes is checked.
"""

from __future__ import annotations

from typing import Final

from librt.strings import read_f64_le, read_i64_le
from mypy_extensions import i64

from .conventions import HAZARD_MESSAGES, RESOURCE_SESSION_ID, SERVICE, Conventions, key_slot
from .interpret import finish, put, resource_of, scope_of
from .model import Decoded
from .raw import UNUSABLE, Cache, RawSpan, Resource, Scope

_MESSAGES: Final = HAZARD_MESSAGES.encode()
_MESSAGES_SIZE: Final[i64] = 19
_MAX_NS: Final[i64] = 9223372036854775807
_STATUS_ERROR: Final[i64] = 2

# Wire types; a tag is field number * 8 + wire type.
_VARINT: Final[i64] = 0
_FIXED64: Final[i64] = 1
_LEN: Final[i64] = 2
_FIXED32: Final[i64] = 5

_CACHED_STRING_BYTES: Final[i64] = 64
_CACHED_STRINGS: Final[i64] = 8192
_CACHED_BLOCKS: Final[i64] = 1024


class Unusual(Exception):  # noqa: N818  it is no error: the official parser decides
    """The bytes are not laid out as exporters do it."""


def decode_wire(data: bytes, *, log_ms: int, conventions: Conventions) -> Decoded:
    """Decode a record of OTLP protobuf; raises `Unusual` where the official parser has to judge."""
    walk = _Walk(data, log_ms, conventions)
    try:
        walk.record()
    except (IndexError, UnicodeDecodeError) as error:
        raise Unusual from error
    return walk.out


class _Walk:
    """The state of walking one record.  Positions are offsets into `data`; a block is data[pos:end]."""

    def __init__(self, data: bytes, log_ms: i64, conventions: Conventions) -> None:
        self.data: bytes = data
        self.log_ms: i64 = log_ms
        self.conventions: Conventions = conventions
        self.cache: Cache = conventions.cache
        self.out: Decoded = Decoded()
        self.codes: dict[bytes, int] = conventions.codes
        self.key_filter: bytes = conventions.key_filter
        self.no_resource: Resource = resource_of({}, conventions)
        self.no_scope: Scope = scope_of("")
        self.raw: RawSpan = RawSpan(len(conventions.roles), self.no_resource, self.no_scope)

    def record(self) -> None:
        """TracesData: 1 resource_spans."""
        data = self.data
        pos: i64 = 0
        end: i64 = len(data)
        while pos < end:
            if data[pos] == 0x0A:
                pos, stop = _block(data, pos + 1, end)
                self.resource_spans(pos, stop)
                pos = stop
            else:
                pos = _skip(data, pos, end)

    def resource_spans(self, pos: i64, end: i64) -> None:
        """ResourceSpans: 1 resource, 2 scope_spans, 3 schema_url."""
        data = self.data
        raw = self.raw
        raw.resource = self.no_resource
        state: i64 = 0  # 1 after the resource, 2 after scope spans
        while pos < end:
            tag = data[pos]
            if tag == 0x12:
                pos, stop = _block(data, pos + 1, end)
                self.scope_spans(pos, stop)
                pos = stop
                state = 2
            elif tag == 0x0A:
                if state != 0:
                    raise Unusual
                pos, stop = _block(data, pos + 1, end)
                raw.resource = self.resource(pos, stop)
                pos = stop
                state = 1
            else:
                pos = _skip(data, pos, end)

    def scope_spans(self, pos: i64, end: i64) -> None:
        """ScopeSpans: 1 scope, 2 spans, 3 schema_url."""
        data = self.data
        raw = self.raw
        raw.scope = self.no_scope
        state: i64 = 0  # 1 after the scope, 2 after spans
        while pos < end:
            tag = data[pos]
            if tag == 0x12:
                pos, stop = _block(data, pos + 1, end)
                self.span(pos, stop)
                finish(raw, self.conventions, self.log_ms, self.out)
                pos = stop
                state = 2
            elif tag == 0x0A:
                if state != 0:
                    raise Unusual
                pos, stop = _block(data, pos + 1, end)
                raw.scope = self.scope(pos, stop)
                pos = stop
                state = 1
            else:
                pos = _skip(data, pos, end)

    def resource(self, pos: i64, end: i64) -> Resource:
        """Resource: 1 attributes."""
        data = self.data
        block = data[pos:end]
        known = self.cache.resources.get(block)
        if known is not None:
            return known
        wanted = [name.encode() for name in (SERVICE, RESOURCE_SESSION_ID, *self.conventions.project_attributes)]
        attributes: dict[str, object] = {}
        while pos < end:
            if data[pos] == 0x0A:
                pos, stop = _block(data, pos + 1, end)
                first, key_end = _block(data, pos + 1, stop)
                value_pos = _value_start(data, pos, key_end, stop)
                key = data[first:key_end]
                if key in wanted:
                    attributes[key.decode()] = self.value(value_pos, stop)
                pos = stop
            else:
                pos = _skip(data, pos, end)
        resource = resource_of(attributes, self.conventions)
        if len(self.cache.resources) >= _CACHED_BLOCKS:
            self.cache.resources.clear()
        self.cache.resources[block] = resource
        return resource

    def scope(self, pos: i64, end: i64) -> Scope:
        """InstrumentationScope: 1 name, 2 version."""
        data = self.data
        block = data[pos:end]
        known = self.cache.scopes.get(block)
        if known is not None:
            return known
        name = ""
        while pos < end:
            if data[pos] == 0x0A:
                pos, stop = _block(data, pos + 1, end)
                name = self.string(pos, stop)
                pos = stop
            else:
                pos = _skip(data, pos, end)
        scope = scope_of(name)
        if len(self.cache.scopes) >= _CACHED_BLOCKS:
            self.cache.scopes.clear()
        self.cache.scopes[block] = scope
        return scope

    def span(self, pos: i64, end: i64) -> None:
        """Span: 1 trace_id, 2 span_id, 4 parent_span_id, 5 name, 7 start, 8 end, 9 attributes, 15 status."""
        data = self.data
        raw = self.raw
        raw.begin()
        while pos < end:
            tag = data[pos]
            if tag == 0x4A:
                pos, stop = _block(data, pos + 1, end)
                self.attribute(pos, stop)
            elif tag == 0x0A:
                pos, stop = _block(data, pos + 1, end)
                raw.trace_id = data[pos:stop]
            elif tag == 0x12:
                pos, stop = _block(data, pos + 1, end)
                raw.span_id = data[pos:stop]
            elif tag == 0x22:
                pos, stop = _block(data, pos + 1, end)
                raw.parent_id = data[pos:stop]
            elif tag == 0x2A:
                pos, stop = _block(data, pos + 1, end)
                raw.name = self.string(pos, stop)
            elif tag == 0x39:
                stop = pos + 9
                raw.start_ns = _time(data, pos + 1, end)
            elif tag == 0x41:
                stop = pos + 9
                raw.end_ns = _time(data, pos + 1, end)
            elif tag == 0x7A:
                pos, stop = _block(data, pos + 1, end)
                self.status(pos, stop)
            else:
                stop = _skip(data, pos, end)
            pos = stop

    def status(self, pos: i64, end: i64) -> None:
        """Status: 2 message, 3 code."""
        data = self.data
        while pos < end:
            if data[pos] == 0x18:
                if pos + 2 > end or data[pos + 1] >= 0x80:
                    raise Unusual
                self.raw.error = data[pos + 1] == _STATUS_ERROR
                pos += 2
            else:
                pos = _skip(data, pos, end)

    def attribute(self, pos: i64, end: i64) -> None:
        """Take one attribute of a span if it is wanted."""
        data = self.data
        first, key_end = _block(data, pos + 1, end)
        value_pos = _value_start(data, pos, key_end, end)
        size = key_end - first
        if size == 0:
            return
        if self.key_filter[key_slot(size, data[first], data[first + (size >> 1)], data[key_end - 1])]:
            code = self.codes.get(data[first:key_end])
            if code is not None:
                put(self.raw, self.conventions, code, self.value(value_pos, end))
                return
        if (
            not self.raw.messages
            and size >= _MESSAGES_SIZE
            and data[first + 4] == 0x69
            and data[first : first + _MESSAGES_SIZE] == _MESSAGES
        ):
            self.raw.messages = True

    def value(self, pos: i64, end: i64) -> object:
        """AnyValue: 1 string, 2 bool, 3 int, 4 double, 5 array, 6 kvlist, 7 bytes; one of them."""
        if pos == end:
            return None
        data = self.data
        tag = data[pos]
        if tag == 0x18:
            return _integer(data, pos + 1, end)
        if tag == 0x21 and pos + 9 == end:
            return read_f64_le(data, pos + 1)
        if tag == 0x10 and pos + 2 == end and data[pos + 1] <= 1:
            return data[pos + 1] == 1
        if tag in (0x0A, 0x2A, 0x32, 0x3A):
            pos, stop = _block(data, pos + 1, end)
            if stop == end:
                return self.string(pos, end) if tag == 0x0A else UNUSABLE
        raise Unusual

    def string(self, pos: i64, end: i64) -> str:
        """The text of data[pos:end], the same object for bytes that came before."""
        raw = self.data[pos:end]
        if end - pos > _CACHED_STRING_BYTES:
            return raw.decode()
        strings = self.cache.strings
        text = strings.get(raw)
        if text is None:
            text = raw.decode()
            if len(strings) >= _CACHED_STRINGS:
                strings.clear()
            strings[raw] = text
        return text


def _block(data: bytes, pos: i64, end: i64) -> tuple[i64, i64]:
    """(start, end) of the block whose length stands at `pos`; it must end within `end`."""
    size: i64 = data[pos]
    pos += 1
    if size >= 0x80:
        high: i64 = data[pos]
        pos += 1
        size = (size & 0x7F) | (high & 0x7F) << 7
        if high >= 0x80:
            shift: i64 = 14
            while high >= 0x80:
                if shift > 28:
                    raise Unusual
                high = data[pos]
                pos += 1
                size |= (high & 0x7F) << shift
                shift += 7
        if high == 0:
            raise Unusual
    stop = pos + size
    if stop > end:
        raise Unusual
    return pos, stop


def _value_start(data: bytes, pos: i64, key_end: i64, end: i64) -> i64:
    """Where the AnyValue of the KeyValue data[pos:end] starts, whose key ends at `key_end`."""
    if data[pos] != 0x0A:
        raise Unusual
    if key_end == end:
        return end
    if data[key_end] != 0x12:
        raise Unusual
    value_pos, stop = _block(data, key_end + 1, end)
    if stop != end:
        raise Unusual
    return value_pos


def _time(data: bytes, pos: i64, end: i64) -> i64:
    """An unsigned 64-bit time, at most 2**63 - 1."""
    if pos + 8 > end:
        raise Unusual
    return _MAX_NS if data[pos + 7] >= 0x80 else read_i64_le(data, pos)


def _integer(data: bytes, pos: i64, end: i64) -> int:
    """The signed 64-bit varint that fills data[pos:end]."""
    value: i64 = 0
    shift: i64 = 0
    while shift < 63:
        byte: i64 = data[pos]
        pos += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if pos != end or (byte == 0 and shift):
                raise Unusual
            return value
        shift += 7
    if data[pos] != 1 or pos + 1 != end:
        raise Unusual
    return value - _MAX_NS - 1


def _skip(data: bytes, pos: i64, end: i64) -> i64:
    """The end of the field at `pos`, which nothing is read from.

    It may be a known field with another wire type: that is an unknown field to every parser.
    """
    tag: i64 = data[pos]
    pos += 1
    if tag >= 0x80:
        high: i64 = data[pos]
        pos += 1
        if high >= 0x80 or high == 0:
            raise Unusual
        tag = (tag & 0x7F) | high << 7
    if tag < 8:
        raise Unusual
    wire_type: i64 = tag & 7
    if wire_type == _LEN:
        _, pos = _block(data, pos, end)
    elif wire_type == _VARINT:
        pos = _after_varint(data, pos)
    elif wire_type == _FIXED64:
        pos += 8
    elif wire_type == _FIXED32:
        pos += 4
    else:
        raise Unusual
    if pos > end:
        raise Unusual
    return pos


def _after_varint(data: bytes, pos: i64) -> i64:
    """The position after a varint of at most 9 bytes."""
    last = pos + 8
    while data[pos] >= 0x80:
        if pos == last:
            raise Unusual
        pos += 1
    return pos + 1
