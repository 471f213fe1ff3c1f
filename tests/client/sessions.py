"""Many sessions in a Redis, put there as the worker puts them, and what lists of them must be."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from aggregator.adapters.redis.keys import Keys
from aggregator.client import Query, StatusFilter
from aggregator.client.models import to_ms
from aggregator.core.model import SessionRef, TracePut
from aggregator.core.naming import percent_encode
from aggregator.core.summary import cost_text, rfc3339
from aggregator.ports import IndexOrder, SessionPut
from tests.contract.builders import HOUR_US, T0_US, trace_put
from tests.contract.conftest import Stores
from tests.fake_index import expected_scores
from tests.indexes import Hashes

T0: Final = datetime.fromtimestamp(T0_US / 1e6, tz=UTC)
PROJECTS: Final = ("demo", "shop/eu {1}", "größe")
USERS: Final = ("ada", "bob", "a d/a%", "", "")
_BATCH: Final = 500


def whole_put(
    number: int,
    version: int = 2**32,
    *,
    started_us: int = T0_US,
    ended_us: int = T0_US + 2_000_000,
    counts: Mapping[str, int] | None = None,
    **more: Any,
) -> TracePut:
    """A trace's put whose entry is as the worker writes it; the arguments are those of `trace_put`."""
    counts = counts or {"span_count": 8, "prompt_tokens": 100, "completion_tokens": 20}
    put = trace_put(number, version, started_us=started_us, ended_us=ended_us, counts=counts, **more)
    prompt, completion = counts.get("prompt_tokens", 0), counts.get("completion_tokens", 0)
    others = dict.fromkeys(("cache_read", "cache_write", "reasoning", "embedding"), 0)
    entry = json.loads(put.entry) | {
        "started_at": rfc3339(started_us) if started_us else None,
        "ended_at": rfc3339(ended_us) if ended_us else None,
        "duration_ms": (ended_us - started_us) / 1000 if started_us and ended_us else None,
        "span_count": counts.get("span_count", 0),
        "error_count": counts.get("error_count", 0),
        "tokens": {"prompt": prompt, "completion": completion, "total": prompt + completion, **others},
        "cost_usd": cost_text(counts.get("cost_whole_usd", 0), counts.get("cost_rest_nano", 0)),
    }
    return TracePut(
        trace_id=put.trace_id,
        version=version,
        changed_ms=put.changed_ms,
        shown=put.shown,
        packed=put.packed,
        entry=json.dumps(entry, separators=(",", ":")).encode(),
    )


def puts(count: int, *, seed: int = 1, projects: Sequence[str] = PROJECTS) -> Iterator[SessionPut]:
    """Sessions of one to three traces, with figures that often tie."""
    chance = random.Random(seed)
    for number in range(count):
        session = SessionRef(chance.choice(projects), f"s-{number}" if number % 7 else f"s {number}/{{ü}}")
        user = chance.choice(USERS)
        traces = []
        for trace in range(chance.randint(1, 3)):
            start = T0_US + chance.randrange(0, 48) * HOUR_US // 2
            known = chance.random() > 0.05
            traces.append(
                whole_put(
                    number * 10 + trace,
                    2**32,
                    started_us=start if known else 0,
                    ended_us=start + chance.choice([1_000_000, 2_500_001, 61_000_000]) if known else 0,
                    counts={
                        "span_count": 8,
                        "error_count": chance.choice([0, 0, 0, 1, 5]),
                        "prompt_tokens": chance.choice([0, 100, 100, chance.randrange(100_000)]),
                        "completion_tokens": chance.choice([20, chance.randrange(1000)]),
                        "cost_whole_usd": chance.choice([0, 0, 0, 12]),
                        "cost_rest_nano": chance.choice([0, 5, 1_000_000, chance.randrange(10**9)]),
                    },
                    users=[(start, "ab" * 8, user)] if user else [],
                )
            )
        yield SessionPut(session, traces)


async def fill(stores: Stores, made: Sequence[SessionPut], *, now_ms: int, closed_share: float = 0.5) -> None:
    """Put them, close some, and write the indexes."""
    for start in range(0, len(made), _BATCH):
        batch = made[start : start + _BATCH]
        await stores.sessions.put(batch)
        refs = [one.ref for one in batch]
        closing = refs[: round(len(refs) * closed_share)]
        opened = refs[len(closing) :]
        await stores.schedule.add([(ref, now_ms) for ref in opened])
        claims = await stores.sessions.claim(closing, watermark_ms=2**52)
        await stores.sessions.settle([(claim.rollup.ref, 1) for claim in claims if claim.rollup is not None])
        await stores.index.write(refs, now_ms=now_ms)


def expected(hashes: Hashes, query: Query, keys: Keys) -> list[SessionRef]:
    """The refs of all sessions that match, by a plain sort of all rollups."""
    found = []
    for ref, fields in hashes.items():
        scores = expected_scores(fields)
        if scores is None or not _matches(ref, fields, scores[IndexOrder.RECENT], query):
            continue
        member = percent_encode(ref.session_id).encode()
        found.append((scores[query.sort.order], ref.project, member, ref))
    return [ref for *_, ref in sorted(found, reverse=not query.ascending)]


def _matches(ref: SessionRef, fields: dict[str, str], ended_ms: float, query: Query) -> bool:
    user = fields.get("user_id", "")
    return (
        (query.project is None or ref.project == query.project)
        and (query.user is None or user == query.user)
        and (query.status is None or (fields["status"] == "closed") == (query.status is StatusFilter.CLOSED))
        and (query.since is None or ended_ms >= to_ms(query.since))
        and (query.until is None or ended_ms <= to_ms(query.until))
        and (query.search is None or ref.session_id.startswith(query.search) or user.startswith(query.search))
    )
