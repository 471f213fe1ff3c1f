"""What the sessions of a project come to, computed from its indexes alone."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from math import ceil
from typing import Final

from aggregator.adapters.redis.listing import RedisListing
from aggregator.client.models import Bucket, Medians, Percentiles, TimeBucket, Totals, from_ms, to_ms
from aggregator.ports import IndexOrder

_FRESH_S: Final = 5.0  # reading six indexes of 100,000 sessions takes half a second
_MOST_REMEMBERED: Final = 64
_ORDERS: Final = (
    IndexOrder.RECENT,
    IndexOrder.DURATION,
    IndexOrder.TOKENS,
    IndexOrder.COST,
    IndexOrder.ERRORS,
    IndexOrder.TRACES,
)
_NANO: Final = Decimal(10) ** -9
_DURATION_EDGES_MS: Final = (0, 1e3, 3e3, 1e4, 3e4, 6e4, 3e5, 9e5, 3.6e6, 1.44e7)
_STEPS_S: Final = (5, 15, 60, 300, 900, 3600, 10_800, 21_600, 86_400, 604_800, 2_592_000)
_MOST_STEPS: Final = 60

Figures = tuple[float, ...]
"""Of one session, in the order of `_ORDERS`."""

_Key = tuple[str, datetime | None, datetime | None]


class ProjectTotals:
    """Makes totals, one at a time for each project and period, and remembers them for some seconds."""

    def __init__(self, listing: RedisListing) -> None:
        self._listing = listing
        self._made: dict[_Key, tuple[float, asyncio.Task[Totals]]] = {}

    async def totals(self, project: str, since: datetime | None, until: datetime | None) -> Totals:
        """See `Client.totals`."""
        key, now_s = (project, since, until), time.monotonic()
        made_s, task = self._made.get(key, (0.0, None))
        if task is None or (task.done() and (now_s - made_s > _FRESH_S or task.cancelled() or task.exception())):
            task = asyncio.create_task(self._make(project, since, until), name="totals")
            self._made.pop(key, None)
            self._made[key] = (now_s, task)
            while len(self._made) > _MOST_REMEMBERED:
                del self._made[next(iter(self._made))]
        return await asyncio.shield(task)  # others may wait for it

    async def _make(self, project: str, since: datetime | None, until: datetime | None) -> Totals:
        columns = [await self._listing.scored(self._listing.sorted_sets([project], order)) for order in _ORDERS]

        def compute() -> Totals:
            first, *others = [{one.entry.member: one.score for one in column} for column in columns]
            least = float("-inf") if since is None else to_ms(since)
            most = float("inf") if until is None else to_ms(until)
            sessions: list[Figures] = [
                (ended_ms, *(column[member] for column in others))
                for member, ended_ms in first.items()
                if least <= ended_ms <= most and all(member in column for column in others)
            ]
            return _totals(project, since, until, sessions)

        return await asyncio.to_thread(compute)  # the loop goes on meanwhile


def _totals(project: str, since: datetime | None, until: datetime | None, sessions: Sequence[Figures]) -> Totals:
    durations = sorted(duration for _, duration, *_ in sessions)
    with_errors = sum(1 for *_, errors, _ in sessions if errors)
    step_s, over_time = _over_time(sessions)
    return Totals(
        project=project,
        since=since,
        until=until,
        as_of=from_ms(time.time() * 1000),
        sessions=len(sessions),
        traces=int(sum(one[5] for one in sessions)),
        tokens=int(sum(one[2] for one in sessions)),
        cost_usd=_usd(one[3] for one in sessions),
        error_count=int(sum(one[4] for one in sessions)),
        sessions_with_errors=with_errors,
        error_rate=with_errors / len(sessions) if sessions else 0.0,
        duration=_percentiles(durations),
        median=_medians(sessions),
        durations=_buckets(durations),
        step_s=step_s,
        over_time=over_time,
    )


def _usd(costs_nano: Iterable[float]) -> Decimal:
    return Decimal(sum(map(int, costs_nano))) * _NANO


def _percentiles(durations: Sequence[float]) -> Percentiles | None:
    if not durations:
        return None

    def at(share: float) -> float:
        return durations[max(0, ceil(round(share * len(durations), 6)) - 1)]

    return Percentiles(p50=at(0.5), p90=at(0.9), p95=at(0.95), p99=at(0.99), max=durations[-1])


def _medians(sessions: Sequence[Figures]) -> Medians | None:
    if not sessions:
        return None
    _, duration, tokens, cost_nano, errors, traces = (
        sorted(column)[(len(sessions) - 1) // 2] for column in zip(*sessions, strict=True)
    )
    return Medians(
        duration_ms=duration,
        traces=int(traces),
        tokens=int(tokens),
        cost_usd=Decimal(int(cost_nano)) * _NANO,
        errors=int(errors),
    )


def _buckets(durations: Sequence[float]) -> list[Bucket]:
    counts = [0] * len(_DURATION_EDGES_MS)
    for duration in durations:
        counts[max(0, bisect_right(_DURATION_EDGES_MS, duration) - 1)] += 1
    ends = (*_DURATION_EDGES_MS[1:], None)
    return [
        Bucket(from_ms=start, to_ms=end, sessions=count)
        for start, end, count in zip(_DURATION_EDGES_MS, ends, counts, strict=True)
    ]


def _over_time(sessions: Sequence[Figures]) -> tuple[int, list[TimeBucket]]:
    """Steps that fit the time there is; older sessions than the newest steps hold are left out of them."""
    if not sessions:
        return _STEPS_S[0], []
    newest_ms, oldest_ms = max(one[0] for one in sessions), min(one[0] for one in sessions)
    span_s = (newest_ms - oldest_ms) / 1000
    step_s = next((step for step in _STEPS_S if span_s <= step * (_MOST_STEPS - 1)), _STEPS_S[-1])
    last = int(newest_ms // (step_s * 1000))
    first = max(int(oldest_ms // (step_s * 1000)), last - _MOST_STEPS + 1)
    sums = [[0, 0, 0] for _ in range(first, last + 1)]
    for ended_ms, _, tokens, cost_nano, *_ in sessions:
        if (at := int(ended_ms // (step_s * 1000)) - first) >= 0:
            sums[at][0] += 1
            sums[at][1] += int(tokens)
            sums[at][2] += int(cost_nano)
    return step_s, [
        TimeBucket(
            start=from_ms((first + at) * step_s * 1000), sessions=count, tokens=tokens, cost_usd=Decimal(cost) * _NANO
        )
        for at, (count, tokens, cost) in enumerate(sums)
    ]
