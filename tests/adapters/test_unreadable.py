"""Reading a fetch answer record by record, where aiokafka can't: what the broker would hide stays hidden."""

from __future__ import annotations

import struct

from aiokafka import TopicPartition
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from aiokafka.record.util import calc_crc32c

from aggregator.adapters.kafka.unreadable import unpack

PARTITION = TopicPartition("t", 0)
CONTROL = 0x20


def batch(base: int, producer: int, values: list[bytes], *, control: bool = False) -> bytes:
    builder = _DefaultRecordBatchBuilderPy(2, 0, True, producer, 0, 0, 10_000)
    for offset, value in enumerate(values):
        key = b"\x00\x00\x00\x00" if control else None  # version 0, type 0: an abort marker
        builder.append(offset, 1000, key, value, [])
    data = bytearray(builder.build())
    struct.pack_into(">q", data, 0, base)
    if control:
        data[22] |= CONTROL
    struct.pack_into(">I", data, 17, calc_crc32c(bytes(data[21:])))
    return bytes(data)


def test_what_a_producer_commits_after_an_aborted_transaction_is_read() -> None:
    """The marker ends one transaction, not the producer's next."""
    data = batch(0, 5, [b"aborted"]) + batch(1, 5, [b"\x00"], control=True) + batch(2, 5, [b"committed"])
    found = unpack(PARTITION, data, 0, [(5, 0)])
    assert [record.value for record in found.records] == [b"committed"]


def test_a_broken_batch_that_began_before_what_is_wanted_is_set_aside_all_the_same() -> None:
    data = bytearray(batch(0, 5, [b"a", b"b", b"c"]))
    data[-1] ^= 1
    found = unpack(PARTITION, bytes(data), 1)
    assert [record.offset for record in found.records] == [1]
    assert found.next_offset == 3
