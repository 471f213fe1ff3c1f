"""Values as bytes, written piece by piece: MessagePack for the scripts in Redis, decimal and JSON for what they store.

Redis reads only the raw types of the old MessagePack: texts and bytes alike travel as those.
"""

from __future__ import annotations

from json.encoder import encode_basestring_ascii
from typing import Final

from librt.strings import BytesWriter, write_i16_be, write_i32_be, write_i64_be
from mypy_extensions import i16, i32, i64, u8

_DIGITS: Final = [b"%d" % number for number in range(1000)]


def pack_int(out: BytesWriter, value: i64) -> None:
    """One integer as MessagePack, in as few bytes as hold it."""
    if 0 <= value < 128:
        out.append(u8(value))
    elif -32768 <= value < 32768:
        out.append(u8(0xD1))
        write_i16_be(out, i16(value))
    elif -2147483648 <= value < 2147483648:
        out.append(u8(0xD2))
        write_i32_be(out, i32(value))
    else:
        out.append(u8(0xD3))
        write_i64_be(out, value)


def pack_raw(out: BytesWriter, data: bytes) -> None:
    """Bytes as MessagePack."""
    size: i64 = len(data)
    if size < 32:
        out.append(u8(0xA0 | size))
    elif size < 65536:
        out.append(u8(0xDA))
        out.append(u8(size >> 8))
        out.append(u8(size & 255))
    else:
        out.append(u8(0xDB))
        write_i32_be(out, i32(size))
    out.write(data)


def packed_texts(*texts: str) -> bytes:
    """A series of texts as MessagePack, without a list around them."""
    out = BytesWriter()
    for text in texts:
        pack_raw(out, text.encode())
    return out.getvalue()


def packed_items(head: list[int], items: list[bytes], texts: list[int]) -> bytes:
    """A series of values: `head`, the number of items, and each item behind its length and its number of texts."""
    out = BytesWriter()
    for number in head:
        pack_int(out, number)
    pack_int(out, len(items))
    for index, item in enumerate(items):
        pack_int(out, len(item))
        pack_int(out, texts[index])
        out.write(item)
    return out.getvalue()


def write_int(out: BytesWriter, value: i64) -> None:
    """An integer in decimal."""
    if 0 <= value < 1000:
        out.write(_DIGITS[value])
    else:
        out.write(b"%d" % value)


def write_json(out: BytesWriter, text: str) -> None:
    """A text as a JSON string in ASCII."""
    out.write(encode_basestring_ascii(text).encode())
