"""Making the indexes anew from the sessions that there are, while workers go on.

Every session hash is looked for on every node and written; then each index is walked and what names no session that
belongs there is taken out.  Nothing is emptied first, so that listings are never short meanwhile.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from aggregator.adapters.redis.calls import Command, Connections
from aggregator.adapters.redis.failures import translated
from aggregator.adapters.redis.index import RedisSessionIndex
from aggregator.adapters.redis.keys import Keys
from aggregator.adapters.redis.wire import Node, packed
from aggregator.core.model import SessionRef
from aggregator.core.naming import percent_decode
from aggregator.ports import LookedAt

_SCAN_COUNT: Final = 1000


async def reindex(connections: Connections, keys: Keys, index: RedisSessionIndex, *, now_ms: int) -> int:
    """Write every session that Redis holds, and take out of the indexes what is not there any more.

    Gives the number of sessions.
    """
    sessions = 0
    async for found in scanned(connections, f"{keys.prefix}:session:{{*}}"):
        refs = [ref for ref in map(keys.session_ref, found) if ref is not None]
        await index.look([LookedAt(ref, None) for ref in refs], now_ms=now_ms)
        sessions += len(refs)
    for pattern in (f"{keys.prefix}:index:*", f"{keys.prefix}:user:{{*}}"):
        async for found in scanned(connections, pattern):
            for key in found:
                await _clean(connections, keys, index, key, now_ms)
    return sessions


async def scanned(connections: Connections, pattern: str) -> AsyncIterator[list[bytes]]:
    """All keys like the pattern, on all nodes; a key that moves meanwhile may come twice."""
    for node in await connections.nodes():
        cursor = b"0"
        while True:
            cursor, found = await _one(node, packed("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN_COUNT))
            yield found
            if cursor == b"0":
                break


async def _one(node: Node, command: bytes) -> tuple[bytes, list[bytes]]:
    (answer,) = await node.exchange([command])
    if isinstance(answer, Exception):
        raise translated(answer, node, doing="SCAN") from answer
    return answer[0], answer[1]


async def _clean(connections: Connections, keys: Keys, index: RedisSessionIndex, key: bytes, now_ms: int) -> None:
    """Look at each session of one index and take out those that do not belong there."""
    name, cursor = key.decode(), b"0"
    project, user_id = keys.user_place(key) or ((keys.index_place(key) or ("", ""))[0], None)
    while True:
        ((cursor, flat),) = await connections.commands([Command(name, ("ZSCAN", name, cursor, "COUNT", _SCAN_COUNT))])
        refs = [SessionRef(project, percent_decode(member.decode())) for member in flat[::2]]
        users = await index.users(refs)
        wrong = [
            LookedAt(ref, user_id)
            for ref, user in zip(refs, users, strict=True)
            if user is None or (user_id is not None and user != user_id)
        ]
        await index.look(wrong, now_ms=now_ms)
        if cursor == b"0":
            return
