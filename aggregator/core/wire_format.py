"""Protobuf's wire format, as far as exporters use it.

Positions are offsets into `data`.  Whatever these functions do not know raises `Unusual`, or `IndexError` where the
data ends too early: then the official parser judges.
"""

from __future__ import annotations

from typing import Final

from librt.strings import read_i64_le
from mypy_extensions import i64

_MAX_I64: Final[i64] = 9223372036854775807

# Wire types; a tag is field number * 8 + wire type.
_VARINT: Final[i64] = 0
_FIXED64: Final[i64] = 1
_LEN: Final[i64] = 2
_FIXED32: Final[i64] = 5


class Unusual(Exception):
    """The bytes are not laid out as exporters do it."""


def block(data: bytes, pos: i64, end: i64) -> tuple[i64, i64]:
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


def value_start(data: bytes, pos: i64, key_end: i64, end: i64) -> i64:
    """Where the AnyValue of the KeyValue data[pos:end] starts, whose key ends at `key_end`."""
    if data[pos] != 0x0A:
        raise Unusual
    if key_end == end:
        return end
    if data[key_end] != 0x12:
        raise Unusual
    value_pos, stop = block(data, key_end + 1, end)
    if stop != end:
        raise Unusual
    return value_pos


def unsigned64(data: bytes, pos: i64, end: i64) -> i64:
    """An unsigned 64-bit time, at most 2**63 - 1."""
    if pos + 8 > end:
        raise Unusual
    return _MAX_I64 if data[pos + 7] >= 0x80 else read_i64_le(data, pos)


def signed_varint(data: bytes, pos: i64, end: i64) -> int:
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
    return value - _MAX_I64 - 1


def after_field(data: bytes, pos: i64, end: i64) -> i64:
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
        _, pos = block(data, pos, end)
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
