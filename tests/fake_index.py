"""The session index in plain dicts, written from the words of `ports.py`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from aggregator.core.model import SessionRef
from aggregator.ports import IndexOrder, LookedAt
from tests.fakes import FakeSchedule, FakeSessionStore, hash_fields

Listed = dict[IndexOrder, float]


def expected_scores(fields: dict[str, str]) -> Listed | None:
    """What the indexes show of a session whose hash has these public fields; without `CHANGED`."""
    if int(fields.get("trace_count", "0")) == 0:
        return None
    ended_ms = float(fields["last_activity_ms"])
    if "ended_at" in fields:
        ended_ms = float(datetime.fromisoformat(fields["ended_at"]).timestamp() * 1000 // 1)
    return {
        IndexOrder.RECENT: ended_ms,
        IndexOrder.DURATION: float(fields.get("duration_ms", "0")),
        IndexOrder.TOKENS: float(fields["total_tokens"]),
        IndexOrder.COST: float(fields["cost_nano_usd"]),
        IndexOrder.ERRORS: float(fields["error_count"]),
        IndexOrder.TRACES: float(fields["trace_count"]),
    }


class FakeSessionIndex:
    """`ports.SessionIndex` over the fakes of sessions and of the deadline index."""

    LOOK_EVERY_MS = 120_000

    def __init__(self, sessions: FakeSessionStore, schedule: FakeSchedule) -> None:
        self._sessions = sessions
        self._schedule = schedule
        self.listed: dict[SessionRef, Listed] = {}
        self.users: dict[tuple[SessionRef, str], int] = {}  # -> when it is looked at next
        self.changed_ms: dict[SessionRef, int] = {}

    async def write(self, refs: Sequence[SessionRef], *, now_ms: int) -> None:
        for ref in refs:
            session = self._sessions.sessions.get(ref)
            fields = hash_fields(ref, session) if session else {}
            scores = expected_scores(fields)
            if scores is None:
                self.listed.pop(ref, None)
                self.changed_ms.pop(ref, None)
                continue
            self.users[ref, fields.get("user_id", "")] = now_ms + self.LOOK_EVERY_MS
            self.listed[ref] = scores
            self.changed_ms[ref] = now_ms

    async def due(self, shards: Sequence[int], *, now_ms: int, limit: int) -> Sequence[LookedAt]:
        found = [
            LookedAt(*entry)
            for entry, look_ms in self.users.items()
            if look_ms <= now_ms and self._schedule.shard(entry[0]) in shards
        ]
        return found[:limit]

    async def look(self, entries: Sequence[LookedAt], *, now_ms: int) -> None:
        for ref, user_id in entries:
            was = self.changed_ms.get(ref, now_ms)
            await self.write([ref], now_ms=now_ms)
            if ref in self.listed and user_id is not None:
                self.changed_ms[ref] = was
            session = self._sessions.sessions.get(ref)
            shows = hash_fields(ref, session).get("user_id", "") if session and ref in self.listed else None
            if user_id is not None and shows != user_id:
                self.users.pop((ref, user_id), None)

    async def open_sessions(self, shard: int) -> Sequence[SessionRef]:
        return [ref for ref in self._schedule.entries if self._schedule.shard(ref) == shard]
