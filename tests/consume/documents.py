"""Summaries as they may lie on the topic: twice, late, and with names that mean harm."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from aggregator.core.model import SessionRef
from aggregator.core.naming import encode_ref
from tests.docs.test_schema import EXAMPLE
from tests.summaries import check_summary

_NAMES: Final = (
    "turn",
    "\x00",
    "a\\\x00b",
    "\\u0000",
    "\x00\x00\\\\\x00",
    "'; DROP TABLE sessions; --",
    "😀\u202e\x1b[2J",
)


class Published(NamedTuple):
    """One record of the topic."""

    key: bytes
    value: bytes

    @property
    def document(self) -> dict[str, Any]:
        """What it says."""
        document: dict[str, Any] = json.loads(self.value)
        return document


def topic(*, sessions: int, seed: int) -> list[Published]:
    """Several revisions of each session, some published again: in their order, out of it, or with other content."""
    chance = random.Random(seed)
    records = []
    for number in range(sessions):
        ref = SessionRef(("shop", "größe/{1}")[number % 2], f"s-{number}" if number % 5 else f"s {number}%ü")
        for opened in range(chance.randint(1, 2)):
            for revision in range(1, chance.randint(2, 4)):
                records.append(_published(ref, opened, revision, chance))
                if chance.random() < 0.2:  # Redis has fallen back: the same version says more (docs/adr/0009)
                    records.append(_published(ref, opened, revision, chance))
    again = chance.sample(records, len(records) // 3)
    early = chance.sample(range(len(records)), len(records) // 3)
    for one, at in zip(again, early, strict=True):
        records.insert(at, one)
    return records


def _published(ref: SessionRef, opened: int, revision: int, chance: random.Random) -> Published:
    document = copy.deepcopy(EXAMPLE)
    user = chance.choice(["ada", "o'hara", None])
    document |= {
        "summary_id": f"{encode_ref(ref)}@{revision}",
        "project": ref.project,
        "session_id": ref.session_id,
        "revision": revision,
        "opened_at": f"2026-11-22T1{opened}:00:00.400000Z",
        "user_id": user,
        "user_ids": [user] if user else [],
        "trace_count": chance.randrange(2),
        "error_count": chance.randrange(9),
        "cost_usd": f"{chance.randrange(10**12)}.{chance.randrange(10**9):09d}",
    }
    if chance.random() < 0.2:
        document |= {"started_at": None, "ended_at": None, "duration_ms": None}
    document["traces"] = [{**EXAMPLE["traces"][0], "name": chance.choice(_NAMES)}] * document["trace_count"]
    document["models"] = {chance.choice(_NAMES): EXAMPLE["models"]["gpt-4o"]}
    document["tokens"]["total"] = document["tokens"]["prompt"] + document["tokens"]["completion"]
    value = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    check_summary(value)
    return Published(encode_ref(ref).encode(), value)


def last(records: Sequence[Published]) -> dict[tuple[str, str], dict[str, Any]]:
    """By session, what the summary says that counts."""
    found: dict[tuple[str, str], list[tuple[str, int, int]]] = {}
    for at, document in enumerate(record.document for record in records):
        key = (document["project"], document["session_id"])
        found.setdefault(key, []).append((document["opened_at"], document["revision"], at))
    return {key: records[max(versions)[2]].document for key, versions in found.items()}
