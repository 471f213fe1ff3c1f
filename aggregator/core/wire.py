"""The fast decoder: walks OTLP protobuf by hand and takes only the wanted attributes.

It knows the shapes that exporters write.  At anything else (a broken or overlong varint, a group, a known field with
another wire type, fields in an unusual order) it raises `Unusual`, and the official parser decides what it is.
It does not look into what it skips: trace state, status message, events, links, unknown fields, the attributes of
scopes, unwanted attributes and the inside of arrays, lists and byte strings.  So it accepts a record whose only fault
is there, such as invalid UTF-8 or a malformed event, which the official parser rejects; what it takes is checked.
"""

from __future__ import annotations

from typing import Final

from librt.strings import read_f64_le
from mypy_extensions import i64

from .conventions import (
    HAZARD_MESSAGES,
    NO_KEY,
    SEVERAL_KEYS,
    Conventions,
    key_slot,
)
from .interpret import finish, put, resource_of, scope_of
from .model import Decoded
from .raw import UNUSABLE, Cache, RawSpan, Resource, Scope
from .wire_format import Unusual, after_field, block, signed_varint, unsigned64, value_start

_MESSAGES: Final = HAZARD_MESSAGES.encode()
_MESSAGES_SIZE: Final[i64] = 19
_STATUS_ERROR: Final[i64] = 2


_CACHED_STRING_BYTES: Final[i64] = 64
_CACHED_STRINGS: Final[i64] = 8192
_CACHED_BLOCKS: Final[i64] = 1024
_CACHED_BLOCK_BYTES: Final[i64] = 4096


def decode_wire(data: bytes, *, log_ms: int, conventions: Conventions) -> Decoded:
    """Decode a record of OTLP protobuf; raises `Unusual` where the official parser has to judge."""
    walk = _Walk(data, log_ms, conventions)
    try:
        walk.record()
    except (IndexError, UnicodeDecodeError) as error:
        raise Unusual from error
    return walk.out


def _no_resource(conventions: Conventions) -> Resource:
    """That of a record which names none, kept like any other: every record begins with it."""
    resources = conventions.cache.resources
    known = resources.get(b"")
    if known is None:
        known = resource_of({}, conventions)
        resources[b""] = known
    return known


def _no_scope(cache: Cache) -> Scope:
    known = cache.scopes.get(b"")
    if known is None:
        known = scope_of("")
        cache.scopes[b""] = known
    return known


