"""How far compressed batches may inflate, since aiokafka unpacks whatever a batch promises.

A batch of 1 MiB may hold 255 MiB in lz4, 1 GiB in gzip and 32 GiB in zstd, and a header that says how much can lie.  So
a batch is unpacked, once, into a buffer of bounded size, and what does not fit ends there.
aiokafka's batches find their codecs by names in their modules.  These are replaced here, for all of the process, by
ones that are bounded within `Inflation.bounded` and aiokafka's own outside of it.
"""

from __future__ import annotations

import gzip
import mmap
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from io import BytesIO
from typing import Any, Final

import cramjam
from aiokafka.codec import _detect_xerial_stream, snappy_decode
from aiokafka.util import NO_EXTENSIONS

_KEPT_BYTES: Final = 8 * 1024 * 1024  # of the buffer, from one batch to the next
_GZIP: Final = zlib.MAX_WBITS | 16
_XERIAL_BLOCKS_AT: Final = 16


class InflatesTooFarError(Exception):
    """One batch alone is larger than may be, once it is unpacked."""


class NoRoomLeftError(Exception):
    """A batch does not fit beside those that were unpacked before it; alone it may."""


class Inflation:
    """What may be unpacked at once: `limit_bytes` by all batches within one `bounded`.

    Memory: a buffer of `limit_bytes`, of which 8 MiB at most stay in use, and the bytes that are given back.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._spent_bytes = 0
        self._together = True
        self._buffer: mmap.mmap | None = None

    @contextmanager
    def bounded(self, *, together: bool = True) -> Iterator[None]:
        """Bound what is unpacked inside, by whomever; nothing else may run meanwhile.

        Not `together`: each batch alone, where none outlives the next (as when a single record is looked for).
        """
        global _current  # the codecs have no other way to know
        self._spent_bytes, self._together = 0, together
        before, _current = _current, self
        try:
            yield
        finally:
            _current = before

    def inflated(self, codec: str, payload: bytes | memoryview) -> bytes:
        """A batch's records; raises `InflatesTooFarError`, `NoRoomLeftError`, and the codec's errors."""
        room = self._limit_bytes - self._spent_bytes
        if codec == "gzip":
            data = _gunzipped(payload, room)
        elif codec == "snappy":
            data = snappy_decode(payload) if _snappy_bytes(memoryview(payload)) <= room else None
        else:
            data = self._through_buffer(_DECOMPRESS_INTO[codec], payload, room)
        if data is None:
            if self._spent_bytes:
                raise NoRoomLeftError
            raise InflatesTooFarError(
                f"{codec} inflates {len(payload)} bytes to more than {self._limit_bytes} "
                "(AGGREGATOR_INGEST__MAX_INFLATED_BYTES)"
            )
        if self._together:
            self._spent_bytes += len(data)
        return data

    def _through_buffer(
        self, decompress_into: Callable[[Any, Any], int], payload: bytes | memoryview, room: int
    ) -> bytes | None:
        """None where there is no room; pages of the buffer that nothing is written to cost nothing."""
        buffer = self._buffer or mmap.mmap(-1, self._limit_bytes, mmap.MAP_PRIVATE)
        self._buffer = None
        used = room
        try:
            with memoryview(buffer)[:room] as space:
                used = decompress_into(payload, space)
            return buffer[:used]
        except cramjam.DecompressionError as error:
            if "write whole buffer" in str(error):
                return None
            raise
        finally:
            if used <= _KEPT_BYTES:
                self._buffer = buffer
            else:
                buffer.close()


def _gunzipped(payload: bytes | memoryview, room: int) -> bytes | None:
    member = zlib.decompressobj(_GZIP)
    data = member.decompress(payload, room + 1)
    if len(data) <= room and (member.unused_data or not member.eof):  # more members, zeros behind them, or too short
        with gzip.GzipFile(fileobj=BytesIO(payload)) as file:
            data = file.read(room + 1)
    return data if len(data) <= room else None


def _snappy_bytes(payload: memoryview) -> int:
    """Snappy says first how much it will be, and does not go beyond that; so does each block of Java's framing."""
    if not _detect_xerial_stream(payload):
        return int(cramjam.snappy.decompress_raw_len(payload))
    at, total = _XERIAL_BLOCKS_AT, 0
    while at < len(payload):
        end = at + 4 + int.from_bytes(payload[at : at + 4], "big")
        total += cramjam.snappy.decompress_raw_len(payload[at + 4 : end])
        at = end
    return total


_DECOMPRESS_INTO: Final[dict[str, Callable[[Any, Any], int]]] = {
    "lz4": cramjam.lz4.decompress_into,
    "zstd": cramjam.zstd.decompress_into,
}
_MODULES: Final = ("aiokafka.record.default_records", "aiokafka.record.legacy_records") + (
    () if NO_EXTENSIONS else ("aiokafka.record._crecords.default_records", "aiokafka.record._crecords.legacy_records")
)
_current: Inflation | None = None


def _decode(codec: str, unbounded: Callable[[Any], bytes], payload: bytes | memoryview) -> bytes:
    return unbounded(payload) if _current is None else _current.inflated(codec, payload)


def _install() -> None:
    for module in map(import_module, _MODULES):
        for codec in ("gzip", "snappy", "lz4", "zstd"):
            name = f"{codec}_decode"
            if hasattr(module, name):  # the formats from before Kafka 0.11 had no zstd
                setattr(module, name, partial(_decode, codec, getattr(module, name)))


_install()
