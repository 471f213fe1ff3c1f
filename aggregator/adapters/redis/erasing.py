"""Erasing sessions: all keys of theirs, their traces' states, and what names them in indexes (docs/adr/0016).

What stays is `agg:erased:...`, by which the puts of late spans are refused, and "erased" in place of each trace state,
by which late spans that name no session are.  Neither says whose it is, and both expire.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple, TypeVar

from aggregator.adapters.redis.calls import Command, Connections, Items
from aggregator.adapters.redis.index import RedisSessionIndex
from aggregator.adapters.redis.keys import Keys
from aggregator.adapters.redis.reindex import scanned
from aggregator.adapters.redis.schedule import RedisSchedule
from aggregator.adapters.redis.scripts import SESSION_ERASE, pack
from aggregator.adapters.redis.traces import RedisTraces
from aggregator.core.errors import CorruptState
from aggregator.core.model import SessionRef
from aggregator.core.naming import percent_encode
from aggregator.core.state import ERASED_STAMP, decode_state
from aggregator.ports import LookedAt, StoredTrace, TraceWrite

_SESSIONS_AT_ONCE: Final = 50  # of 1,000 traces each: some 40 MB
_STATES_AT_ONCE: Final = 500

_T = TypeVar("_T")


class Erased(NamedTuple):
    """What there was of a session; `closing`: a worker may be publishing its summary just now."""

    ref: SessionRef
    found: bool
    published: bool
    closing: bool
    traces: int


class RedisErasing:
    """Erases sessions, and finds those of a user; needs a Redis user that may write."""

    def __init__(self, connections: Connections, keys: Keys, index: RedisSessionIndex) -> None:
        self._connections = connections
        self._keys = keys
        self._index = index
        self._traces = RedisTraces(connections, keys)
        self._schedule = RedisSchedule(connections, keys)

    async def erase(self, refs: Sequence[SessionRef], *, hold_ms: int, now_ms: int) -> list[Erased]:
        """Erase sessions, there or not, and let late spans not bring them back for `hold_ms`.

        May be repeated at any point: what a crash has left is found again by the same `refs`.
        """
        done: list[Erased] = []
        for some in _parts(refs, _SESSIONS_AT_ONCE):
            done += await self._erase(some, hold_ms, now_ms)
        return done

    async def _erase(self, refs: Sequence[SessionRef], hold_ms: int, now_ms: int) -> list[Erased]:
        keys, done = self._keys, []
        names = [keys.session(ref) for ref in refs]
        items = [(*name, keys.erased(name.session), *map(keys.corrupt, name)) for name in names]
        head = (hold_ms,)
        replies = await self._connections.call(SESSION_ERASE, Items(items, [(pack(item),) for item in items], head))
        trace_ids: set[bytes] = set()
        folded = False
        for ref, (status, revision, has_folded, traces, repeated) in zip(refs, replies, strict=True):
            own = {bytes.fromhex(field.decode()) for field in traces[::2]}
            trace_ids |= own
            folded = folded or bool(has_folded)
            published = revision not in (b"", b"0")
            # One that came back while its summary was on its way is open; a repeat does not see what the first saw.
            closing = status == b"closing" or (status == b"open" and published) or bool(repeated)
            done.append(Erased(ref, bool(status), published, closing, len(own)))
        if folded:  # nothing else tells which traces those were
            trace_ids |= await self._states_of(refs)
        await self._erase_states(sorted(trace_ids), set(refs), hold_ms)
        await self._take_out_of_indexes(refs, now_ms)
        await self._schedule.remove(refs)
        await self._connections.commands([Command(name.traces, ("DEL", name.traces)) for name in names])
        return done

    async def _erase_states(self, trace_ids: Sequence[bytes], refs: Collection[SessionRef], hold_ms: int) -> None:
        """Put "erased" in place of each state, but not where the trace belongs to another session by now."""
        for some in _parts(trace_ids, _STATES_AT_ONCE):
            copies = [self._keys.corrupt(self._keys.trace(one)) for one in some]
            await self._connections.commands([Command(copy, ("DEL", copy)) for copy in copies])
            pending = list(zip(some, await self._traces.load(some), strict=True))
            while pending:
                writes = [
                    TraceWrite(one, stored.stamp, ERASED_STAMP, b"", hold_ms)
                    for one, stored in pending
                    if _claim(one, stored) in (None, *refs)
                ]
                replies = await self._traces.store(writes)
                pending = [
                    (write.trace_id, reply) for write, reply in zip(writes, replies, strict=True) if reply is not None
                ]

    async def _states_of(self, refs: Sequence[SessionRef]) -> set[bytes]:
        """The traces of these sessions, from all states that there are."""
        found: set[bytes] = set()
        wanted = [ref.session_id.encode() for ref in refs]
        head = len(self._keys.trace(b"")) - 1
        async for keys in scanned(self._connections, f"{self._keys.prefix}:trace:{{*}}"):
            trace_ids = [bytes.fromhex(key[head:-1].decode()) for key in keys]
            for some in _parts(trace_ids, _STATES_AT_ONCE):
                for trace_id, stored in zip(some, await self._traces.load(some), strict=True):
                    if any(text in stored.state for text in wanted) and _claim(trace_id, stored) in refs:
                        found.add(trace_id)
        return found

    async def _take_out_of_indexes(self, refs: Sequence[SessionRef], now_ms: int) -> None:
        """From every order, and from the sets of all users under which they are there."""
        by_shard: defaultdict[int, set[SessionRef]] = defaultdict(set)
        for ref in refs:
            by_shard[self._keys.shard(ref)].add(ref)
        entries = [LookedAt(ref, None) for ref in refs]
        for shard, wanted in by_shard.items():
            async for member in self._members(self._keys.indexed(shard)):
                with suppress(CorruptState):  # whoever owns the shard reports it
                    ref, user_id = self._keys.indexed_ref(shard, member)
                    if ref in wanted:
                        entries.append(LookedAt(ref, user_id))
        await self._index.look(entries, now_ms=now_ms)

    async def _members(self, key: str) -> AsyncIterator[bytes]:
        cursor = b"0"
        while True:
            ((cursor, flat),) = await self._connections.commands([Command(key, ("ZSCAN", key, cursor, "COUNT", 1000))])
            for member in flat[::2]:
                yield member
            if cursor == b"0":
                return

    async def sessions_of(self, user_id: str, project: str | None) -> list[SessionRef]:
        """Every session that names the user, also beside others, from all that there are: the indexes know only one."""
        keys, found = self._keys, []
        of = "*" if project is None else f"{percent_encode(project)}/*"
        async for names in scanned(self._connections, f"{keys.prefix}:session:{{{of}}}"):
            refs = [ref for ref in map(keys.session_ref, names) if ref is not None]
            for some in _parts(refs, _SESSIONS_AT_ONCE):
                for ref, texts in zip(some, await self._texts(some), strict=True):
                    if any(_names(text, user_id) for text in texts):
                        found.append(ref)
        return sorted(set(found))

    async def _texts(self, refs: Sequence[SessionRef]) -> list[list[bytes]]:
        """Per session what names users: the entries of its traces, and what is known of those folded."""
        names = [self._keys.session(ref) for ref in refs]
        entries = [Command(name.traces, ("HVALS", name.traces)) for name in names]
        folded = [Command(name.session, ("HGET", name.session, "_f")) for name in names]
        replies = await self._connections.commands([*entries, *folded], corrupt_too=True)
        found = []
        for texts, more in zip(replies[: len(refs)], replies[len(refs) :], strict=True):
            shown = [] if isinstance(texts, CorruptState) else texts
            found.append([*shown, more] if isinstance(more, bytes) else shown)
        return found


def _parts(whole: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    for start in range(0, len(whole), size):
        yield whole[start : start + size]


def _claim(trace_id: bytes, stored: StoredTrace) -> SessionRef | None:
    """Whose trace it is by its state; None where that says nothing."""
    if not stored.state:
        return None
    try:
        return decode_state(trace_id, stored.stamp, stored.state).claim
    except CorruptState:
        return None


def _names(text: bytes, user_id: str) -> bool:
    """Whether an entry of a trace, or what is known of folded ones, has a use by this user."""
    try:
        parts: Any = json.loads(text)
        uses = parts[2] if isinstance(parts, list) else parts["_"][6]
        return any(use[2] == user_id for use in uses)
    except (ValueError, LookupError, TypeError):
        return False
