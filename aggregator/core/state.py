"""The trace state: the distinct spans of one trace, and the bytes in which it lies in Redis.

The encoding is private to this program, and to one version of it: whoever changes the layout counts `_FORMAT` up.  Only
the stamp and the first byte, the format, stay as they are for ever, since a worker of another version knows by them
that it meets a sound state which it can't read.

Layout (integers are LEB128 varints, texts are indexes into one table):

    format, flags, replacements, changed_ms, its distance from born_ms, base start_us,
    number of texts, (length, UTF-8)...,
    claim (0, or 1 project session), number of former sessions, (project session)...,
    number of spans, then per span: presence bits, span id, [parent], times relative to the base, and what the
    presence bits announce

A parent is 1 + its place among the spans, or 0 and its id where the trace has no such span (yet).  Service, scope,
project, claim and user are mostly those of the span before, which takes one bit.
The commonest span (no usage, no claim) takes some 20 bytes.

Beside the bytes goes their stamp, by which compare-and-set tells states apart: `<distinct spans>.<replacements>.<CRC-32
of the bytes in hex>`.  The first two are the version.  It alone would not do: where a store has lost states, two
workers reach the same version by different spans, and one would overwrite what the other stored.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

from librt.strings import BytesWriter
from mypy_extensions import i64, u8

from aggregator.core.errors import CorruptState, OtherVersion
from aggregator.core.model import NO_CLAIM, NO_COST, SessionRef, Span

_FORMAT: Final = 4
_VERSION_SHIFT: Final = 32
_MAX_REPLACEMENTS: Final = 2**32 - 1
_LONGEST_STAMP: Final = 7 + 1 + 10 + 1 + 8  # a million spans, _MAX_REPLACEMENTS and the checksum
_LOWER_BITS: Final = 20
_LOWER: Final = 2**_LOWER_BITS - 1
_MOST_TOKENS: Final = 2**33  # of a span: the sum over MAX_TRACE_SPANS stays in the exact range of a double
MAX_TRACE_SPANS: Final = 1_000_000
"""Above this a version would leave the exact range of a double."""
_MAX_FORMER: Final = 16

ERASED_STAMP: Final = b"erased"
"""Stands, without a state, where a trace was whose session has been erased: nothing is stored there any more."""

_ERROR: Final = 1
_CLASS_SHIFT: Final = 1  # three bits
_PARENT: Final = 1 << 4
_SAME: Final = 1 << 5  # origin, claim and user as in the span before; no other bit announces them then
_MODEL: Final = 1 << 6
_PROVIDER: Final = 1 << 7
_TOKENS: Final = 1 << 8
_WRITTEN: Final = 1 << 9  # the written figures differ from the normalised ones
_DETAILS: Final = 1 << 10
_EMBEDDING: Final = 1 << 11
_COST: Final = 1 << 12
_CLAIM: Final = 1 << 13
_USER: Final = 1 << 14


class TraceState:
    """All that is known of one trace.

    `claim` and `former` are what the last encoding stored: the session of the trace, and those it has left, which
    hold tombstones.  `stored_stamp` is that of the state that Redis is believed to have, empty for none.
    `born_ms` is the log time at which it was begun without a stored one: two states of one trace that were begun at
    different times may hold different spans under one version.
    """

    __slots__ = (
        "born_ms",
        "changed_ms",
        "claim",
        "former",
        "replacements",
        "spans",
        "stored_stamp",
        "trace_id",
        "truncated",
    )

    def __init__(self, trace_id: bytes) -> None:
        self.trace_id: bytes = trace_id
        self.spans: dict[bytes, Span] = {}
        self.replacements: i64 = 0
        self.born_ms: i64 = 0
        self.changed_ms: i64 = 0
        self.truncated: bool = False
        self.claim: SessionRef | None = None
        self.former: list[SessionRef] = []
        self.stored_stamp: bytes = b""

    def version(self) -> i64:
        """(distinct spans, replacements) as one number below 2**53; 0 only for a trace without spans."""
        return (len(self.spans) << _VERSION_SHIFT) + self.replacements

    def contents(self) -> tuple[i64, i64, i64]:
        """Upper and lower halves of the ends, and the tokens, summed over the spans: they tell newer from older.

        A span is replaced by one that ends later, or then by one of more tokens, and each sum takes part of that
        order.  So of two states of as many spans, of which one has all that the other has, it is the one with the
        greater contents, compared in this order, by whatever way the two came about.
        """
        upper: i64 = 0
        lower: i64 = 0
        tokens: i64 = 0
        for span in self.spans.values():
            upper += span.end_us >> _LOWER_BITS
            lower += span.end_us & _LOWER
            tokens += min(span.prompt_tokens + span.completion_tokens + span.embedding_tokens, _MOST_TOKENS)
        return upper, lower, tokens

    def replaced(self) -> None:
        """Count one replacement; saturates, which only a producer gone mad can reach."""
        if self.replacements < _MAX_REPLACEMENTS:
            self.replacements += 1

    def move_to(self, claim: SessionRef | None) -> None:
        """Set the session that the trace belongs to and remember the one it leaves.

        The oldest of many former sessions is forgotten: its tombstone was written when the trace left it.
        """
        old = self.claim
        if claim == old:
            return
        self.claim = claim
        if claim is not None and claim in self.former:
            self.former.remove(claim)
        if old is not None:
            self.leave(old)

    def leave(self, ref: SessionRef) -> None:
        """Remember a session that the trace does not belong to, though it may be shown there."""
        if ref not in self.former:
            self.former.append(ref)
            if len(self.former) > _MAX_FORMER:
                del self.former[0]


def _write_varint(out: BytesWriter, value: i64) -> None:
    while value > 127:
        out.append(u8((value & 127) | 128))
        value >>= 7
    out.append(u8(value))


def _write_time(out: BytesWriter, time_us: i64, base_us: i64) -> None:
    """0 for unknown, else 1 + the zigzag of the distance."""
    if time_us == 0:
        out.append(u8(0))
    else:
        distance: i64 = time_us - base_us
        _write_varint(out, ((distance << 1) ^ (distance >> 63)) + 1)


class _Texts:
    """The table of texts; an index is given at a text's first use."""

    __slots__ = ("index", "out")

    def __init__(self) -> None:
        self.index: dict[str, int] = {}
        self.out: BytesWriter = BytesWriter()

    def write(self, out: BytesWriter, text: str) -> None:
        known = self.index.get(text)
        if known is None:
            known = len(self.index)
            self.index[text] = known
            data = text.encode()
            _write_varint(self.out, len(data))
            self.out.write(data)
        _write_varint(out, known)


