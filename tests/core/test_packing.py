"""What the core packs, another MessagePack and another JSON read."""

from __future__ import annotations

import json
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st
from librt.strings import BytesWriter

from aggregator.core.packing import pack_int, pack_raw, packed_items, packed_texts, write_int, write_json

EDGES = [0, 127, 128, 32767, 32768, 2**31 - 1, 2**31, 2**53, 2**63 - 1]
integers = st.one_of(st.sampled_from([*EDGES, *(-edge - 1 for edge in EDGES)]), st.integers(-(2**63), 2**63 - 1))


def unpacked(data: bytes) -> list[Any]:
    unpacker: Any = msgpack.Unpacker(raw=True)
    unpacker.feed(data)
    return list(unpacker)


@given(st.lists(integers))
def test_integers_come_back(numbers: list[int]) -> None:
    out = BytesWriter()
    for number in numbers:
        pack_int(out, number)
    assert unpacked(out.getvalue()) == numbers


@pytest.mark.parametrize("size", [0, 1, 31, 32, 255, 256, 65535, 65536, 100_000])
def test_bytes_come_back_as_the_old_raw_types(size: int) -> None:
    out = BytesWriter()
    pack_raw(out, b"\xff" * size)
    data = out.getvalue()
    assert unpacked(data) == [b"\xff" * size]
    assert data[0] >> 5 == 5 or data[0] in (0xDA, 0xDB), "Redis reads no other type"


@given(st.lists(st.text()))
def test_texts_come_back(texts: list[str]) -> None:
    assert unpacked(packed_texts(*texts)) == [text.encode() for text in texts]


def test_items_stand_behind_their_length_and_number_of_texts() -> None:
    items = [packed_texts("key", "x" * 200), packed_texts()]
    values = unpacked(packed_items([7, 10**12], items, [3, 0]))
    assert values == [7, 10**12, 2, len(items[0]), 3, b"key", b"x" * 200, 0, 0]


@given(integers, st.text())
def test_json_is_json(number: int, text: str) -> None:
    out = BytesWriter()
    out.write(b"[")
    write_int(out, number)
    out.write(b",")
    write_json(out, text)
    out.write(b"]")
    assert out.getvalue().isascii()
    assert json.loads(out.getvalue()) == [number, text]
