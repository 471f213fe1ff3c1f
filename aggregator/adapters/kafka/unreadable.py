"""What aiokafka can't unpack: a record that breaks its rules, a batch whose checksum is wrong or that inflates too far.

aiokafka raises for the whole answer and would do so for ever, and there is no going past a record within its batch.
So such an answer is read here once more, record by record: what can be read is, and the rest is handed out as the raw
bytes that stand in the log.  Those are no OTLP in either encoding (they begin with a zero, a tag that protobuf does not
have), so they end on the dead-letter topic like any other undecodable record, with a header that says what they are.
Such records exist: Java's client, for one, writes and reads header keys that are not UTF-8.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import CorruptRecordException, for_code
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.util import decode_varint

from aggregator.adapters.kafka.inflation import Inflation, NoRoomLeftError
from aggregator.ports import InputRecord

_READ_COMMITTED: Final = 1  # as the protocol numbers isolation levels
_FIRST_MAGIC: Final = 2
_MAGIC_AT: Final = 16
_HEAD: Final = struct.Struct(">qi")  # base offset, and how many bytes of the batch come after this


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainRecord:
    """One record; fits `ports.InputRecord`."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


class Unpacked(NamedTuple):
    """Records, the offset to go on from, and what was wrong with those that were set aside (empty: nothing)."""

    records: list[InputRecord]
    next_offset: int
    problem: str


async def unpacked(
    client: Any, partition: TopicPartition, offset: int, inflation: Inflation, *, wait_ms: int, max_bytes: int
) -> Unpacked:
    """Fetch a partition's next answer from its leader in its raw form, and `unpack` it.

    `client` is aiokafka's, `inflation` bounds what is unpacked; raises aiokafka's errors.
    """
    leader = client.cluster.leader_for_partition(partition)
    if leader is None or leader < 0:
        raise CorruptRecordException(f"{partition} has no leader just now")
    wanted = [(partition.topic, [(partition.partition, offset, max_bytes)])]
    answer = await client.send(leader, FetchRequest(wait_ms, 1, max_bytes, _READ_COMMITTED, wanted, rack_id=""))
    ((_, ((_, code, *parts),)),) = answer.topics
    if code:
        raise for_code(code)(partition)
    aborted = next((part for part in parts[1:-1] if isinstance(part, list)), [])
    with inflation.bounded():
        return unpack(partition, bytes(parts[-1]), offset, aborted)


def unpack(partition: TopicPartition, data: bytes, offset: int, aborted: Sequence[tuple[int, int]] = ()) -> Unpacked:
    """Read the batches of a fetch answer from `offset` on, up to and with the first that has something broken in it.

    It ends before one that has no room beside those before it.
    `aborted` are (producer id, first offset) of the answer's aborted transactions.
    Raises `CorruptRecordException` where not even one batch can be told from the next.
    """
    position, at, problem = offset, 0, ""
    records: list[InputRecord] = []
    to_come = sorted((first, producer) for producer, first in aborted)
    hidden: set[int] = set()  # producers whose transaction at this place is aborted
    while at + _HEAD.size <= len(data):
        _, length = _HEAD.unpack_from(data, at)
        end = at + _HEAD.size + length
        if length <= _MAGIC_AT or end > len(data):
            break
        raw = data[at:end]
        if raw[_MAGIC_AT] < _FIRST_MAGIC:
            raise CorruptRecordException(f"{partition} offset {position} has a format from before Kafka 0.11")
        batch = _DefaultRecordBatchPy(raw)
        try:
            found, problem = _read(partition, batch, raw, offset)
        except NoRoomLeftError:
            break
        while to_come and to_come[0][0] <= batch.base_offset:
            hidden.add(to_come.pop(0)[1])
        if batch.is_control_batch:
            hidden.discard(batch.producer_id)  # the end of its transaction; what comes after is another one
        elif not (batch.is_transactional and batch.producer_id in hidden):
            records += [record for record in found if record.offset >= offset]
        position = max(position + bool(problem), batch.next_offset)
        if problem:
            break
        at = end
    if position == offset:
        raise CorruptRecordException(f"{partition} offset {offset} can't be told from what comes after it")
    return Unpacked(records, position, problem)


def _read(
    partition: TopicPartition, batch: _DefaultRecordBatchPy, raw: bytes, offset: int
) -> tuple[list[InputRecord], str]:
    """The records of one batch, and why some of them could not be read (empty: all could).

    A batch that is set aside whole stands at its first record that is still wanted, which is at `offset` or later.
    """
    first = max(batch.base_offset, offset)
    which = f"batch of offsets {batch.base_offset} to {batch.next_offset - 1}"
    if not batch.validate_crc():
        detail = f"{which} with a wrong checksum"
        return [_set_aside(partition, first, batch.max_timestamp, raw, detail)], detail
    try:
        batch._maybe_uncompress()  # noqa: SLF001
    except NoRoomLeftError:
        raise
    except Exception as error:  # whatever the codec raises
        detail = f"{which} that can't be decompressed: {error}"
        return [_set_aside(partition, first, batch.max_timestamp, raw, detail)], detail
    records: list[InputRecord] = []
    problem = ""
    for _ in range(batch._num_records):  # noqa: SLF001
        try:
            body, end = _bounds(batch)
        except (IndexError, ValueError) as error:  # not even how long it is
            detail = f"{which} whose records can't be told apart: {error}"
            return [*records, _set_aside(partition, first + len(records), batch.max_timestamp, raw, detail)], detail
        try:
            read = batch._read_msg()  # noqa: SLF001
        except (ValueError, IndexError, CorruptRecordException) as error:
            content = bytes(batch._buffer[body:end])  # noqa: SLF001
            delta = _offset_delta(content, len(records))
            problem = f"record: {error}"
            records.append(_set_aside(partition, batch.base_offset + delta, batch.max_timestamp, content, problem))
            batch._pos = end  # noqa: SLF001
        else:
            records.append(_plain(partition, read))
    return records, problem


def _bounds(batch: _DefaultRecordBatchPy) -> tuple[int, int]:
    """Where the next record begins, after its length, and where it ends."""
    length, body = decode_varint(batch._buffer, batch._pos)  # noqa: SLF001
    return body, body + length


def _offset_delta(content: bytes, default: int) -> int:
    """The record's offset within its batch: attributes, then two numbers, of which it is the second."""
    buffer = bytearray(content)
    try:
        _, at = decode_varint(buffer, 1)
        delta, _ = decode_varint(buffer, at)
    except (IndexError, ValueError):
        return default
    return int(delta)


def _plain(partition: TopicPartition, read: Any) -> PlainRecord:
    return PlainRecord(
        topic=partition.topic,
        partition=partition.partition,
        offset=read.offset,
        timestamp=read.timestamp,
        key=read.key,
        value=read.value,
        headers=tuple(read.headers),
    )


def _set_aside(partition: TopicPartition, offset: int, timestamp: int, raw: bytes, detail: str) -> PlainRecord:
    return PlainRecord(
        topic=partition.topic,
        partition=partition.partition,
        offset=offset,
        timestamp=timestamp,
        key=None,
        value=raw,
        headers=(("unreadable", detail.encode(errors="replace")),),
    )
