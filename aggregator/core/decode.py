"""Bytes in, spans out: the one door to decoding.

Protobuf goes through the fast decoder (`wire`); what that finds unusual goes through the official parser
(`reference`), whose verdict counts.  The two differ in one point: the fast one does not look into what it skips (see
`wire`), so a record whose only fault is there, such as invalid UTF-8 in an attribute that nothing reads, is accepted.
"""

from __future__ import annotations

from .conventions import Conventions
from .decode_json import decode_json
from .errors import UndecodableRecord
from .model import Decoded
from .reference import decode_reference
from .wire import decode_wire
from .wire_format import Unusual

__all__ = ["ENCODINGS", "decode", "decode_protobuf", "decode_reference"]

ENCODINGS = ("auto", "otlp_proto", "otlp_json")

_BOM = b"\xef\xbb\xbf"
_BLANKS = b" \t\r\n"


def decode(data: bytes, *, log_ms: int, conventions: Conventions, encoding: str = "auto") -> Decoded:
    """Decode one record, an OTLP `TracesData` or `ExportTraceServiceRequest`, not compressed.

    `log_ms` is the record's log time: span times more than 24 h after it are not believed.
    `encoding` is one of `ENCODINGS`; `auto` takes for JSON what begins with `{` after an optional BOM or blanks, but
    a line feed is also protobuf's commonest first byte, so there protobuf is tried first.
    No bytes are a record with nothing in it.

    Raises `UndecodableRecord` with one of the reasons `not_protobuf`, `not_json`, `not_an_object` (JSON, but another
    value) and `wrong_type` (a JSON member that OTLP does not allow); `ValueError` for an unknown encoding.
    """
    if encoding == "otlp_proto":
        return decode_protobuf(data, log_ms=log_ms, conventions=conventions)
    if encoding == "otlp_json":
        return decode_json(data, log_ms=log_ms, conventions=conventions)
    if encoding != "auto":
        raise ValueError(f"encoding is {encoding!r}, not one of {', '.join(ENCODINGS)}")
    if data.startswith(b"\n"):
        try:
            return decode_protobuf(data, log_ms=log_ms, conventions=conventions)
        except UndecodableRecord:
            if not _looks_like_json(data):
                raise
    if _looks_like_json(data):
        return decode_json(data, log_ms=log_ms, conventions=conventions)
    return decode_protobuf(data, log_ms=log_ms, conventions=conventions)


def _looks_like_json(data: bytes) -> bool:
    pos = 3 if data.startswith(_BOM) else 0
    while pos < len(data) and data[pos] in _BLANKS:
        pos += 1
    return data[pos : pos + 1] == b"{"


def decode_protobuf(data: bytes, *, log_ms: int, conventions: Conventions) -> Decoded:
    """Decode a record of OTLP protobuf, fast where it is laid out as exporters do it."""
    try:
        return decode_wire(data, log_ms=log_ms, conventions=conventions)
    except Unusual:
        return decode_reference(data, log_ms=log_ms, conventions=conventions)
