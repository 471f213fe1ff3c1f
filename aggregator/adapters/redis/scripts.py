"""The Lua scripts, and how their arguments are packed and their replies unpacked.

Each script takes one argument, a MessagePack list of items that carry their own keys, so that one text serves a
single Redis and a Cluster, and answers with one MessagePack list.  The keys are not declared: scripts are flagged
`allow-cross-slot-keys`, and on a Cluster one call holds items of one node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any, Final, cast

import msgpack  # type: ignore[import-untyped]

# Redis reads only the raw types of the old MessagePack: strings and bytes alike travel as those.
_packer: Final = msgpack.Packer(use_bin_type=False, autoreset=True)
pack: Final = cast(Callable[[object], bytes], _packer.pack)
_pack_list_head: Final = cast(Callable[[int], bytes], _packer.pack_array_header)

MAX_ARGUMENT_BYTES: Final = 256 * 1024
"""One call carries no more than this (but at least one item): some 1 ms of Redis's time, whatever the items are."""


def argument(head: Sequence[int], bodies: Sequence[bytes]) -> bytes:
    """The packed argument of one call: the items, or [*head, items] where the script has settings at its head."""
    items = _pack_list_head(len(bodies)) + b"".join(bodies)
    if not head:
        return items
    return b"".join((_pack_list_head(len(head) + 1), *map(pack, head), items))


def flat_argument(head: Sequence[int], bodies: Sequence[bytes]) -> bytes:
    """The same as a series of values, each item behind its length: `session_put.lua` reads it without making tables."""
    parts = [*map(pack, head), pack(len(bodies))]
    for body in bodies:
        parts += (pack(len(body)), body)
    return b"".join(parts)


def pack_flat(values: Sequence[object]) -> bytes:
    """A series of values without the list around them."""
    size = len(values)
    return pack(values)[1 if size < 16 else 3 if size < 65536 else 5 :]


class Script:
    """One Lua file.

    `items_per_call` keeps a call at about 1 ms of Redis's time, during which it serves nobody else.
    `argument` packs the one argument of a call from settings and packed items.
    A `sparse` script answers [index, ...] only for items it has something to say of; the others become None.
    """

    __slots__ = ("argument", "items_per_call", "name", "sha", "sparse", "text")

    def __init__(self, name: str, *, items_per_call: int, sparse: bool = False, flat: bool = False) -> None:
        self.name: Final = name
        self.items_per_call: Final = items_per_call
        self.sparse: Final = sparse
        self.argument: Final = flat_argument if flat else argument
        self.text: Final = files(__package__).joinpath("lua", f"{name}.lua").read_bytes()
        # Redis names scripts by SHA-1; nothing is secured by it.
        self.sha: Final = sha1(self.text, usedforsecurity=False).hexdigest().encode()

    def unpack(self, reply: bytes, count: int) -> list[Any]:
        """One value per item: what the script answers, and `bytes` (the error's text) for an item that failed."""
        values: list[Any] = msgpack.unpackb(reply, raw=True, strict_map_key=False)
        if not self.sparse:
            return values
        items: list[Any] = [None] * count
        for value in values:
            items[value[0] - 1] = value[1] if len(value) == 2 else value[1:]
        return items


TRACE_STORE: Final = Script("trace_store", items_per_call=100, sparse=True)
SESSION_PUT: Final = Script("session_put", items_per_call=50, flat=True)
SESSION_CLAIM: Final = Script("session_claim", items_per_call=20)
SESSION_SETTLE: Final = Script("session_settle", items_per_call=100)
SCHEDULE_MOVE: Final = Script("schedule_move", items_per_call=250)
PROGRESS_WRITE: Final = Script("progress_write", items_per_call=250)
ALL_SCRIPTS: Final = (TRACE_STORE, SESSION_PUT, SESSION_CLAIM, SESSION_SETTLE, SCHEDULE_MOVE, PROGRESS_WRITE)


def chunks(script: Script, bodies: Sequence[bytes]) -> list[slice]:
    """Cuts packed items into calls, bounded in number and in bytes."""
    cuts: list[slice] = []
    start, size = 0, 0
    for index, body in enumerate(bodies):
        if index > start and (index - start >= script.items_per_call or size + len(body) > MAX_ARGUMENT_BYTES):
            cuts.append(slice(start, index))
            start, size = index, 0
        size += len(body)
    if start < len(bodies):
        cuts.append(slice(start, len(bodies)))
    return cuts