class _Walk:
    """The state of walking one record.  Positions are offsets into `data`; a block is data[pos:end]."""

    def __init__(self, data: bytes, log_ms: i64, conventions: Conventions) -> None:
        self.data: bytes = data
        self.log_ms: i64 = log_ms
        self.conventions: Conventions = conventions
        self.cache: Cache = conventions.cache
        self.out: Decoded = Decoded()
        self.codes: dict[bytes, int] = conventions.codes
        self.keys: list[bytes] = conventions.keys
        self.key_slots: list[int] = conventions.key_slots
        self.no_resource: Resource = _no_resource(conventions)
        self.no_scope: Scope = _no_scope(conventions.cache)
        self.raw: RawSpan = RawSpan(len(conventions.roles), self.no_resource, self.no_scope)

    def record(self) -> None:
        """TracesData: 1 resource_spans."""
        data = self.data
        pos: i64 = 0
        end: i64 = len(data)
        while pos < end:
            if data[pos] == 0x0A:
                pos, stop = block(data, pos + 1, end)
                self.resource_spans(pos, stop)
                pos = stop
            else:
                pos = after_field(data, pos, end)

    def resource_spans(self, pos: i64, end: i64) -> None:
        """ResourceSpans: 1 resource, 2 scope_spans, 3 schema_url."""
        data = self.data
        raw = self.raw
        raw.resource = self.no_resource
        state: i64 = 0  # 1 after the resource, 2 after scope spans
        while pos < end:
            tag = data[pos]
            if tag == 0x12:
                pos, stop = block(data, pos + 1, end)
                self.scope_spans(pos, stop)
                pos = stop
                state = 2
            elif tag == 0x0A:
                if state != 0:
                    raise Unusual
                pos, stop = block(data, pos + 1, end)
                raw.resource = self.resource(pos, stop)
                pos = stop
                state = 1
            else:
                pos = after_field(data, pos, end)

    def scope_spans(self, pos: i64, end: i64) -> None:
        """ScopeSpans: 1 scope, 2 spans, 3 schema_url."""
        data = self.data
        raw = self.raw
        raw.scope = self.no_scope
        state: i64 = 0  # 1 after the scope, 2 after spans
        while pos < end:
            tag = data[pos]
            if tag == 0x12:
                pos, stop = block(data, pos + 1, end)
                self.span(pos, stop)
                finish(raw, self.conventions, self.log_ms, self.out)
                pos = stop
                state = 2
            elif tag == 0x0A:
                if state != 0:
                    raise Unusual
                pos, stop = block(data, pos + 1, end)
                raw.scope = self.scope(pos, stop)
                pos = stop
                state = 1
            else:
                pos = after_field(data, pos, end)

    def resource(self, pos: i64, end: i64) -> Resource:
        """Resource: 1 attributes."""
        data = self.data
        content = data[pos:end]
        known = self.cache.resources.get(content)
        if known is not None:
            return known
        wanted = [name.encode() for name in self.conventions.resource_attributes]
        attributes: dict[str, object] = {}
        while pos < end:
            if data[pos] == 0x0A:
                pos, stop = block(data, pos + 1, end)
                first, key_end = block(data, pos + 1, stop)
                value_pos = value_start(data, pos, key_end, stop)
                key = data[first:key_end]
                if key in wanted:
                    attributes[key.decode()] = self.value(value_pos, stop)
                pos = stop
            else:
                pos = after_field(data, pos, end)
        resource = resource_of(attributes, self.conventions)
        if len(content) <= _CACHED_BLOCK_BYTES:
            if len(self.cache.resources) >= _CACHED_BLOCKS:
                self.cache.resources.clear()
            self.cache.resources[content] = resource
        return resource

    def scope(self, pos: i64, end: i64) -> Scope:
        """InstrumentationScope: 1 name, 2 version."""
        data = self.data
        content = data[pos:end]
        known = self.cache.scopes.get(content)
        if known is not None:
            return known
        name = ""
        while pos < end:
            if data[pos] == 0x0A:
                pos, stop = block(data, pos + 1, end)
                name = self.string(pos, stop)
                pos = stop
            else:
                pos = after_field(data, pos, end)
        scope = scope_of(name)
        if len(content) <= _CACHED_BLOCK_BYTES:
            if len(self.cache.scopes) >= _CACHED_BLOCKS:
                self.cache.scopes.clear()
            self.cache.scopes[content] = scope
        return scope

    def span(self, pos: i64, end: i64) -> None:
        """Span: 1 trace_id, 2 span_id, 4 parent_span_id, 5 name, 7 start, 8 end, 9 attributes, 15 status."""
        data = self.data
        raw = self.raw
        raw.begin()
        while pos < end:
            tag = data[pos]
            if tag == 0x4A:
                pos, stop = block(data, pos + 1, end)
                self.attribute(pos, stop)
            elif tag == 0x0A:
                pos, stop = block(data, pos + 1, end)
                raw.trace_id = data[pos:stop]
            elif tag == 0x12:
                pos, stop = block(data, pos + 1, end)
                raw.span_id = data[pos:stop]
            elif tag == 0x22:
                pos, stop = block(data, pos + 1, end)
                raw.parent_id = data[pos:stop]
            elif tag == 0x2A:
                pos, stop = block(data, pos + 1, end)
                raw.name = self.string(pos, stop)
            elif tag == 0x39:
                stop = pos + 9
                raw.start_ns = unsigned64(data, pos + 1, end)
            elif tag == 0x41:
                stop = pos + 9
                raw.end_ns = unsigned64(data, pos + 1, end)
            elif tag == 0x7A:
                pos, stop = block(data, pos + 1, end)
                self.status(pos, stop)
            else:
                stop = after_field(data, pos, end)
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
                pos = after_field(data, pos, end)

    def attribute(self, pos: i64, end: i64) -> None:
        """Take one attribute of a span if it is wanted."""
        data = self.data
        first, key_end = block(data, pos + 1, end)
        value_pos = value_start(data, pos, key_end, end)
        size = key_end - first
        if size == 0:
            return
        code: i64 = self.key_slots[key_slot(size, data[first], data[first + (size >> 1)], data[key_end - 1])]
        if code != NO_KEY:
            key = data[first:key_end]
            if code == SEVERAL_KEYS:
                code = self.codes.get(key, NO_KEY)
            elif self.keys[code] != key:
                code = NO_KEY
            if code != NO_KEY:
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
            return signed_varint(data, pos + 1, end)
        if tag == 0x21 and pos + 9 == end:
            return read_f64_le(data, pos + 1)
        if tag == 0x10 and pos + 2 == end and data[pos + 1] <= 1:
            return data[pos + 1] == 1
        if tag in (0x0A, 0x2A, 0x32, 0x3A):
            pos, stop = block(data, pos + 1, end)
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