def _presence(span: Span, before: Span | None) -> i64:
    bits: i64 = span.span_class << _CLASS_SHIFT
    if span.error:
        bits |= _ERROR
    if span.parent_id:
        bits |= _PARENT
    if before is not None and _same_origin(span, before):
        bits |= _SAME
    else:
        if span.claim_row != NO_CLAIM:
            bits |= _CLAIM
        if span.user_id:
            bits |= _USER
    if span.model:
        bits |= _MODEL
    if span.provider:
        bits |= _PROVIDER
    if span.prompt_tokens | span.completion_tokens:
        bits |= _TOKENS
    if span.written_prompt_tokens != span.prompt_tokens or span.written_completion_tokens != span.completion_tokens:
        bits |= _WRITTEN
    if span.cache_read_tokens | span.cache_write_tokens | span.reasoning_tokens:
        bits |= _DETAILS
    if span.embedding_tokens:
        bits |= _EMBEDDING
    if span.cost_nano != NO_COST:
        bits |= _COST
    return bits


def _same_origin(span: Span, before: Span) -> bool:
    return (
        span.service == before.service
        and span.scope == before.scope
        and span.project == before.project
        and span.claim_row == before.claim_row
        and span.claim_session_id == before.claim_session_id
        and span.user_id == before.user_id
    )


def _write_span(
    out: BytesWriter, texts: _Texts, span: Span, before: Span | None, base_us: i64, places: dict[bytes, int]
) -> None:
    bits = _presence(span, before)
    _write_varint(out, bits)
    out.write(span.span_id)
    if bits & _PARENT:
        place = places.get(span.parent_id, 0)
        _write_varint(out, place)
        if place == 0:
            out.write(span.parent_id)
    _write_time(out, span.start_us, base_us)
    _write_time(out, span.end_us, span.start_us or base_us)
    texts.write(out, span.name)
    if not bits & _SAME:
        texts.write(out, span.service)
        texts.write(out, span.scope)
        texts.write(out, span.project)
    if bits & _CLAIM:
        _write_varint(out, span.claim_row)
        texts.write(out, span.claim_session_id)
    if bits & _USER:
        texts.write(out, span.user_id)
    _write_usage(out, texts, span, bits)


