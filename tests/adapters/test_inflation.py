"""What compressed batches may inflate to: the same records as aiokafka's, up to a limit that nothing passes."""

from __future__ import annotations

import gzip
import tracemalloc
from typing import Any

import cramjam
import pytest
from aiokafka import TopicPartition
from aiokafka.record.default_records import DefaultRecordBatch, _DefaultRecordBatchPy
from hypothesis import given
from hypothesis import strategies as st

from aggregator.adapters.kafka.inflation import InflatesTooFarError, Inflation, NoRoomLeftError
from aggregator.adapters.kafka.unreadable import unpack
from tests.adapters.batches import CODECS, compressed, sealed

MIB = 1024 * 1024
BATCHES: list[Any] = [DefaultRecordBatch, _DefaultRecordBatchPy]
every_codec = pytest.mark.parametrize("codec", CODECS)


def packed(codec: str, data: bytes) -> bytes:
    return CODECS[codec][1](data)


def values(make: Any, batch: bytes) -> list[bytes]:
    return [record.value for record in make(batch)]


@pytest.mark.parametrize("make", BATCHES)
@every_codec
def test_batches_of_aiokafka_obey(make: Any, codec: str) -> None:
    """Both its compiled ones and those in Python; fails when aiokafka looks for its codecs elsewhere."""
    batch = compressed(codec, bytes(2 * MIB), b"second")
    inflation = Inflation(3 * MIB)
    with inflation.bounded():
        assert values(make, batch) == [bytes(2 * MIB), b"second"]
    with Inflation(2 * MIB).bounded(), pytest.raises(InflatesTooFarError, match="MAX_INFLATED_BYTES"):
        values(make, batch)
    assert len(values(make, batch)) == 2, "outside of it nothing is bounded"


@every_codec
@given(data=st.one_of(st.binary(min_size=1, max_size=300), st.integers(1, 300_000).map(bytes)))
def test_the_limit_is_exact(codec: str, data: bytes) -> None:
    payload = packed(codec, data)
    inflation = Inflation(len(data) + 1)
    for _ in range(2):  # the buffer is used again
        with inflation.bounded():
            assert inflation.inflated(codec, payload) == data
            assert inflation.inflated(codec, memoryview(packed(codec, b"1"))) == b"1"
    if len(data) > 1:
        tight = Inflation(len(data) - 1)
        with tight.bounded(), pytest.raises(InflatesTooFarError):
            tight.inflated(codec, payload)


@every_codec
def test_what_does_not_fit_beside_others_is_told_from_what_never_fits(codec: str) -> None:
    inflation, half, whole = Inflation(MIB), packed(codec, bytes(MIB // 2)), packed(codec, bytes(MIB))
    with inflation.bounded():
        inflation.inflated(codec, half)
        inflation.inflated(codec, half)
        with pytest.raises(NoRoomLeftError):
            inflation.inflated(codec, packed(codec, b"1"))
    with inflation.bounded():
        assert len(inflation.inflated(codec, whole)) == MIB
    with inflation.bounded(together=False):
        for _ in range(3):
            assert len(inflation.inflated(codec, whole)) == MIB


@every_codec
@given(position=st.integers(0, 200), byte=st.integers(0, 255), cut=st.integers(0, 200))
def test_spoilt_bytes_are_an_error_or_something_else_and_never_more(
    codec: str, position: int, byte: int, cut: int
) -> None:
    payload = bytearray(packed(codec, bytes(range(200)) + bytes(MIB)))
    payload[position % len(payload)] = byte
    del payload[len(payload) - cut % len(payload) :]
    inflation = Inflation(2 * MIB)
    with inflation.bounded():
        try:
            found = inflation.inflated(codec, bytes(payload))
        except Exception:
            return
    assert len(found) <= 2 * MIB


def test_frames_that_follow_each_other_count_together() -> None:
    for codec in ("gzip", "lz4", "zstd"):
        twice = packed(codec, b"a" * 1000) * 2
        roomy, tight = Inflation(2000), Inflation(1999)
        with roomy.bounded():
            assert roomy.inflated(codec, twice) == b"a" * 2000
        with tight.bounded(), pytest.raises(InflatesTooFarError):
            tight.inflated(codec, twice)
    zeros_behind = gzip.compress(b"a") + bytes(8)
    inflation = Inflation(10)
    with inflation.bounded():
        assert inflation.inflated("gzip", zeros_behind) == b"a"


def test_a_frame_that_lies_about_its_content_is_bounded_all_the_same() -> None:
    """Zstandard's frame header: a descriptor, a window's size, then four bytes of content size."""
    payload = bytearray(cramjam.zstd.compress(bytes(64 * MIB), level=3))
    assert payload[4] & 0xE0 == 0x80
    assert int.from_bytes(payload[6:10], "little") == 64 * MIB
    payload[6:10] = (1000).to_bytes(4, "little")
    inflation = Inflation(MIB)
    with inflation.bounded(), pytest.raises((InflatesTooFarError, cramjam.DecompressionError)):
        inflation.inflated("zstd", bytes(payload))


@every_codec
def test_a_bomb_takes_no_more_memory_than_may_be(codec: str) -> None:
    payload = packed(codec, bytes(64 * MIB))
    inflation = Inflation(4 * MIB)
    tracemalloc.start()
    try:
        with inflation.bounded(), pytest.raises(InflatesTooFarError):
            inflation.inflated(codec, payload)
        assert tracemalloc.get_traced_memory()[1] < 3 * 4 * MIB  # without the buffer, which is no more than the limit
    finally:
        tracemalloc.stop()


@every_codec
def test_a_batch_that_inflates_too_far_is_set_aside_whole_and_named(codec: str) -> None:
    partition = TopicPartition("t", 0)
    bomb, good = compressed(codec, bytes(2 * MIB), b"b", b"c"), compressed(codec, b"good")
    moved = bytearray(good)
    moved[7] = 3
    with Inflation(MIB).bounded():
        found = unpack(partition, bomb + bytes(moved), 0)
        assert [(record.offset, record.value) for record in found.records] == [(0, bomb)]
        assert found.next_offset == 3
        assert found.problem.startswith("batch of offsets 0 to 2 that can't be decompressed: ")
        after = unpack(partition, bytes(moved), 3)
    assert [(record.offset, record.value) for record in after.records] == [(3, b"good")]


def test_an_answer_is_read_no_further_than_there_is_room() -> None:
    partition = TopicPartition("t", 0)
    batches = []
    for number in range(4):
        one = bytearray(compressed("zstd", bytes(MIB // 2 - 100)))
        one[7] = number
        batches.append(bytes(one))
    with Inflation(MIB).bounded():
        found = unpack(partition, b"".join(batches), 0)
    assert [record.offset for record in found.records] == [0, 1]
    assert (found.next_offset, found.problem) == (2, "")


def test_a_batch_that_is_no_more_than_its_head_is_unreadable() -> None:
    batch = compressed("lz4", b"x")
    with Inflation(MIB).bounded(), pytest.raises(cramjam.DecompressionError):
        values(DefaultRecordBatch, sealed("lz4", batch, b""))
