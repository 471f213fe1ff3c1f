"""The Lua scripts, and how their arguments are packed and their replies unpacked.

Each script takes MessagePack items that carry their own keys, so that one text serves a single Redis and a Cluster,
and answers with one MessagePack list.  The keys are not declared: scripts are flagged
`allow-cross-slot-keys`, and on a Cluster one call holds items of one node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any, Final, cast

import msgpack  # type: ignore[import-untyped]

from aggregator.core.packing import packed_items

# Redis reads only the raw types of the old MessagePack: strings and bytes alike travel as those.
_packer: Final = msgpack.Packer(use_bin_type=False, autoreset=True)
pack: Final = cast(Callable[[object], bytes], _packer.pack)
_pack_list_head: Final = cast(Callable[[int], bytes], _packer.pack_array_header)

MAX_ARGUMENT_BYTES: Final = 256 * 1024
"""One call carries no more than this (but at least one item): some 1 ms of Redis's time, whatever the items are."""


Body = tuple[bytes | str, ...]
"""One item: what is packed of it, and the long texts that travel as arguments of their own."""


def list_arguments(head: Sequence[int], bodies: Sequence[Body]) -> list[bytes | str]:
    """ARGV of one call: the list of items, or [*head, items] where the script has settings; then the long texts."""
    items = b"".join((_pack_list_head(len(bodies)), *(cast(bytes, body[0]) for body in bodies)))
    if head:
        items = b"".join((_pack_list_head(len(head) + 1), *map(pack, head), items))
    return [items, *(text for body in bodies for text in body[1:])]


def flat_arguments(head: Sequence[int], bodies: Sequence[Body]) -> list[bytes | str]:
    """The same as a series of values, which is read without making tables.

    Each item stands behind its length in bytes and the number of its long texts.
    """
    items = packed_items(list(head), [cast(bytes, body[0]) for body in bodies], [len(body) - 1 for body in bodies])
    return [items, *(text for body in bodies for text in body[1:])]


class Script:
    """One Lua file.

    `items_per_call` keeps a call at about 1 ms of Redis's time, during which it serves nobody else.
    `arguments` makes ARGV of one call from settings and items.
    A `sparse` script answers [index, ...] only for items it has something to say of; the others become None.
    """

    __slots__ = ("arguments", "items_per_call", "name", "sha", "sparse", "text")

    def __init__(self, name: str, *, items_per_call: int, sparse: bool = False, flat: bool = False) -> None:
        self.name: Final = name
        self.items_per_call: Final = items_per_call
        self.sparse: Final = sparse
        self.arguments: Final = flat_arguments if flat else list_arguments
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


TRACE_STORE: Final = Script("trace_store", items_per_call=100, sparse=True, flat=True)
SESSION_PUT: Final = Script("session_put", items_per_call=50, sparse=True, flat=True)
SESSION_CLAIM: Final = Script("session_claim", items_per_call=20)
SESSION_SETTLE: Final = Script("session_settle", items_per_call=100)
SESSION_ERASE: Final = Script("session_erase", items_per_call=10)
SCHEDULE_MOVE: Final = Script("schedule_move", items_per_call=250)
PROGRESS_WRITE: Final = Script("progress_write", items_per_call=250)
INDEX_READ: Final = Script("index_read", items_per_call=250)
INDEX_WRITE: Final = Script("index_write", items_per_call=10)
INDEX_WRITE_ONE: Final = Script("index_write", items_per_call=200)  # for items of a single member
PROGRESS_WITNESS: Final = Script("progress_witness", items_per_call=250)
SET_ASIDE: Final = Script("set_aside", items_per_call=100)
ALL_SCRIPTS: Final = (
    TRACE_STORE,
    SESSION_PUT,
    SESSION_CLAIM,
    SESSION_SETTLE,
    SESSION_ERASE,
    SCHEDULE_MOVE,
    PROGRESS_WRITE,
    INDEX_READ,
    INDEX_WRITE,
    PROGRESS_WITNESS,
    SET_ASIDE,
)


def chunks(script: Script, bodies: Sequence[Body]) -> list[slice]:
    """Cuts packed items into calls, bounded in number and in bytes."""
    cuts: list[slice] = []
    start, size = 0, 0
    for index, body in enumerate(bodies):
        more = sum(map(len, body))
        if index > start and (index - start >= script.items_per_call or size + more > MAX_ARGUMENT_BYTES):
            cuts.append(slice(start, index))
            start, size = index, 0
        size += more
    if start < len(bodies):
        cuts.append(slice(start, len(bodies)))
    return cuts