def _write_usage(out: BytesWriter, texts: _Texts, span: Span, bits: i64) -> None:
    if bits & _MODEL:
        texts.write(out, span.model)
    if bits & _PROVIDER:
        texts.write(out, span.provider)
    if bits & _TOKENS:
        _write_varint(out, span.prompt_tokens)
        _write_varint(out, span.completion_tokens)
    if bits & _WRITTEN:
        _write_varint(out, span.written_prompt_tokens)
        _write_varint(out, span.written_completion_tokens)
    if bits & _DETAILS:
        _write_varint(out, span.cache_read_tokens)
        _write_varint(out, span.cache_write_tokens)
        _write_varint(out, span.reasoning_tokens)
    if bits & _EMBEDDING:
        _write_varint(out, span.embedding_tokens)
    if bits & _COST:
        _write_varint(out, span.cost_nano)


def encode_state(state: TraceState) -> bytes:
    """The bytes of a state; `decode_state` gives it back."""
    base_us: i64 = 0
    places: dict[bytes, int] = {}
    for span in state.spans.values():
        if not places:
            base_us = span.start_us
        places[span.span_id] = len(places) + 1
    texts = _Texts()
    body = BytesWriter()
    claim = state.claim
    if claim is None:
        body.append(u8(0))
    else:
        body.append(u8(1))
        texts.write(body, claim.project)
        texts.write(body, claim.session_id)
    _write_varint(body, len(state.former))
    for ref in state.former:
        texts.write(body, ref.project)
        texts.write(body, ref.session_id)
    _write_varint(body, len(state.spans))
    before: Span | None = None
    for span in state.spans.values():
        _write_span(body, texts, span, before, base_us, places)
        before = span

    out = BytesWriter()
    out.append(u8(_FORMAT))
    out.append(u8(1 if state.truncated else 0))
    _write_varint(out, state.replacements)
    _write_varint(out, state.changed_ms)
    _write_varint(out, state.changed_ms - state.born_ms)
    _write_varint(out, base_us)
    _write_varint(out, len(texts.index))
    out.write(texts.out.getvalue())
    out.write(body.getvalue())
    return out.getvalue()


def stamp_of(version: i64, encoded: bytes) -> bytes:
    """The stamp of an encoded state."""
    return f"{version >> _VERSION_SHIFT}.{version & _MAX_REPLACEMENTS}.{crc32(encoded):08x}".encode()


def stamped_version(stamp: bytes) -> int:
    """The version that a stamp names, 0 for none; what is no stamp raises ValueError."""
    if not stamp:
        return 0
    spans, replacements, checksum = stamp.split(b".")
    if len(checksum) != 8 or len(stamp) > _LONGEST_STAMP:  # compiled code takes no number of more than 64 bits
        raise ValueError(f"not a stamp: {stamp!r}")
    return (int(spans) << _VERSION_SHIFT) + int(replacements)


class _Reader:
    """Reads what the writers above wrote; anything else raises IndexError or ValueError."""

    __slots__ = ("children", "data", "position", "texts")

    def __init__(self, data: bytes) -> None:
        self.data: bytes = data
        self.position: i64 = 0
        self.texts: list[str] = []
        self.children: list[tuple[Span, int]] = []  # with the place of their parent, which may come behind them

    def varint(self) -> i64:
        value: i64 = 0
        shift: i64 = 0
        while True:
            byte: i64 = self.data[self.position]
            self.position += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("a number has no end")

    def take(self, size: i64) -> bytes:
        end = self.position + size
        if size < 0 or end > len(self.data):
            raise ValueError("cut short")
        part = self.data[self.position : end]
        self.position = end
        return part

    def text(self) -> str:
        return self.texts[self.varint()]

    def time_us(self, base_us: i64) -> i64:
        raw = self.varint()
        if raw == 0:
            return 0
        raw -= 1
        return base_us + ((raw >> 1) ^ -(raw & 1))

    def ref(self) -> SessionRef:
        project = self.text()
        return SessionRef(project, self.text())


