"""What is left after the faults, held against the oracle; and how much was needlessly done."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka.structs import ConsumerRecord

from tests.e2e.comparing import assert_dead_letters, assert_equals_oracle
from tests.e2e.deliveries import Delivery
from tests.faults.deployment import Deployment
from tests.oracle import ExpectedSession, expected_sessions


class TooSlowError(AssertionError):
    """All is right, but it took longer than it may."""


@dataclass(kw_only=True)
class Outcome:
    """What one run came to: all of it is added up over runs."""

    spans: int = 0
    sessions: int = 0
    lost: int = 0
    twice: int = 0
    missing: int = 0
    needless: int = 0
    recovery_s: dict[str, float] = field(default_factory=dict)

    def add(self, other: Outcome) -> None:
        """Add another run; of recovery times the longest stays."""
        for name in ("spans", "sessions", "lost", "twice", "missing", "needless"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name, took_s in other.recovery_s.items():
            self.recovery_s[name] = max(took_s, self.recovery_s.get(name, 0.0))

    def assert_within(self, name: str, within_s: float) -> None:
        """Raise `TooSlowError` where what has that name took longer."""
        if (took_s := self.recovery_s[name]) >= within_s:
            raise TooSlowError(f"{name}: {took_s:.2f} s, not within {within_s:g} s")


async def outcome(deployment: Deployment, records: Sequence[Delivery]) -> Outcome:
    """Count first, so that a table can show what the comparison then fails for."""
    now_ms = round(time.time() * 1000)
    found = expected_sessions([(one.message, now_ms) for one in records], price=lambda *_: -1)
    expected = {session.key: session for session in found.values()}
    made = Outcome(sessions=len(expected), recovery_s=dict(deployment.recovery_s))
    summaries = await deployment.read(deployment.summary_topic)
    published = {record.key.decode() for record in summaries}
    made.needless = _needless(summaries)
    for key, session in expected.items():
        spans = _count(session)
        shown = int(deployment.redis.hget(f"agg:session:{{{key}}}", "span_count") or 0)
        made.spans += spans
        made.lost += max(0, spans - shown)
        made.twice += max(0, shown - spans)
        made.missing += key not in published
    return made


def _count(session: ExpectedSession) -> int:
    count = session.summary["span_count"]
    assert isinstance(count, int)
    return count


def _needless(summaries: Sequence[ConsumerRecord]) -> int:
    """How many summaries say nothing that the session's summary before has not said."""
    last: dict[bytes, dict[str, Any]] = {}
    needless: Counter[bytes] = Counter()
    for record in summaries:
        said = json.loads(record.value)
        for name in ("opened_at", "revision", "summary_id", "close_reason"):
            del said[name]
        needless[record.key] += last.get(record.key) == said
        last[record.key] = said
    return needless.total()


async def assert_right(deployment: Deployment, records: Sequence[Delivery], *, lost: bool = False) -> Outcome:
    """Wait until all is settled and compare everything with the oracle.

    `lost` says that Redis has forgotten something meanwhile: revisions may have begun anew.
    """
    await deployment.wait_settled()
    made = await outcome(deployment, records)
    await assert_equals_oracle(deployment, [one.message for one in records], round(time.time() * 1000), lost=lost)
    await assert_dead_letters(deployment, repeated=True)
    assert (made.lost, made.twice, made.missing) == (0, 0, 0)
    return made
