"""Kafka's record batches made by hand, compressed by any codec and as large inside as wanted."""

from __future__ import annotations

import gzip
import struct
import time
from collections.abc import Callable
from typing import Any, Final

import cramjam
from aiokafka.codec import lz4_encode, snappy_encode
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from aiokafka.record.util import calc_crc32c

from tests.kafka_servers import Broker

_HEAD_BYTES: Final = 61
CODECS: Final[dict[str, tuple[int, Callable[[bytes], bytes]]]] = {
    "gzip": (1, lambda data: gzip.compress(data, 6)),
    "snappy": (2, snappy_encode),
    "lz4": (3, lz4_encode),
    "zstd": (4, lambda data: bytes(cramjam.zstd.compress(data, level=3))),
}


def compressed(codec: str, *values: bytes) -> bytes:
    """A batch of these values."""
    builder = _DefaultRecordBatchBuilderPy(2, 0, False, -1, -1, 0, 2**40)
    for offset, value in enumerate(values):
        builder.append(offset, round(time.time() * 1000), b"k", value, [])  # else retention takes it at once
    plain = bytes(builder.build())
    return sealed(codec, plain, CODECS[codec][1](plain[_HEAD_BYTES:]))


def sealed(codec: str, plain: bytes, records: bytes) -> bytes:
    """The head of an uncompressed batch before records that the codec has packed."""
    batch = bytearray(plain[:_HEAD_BYTES]) + records
    struct.pack_into(">h", batch, 21, CODECS[codec][0])
    struct.pack_into(">i", batch, 8, len(batch) - 12)
    struct.pack_into(">I", batch, 17, calc_crc32c(bytes(batch[21:])))
    return bytes(batch)


async def append(broker: Broker, topic: str, *batches: bytes, partition: int = 0) -> None:
    """Append batches as they are."""
    async with broker.producer() as producer:
        for data in batches:
            batch: Any = producer.create_batch()
            batch.append(key=b"k", value=b"", timestamp=1000)
            batch.close()
            batch._build()
            batch._buffer = bytearray(data)
            await (await producer.send_batch(batch, topic, partition=partition))