def _read_span(reader: _Reader, trace_id: bytes, before: Span | None, base_us: i64) -> Span:
    bits = reader.varint()
    span = Span(trace_id=trace_id, span_id=reader.take(8))
    span.span_class = (bits >> _CLASS_SHIFT) & 7
    span.error = bits & _ERROR != 0
    if bits & _PARENT:
        place = reader.varint()
        if place == 0:
            span.parent_id = reader.take(8)
        else:
            reader.children.append((span, place))
    span.start_us = reader.time_us(base_us)
    span.end_us = reader.time_us(span.start_us or base_us)
    span.name = reader.text()
    if bits & _SAME:
        if before is None:
            raise ValueError("the first span refers to one before it")
        span.service = before.service
        span.scope = before.scope
        span.project = before.project
        span.claim_row = before.claim_row
        span.claim_session_id = before.claim_session_id
        span.user_id = before.user_id
    else:
        span.service = reader.text()
        span.scope = reader.text()
        span.project = reader.text()
    if bits & _CLAIM:
        span.claim_row = reader.varint()
        span.claim_session_id = reader.text()
    if bits & _USER:
        span.user_id = reader.text()
    _read_usage(reader, span, bits)
    return span


def _read_usage(reader: _Reader, span: Span, bits: i64) -> None:
    if bits & _MODEL:
        span.model = reader.text()
    if bits & _PROVIDER:
        span.provider = reader.text()
    if bits & _TOKENS:
        span.prompt_tokens = reader.varint()
        span.completion_tokens = reader.varint()
    span.written_prompt_tokens = reader.varint() if bits & _WRITTEN else span.prompt_tokens
    span.written_completion_tokens = reader.varint() if bits & _WRITTEN else span.completion_tokens
    if bits & _DETAILS:
        span.cache_read_tokens = reader.varint()
        span.cache_write_tokens = reader.varint()
        span.reasoning_tokens = reader.varint()
    if bits & _EMBEDDING:
        span.embedding_tokens = reader.varint()
    if bits & _COST:
        span.cost_nano = reader.varint()


def _read_state(trace_id: bytes, data: bytes) -> TraceState:
    reader = _Reader(data)
    if reader.varint() != _FORMAT:
        raise ValueError("written in a format that this version does not know")
    state = TraceState(trace_id)
    state.truncated = reader.varint() == 1
    state.replacements = reader.varint()
    state.changed_ms = reader.varint()
    state.born_ms = state.changed_ms - reader.varint()
    base_us = reader.varint()
    for _ in range(reader.varint()):
        reader.texts.append(reader.take(reader.varint()).decode())
    if reader.varint():
        state.claim = reader.ref()
    for _ in range(reader.varint()):
        state.former.append(reader.ref())
    before: Span | None = None
    for _ in range(reader.varint()):
        before = _read_span(reader, trace_id, before, base_us)
        state.spans[before.span_id] = before
    span_ids = list(state.spans)
    for child, place in reader.children:
        if not 0 < place <= len(span_ids):
            raise ValueError("a parent is not among the spans")
        child.parent_id = span_ids[place - 1]
    if reader.position != len(data):
        raise ValueError("goes on behind its end")
    return state


def decode_state(trace_id: bytes, stamp: bytes, data: bytes) -> TraceState:
    """A state as it was encoded.

    Raises `OtherVersion` for one in another format, `CorruptState` for bytes that no version has written.
    """
    if data and data[0] != _FORMAT and stamp.endswith(b".%08x" % crc32(data)):
        raise OtherVersion(f"the state of trace {trace_id.hex()}, in format {data[0]} instead of {_FORMAT},")
    try:
        state = _read_state(trace_id, data)
    except (IndexError, ValueError) as error:
        raise CorruptState(f"the state of trace {trace_id.hex()} can't be read: {error}") from error
    if stamp_of(state.version(), data) != stamp:
        raise CorruptState(f"the state of trace {trace_id.hex()} does not match its stamp {stamp!r}")
    state.stored_stamp = stamp
    return state
