"""Input without bounds: what a session, a topic or a million of them may take of Redis and of everybody's time.

The write path's own parts on a real Redis, with the worker's defaults, a batch of 500 traces at a time.
Sizes are a tenth of a million, so that each test takes less than two minutes; `BOUNDS_TRACES=1000000` is all of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from aggregator.adapters.redis.connections import connect
from aggregator.adapters.redis.keys import Keys
from aggregator.adapters.redis.schedule import RedisSchedule
from aggregator.adapters.redis.sessions import RedisSessions
from aggregator.adapters.redis.traces import RedisTraces
from aggregator.core.fold import Folder
from aggregator.core.model import LLM, NO_CLAIM, SessionRef, Span
from aggregator.core.summary import summary
from aggregator.ports import Claim, ClaimOutcome, SessionPut, TraceWrite
from aggregator.settings import Settings
from tests.core.trees import FlatPricer
from tests.redis_servers import RedisServer, assert_every_key_lives_or_expires, redis_servers_available

TRACES: Final = int(os.environ.get("BOUNDS_TRACES", "100000"))
BATCH: Final = 500
SESSION: Final = Settings().session
IDLE_MS: Final = round(SESSION.idle_timeout_s * 1000)
RETENTION_MS: Final = round(SESSION.retention_s * 1000)
T0_MS: Final = 1_790_000_000_000
DEFAULT: Final = SessionRef("default", "default")
BROKER_LIMIT_BYTES: Final = 1_000_000  # what a topic takes by default, and a little less


class Writing:
    """Fold and store, as the write path does it."""

    def __init__(self, url: str) -> None:
        self.connections = connect(url, socket_timeout_s=60)
        keys = Keys()
        self.traces = RedisTraces(self.connections, keys)
        self.sessions = RedisSessions(
            self.connections,
            keys,
            idle_timeout_ms=IDLE_MS,
            max_duration_ms=round(SESSION.max_duration_s * 1000),
            retention_ms=RETENTION_MS,
            max_session_traces=SESSION.max_session_traces,
            trace_life_ms=IDLE_MS + RETENTION_MS,
        )
        self.schedule = RedisSchedule(self.connections, keys)
        self.folder = Folder(
            max_trace_spans=SESSION.max_trace_spans,
            cache_spans=Settings().ingest.trace_cache_spans,
            pricer=FlatPricer(),
        )
        self.made = 0

    async def apply(self, session_ids: Sequence[str], *, life_ms: int = IDLE_MS + RETENTION_MS) -> None:
        """One batch: a new trace of one span for each of these sessions, none where the id is empty."""
        for session_id in session_ids:
            self.made += 1
            self.folder.add([lone_span(self.made, session_id)], T0_MS + self.made // 100)
        while writes := self.folder.writes():
            cas = [TraceWrite(one.trace_id, one.expected, one.stamp, one.state, life_ms) for one in writes]
            self.folder.stored(list(await self.traces.store(cas)))
        puts = [SessionPut(ref, traces) for ref, traces in self.folder.puts().items()]
        if puts:
            await self.schedule.add([(put.ref, put.traces[0].changed_ms + IDLE_MS) for put in puts])
            await self.sessions.put(puts)
        self.folder.finish()

    async def close(self, refs: Sequence[SessionRef]) -> list[Claim]:
        """Claim and settle sessions that are due."""
        claims = list(await self.sessions.claim(refs, watermark_ms=T0_MS + 10 * IDLE_MS))
        rollups = [claim.rollup for claim in claims if claim.rollup is not None]
        assert all(await self.sessions.settle([(rollup.ref, rollup.revision) for rollup in rollups]))
        return claims


def lone_span(number: int, session_id: str) -> Span:
    start_us = T0_MS * 1000 + number * 10_000
    return Span(
        trace_id=number.to_bytes(16, "big"),
        span_id=number.to_bytes(8, "big"),
        name="answer a question of a customer",
        start_us=start_us,
        end_us=start_us + 2_000_000,
        span_class=LLM,
        service="chat",
        scope="openinference.instrumentation.openai",
        claim_row=0 if session_id else NO_CLAIM,
        claim_session_id=session_id,
        user_id=f"user-{number % 1000}" if session_id else "",
        model="gpt-4o",
        prompt_tokens=100,
        completion_tokens=20,
        written_prompt_tokens=100,
        written_completion_tokens=20,
    )


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    server = RedisServer(next(iter(redis_servers_available().values())))
    yield server
    server.remove()


@pytest.fixture
def plain(redis_server: RedisServer) -> Iterator[Any]:
    with redis_server.client() as client:
        yield client


@pytest.fixture
async def writing(redis_server: RedisServer) -> AsyncIterator[Writing]:
    made = Writing(redis_server.url)
    yield made
    await made.connections.close()


def used_bytes(plain: Any) -> int:
    return int(plain.info("memory")["used_memory"])


def redis_cpu_s(plain: Any) -> float:
    found = plain.info("cpu")
    return float(found["used_cpu_user"]) + float(found["used_cpu_sys"])


def resident_bytes() -> int:
    """Of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def share(writing: Writing, plain: Any, rounds: int, name: str, *, shared: bool) -> tuple[float, float, float]:
    """Seconds and Redis's CPU per trace, and the longest batch; every second trace is of `default` where `shared`."""
    spent, longest, cpu_s = 0.0, 0.0, redis_cpu_s(plain)
    for number in range(rounds):
        ids = ["default" if shared and index % 2 else f"{name}-{number}-{index}" for index in range(BATCH)]
        began = time.perf_counter()
        await writing.apply(ids)
        took = time.perf_counter() - began
        spent, longest = spent + took, max(longest, took)
    count = rounds * BATCH
    return spent / count, (redis_cpu_s(plain) - cpu_s) / count, longest


@pytest.mark.timeout(600)
async def test_a_session_that_everyone_shares_does_not_slow_the_others(writing: Writing, plain: Any) -> None:
    """Half of the traces go to `default`, where its last thousand are shown and all others folded already.

    What others wait for is the batch: it is compared with one in which those traces are of sessions of their own.
    """
    for _ in range(10):
        await writing.apply(["default"] * BATCH)
    rounds = TRACES // BATCH // 20
    alone, beside = [], []
    for turn in range(4):  # in turn, so that a busy machine meets both
        alone.append(await share(writing, plain, rounds, f"a-{turn}", shared=False))
        beside.append(await share(writing, plain, rounds, f"b-{turn}", shared=True))
    factor = min(one[0] for one in beside) / min(one[0] for one in alone)
    redis_factor = min(one[1] for one in beside) / min(one[1] for one in alone)
    longest = min(one[2] for one in beside) / min(one[2] for one in alone)
    print(f"a batch takes {factor:.2f} times as long, Redis {redis_factor:.2f}, the longest batch {longest:.2f}")
    assert plain.hlen(Keys().session(DEFAULT).traces) <= SESSION.max_session_traces
    assert max(factor, redis_factor) < 1.5
    assert_every_key_lives_or_expires(plain, indexed=True)


@pytest.mark.timeout(1200)
async def test_a_session_of_a_million_traces_stays_small_and_says_so(writing: Writing, plain: Any) -> None:
    names = Keys().session(DEFAULT)
    sizes = []
    for number in range(TRACES // BATCH):
        await writing.apply(["default"] * BATCH)
        if number in (9, TRACES // BATCH - 1):
            sizes.append(sum(plain.memory_usage(name, samples=0) for name in names))
    began = time.perf_counter()
    (claim,) = await writing.close([DEFAULT])
    took_ms = (time.perf_counter() - began) * 1000
    assert claim.outcome is ClaimOutcome.CLAIMED
    assert claim.rollup is not None
    document = summary(claim.rollup)
    said = json.loads(document)
    print(f"session {sizes[0]:,} -> {sizes[1]:,} bytes, summary {len(document):,}, claim and settle {took_ms:.0f} ms")
    assert (said["trace_count"], said["span_count"], said["truncated"]) == (TRACES, TRACES, True)
    assert said["tokens"]["total"] == 120 * TRACES
    assert 0 < len(said["traces"]) <= SESSION.max_session_traces
    assert len(said["user_ids"]) == 16
    assert sizes[1] < 1.25 * sizes[0] < 2_000_000
    assert len(document) < BROKER_LIMIT_BYTES
    assert took_ms < 1000
    assert_every_key_lives_or_expires(plain)


@pytest.mark.timeout(1200)
async def test_a_million_sessions_of_one_trace(writing: Writing, plain: Any) -> None:
    empty, rss = used_bytes(plain), 0
    for number in range(TRACES // BATCH):
        await writing.apply([f"s-{number}-{index}" for index in range(BATCH)])
        if number == TRACES // BATCH // 2:
            rss = resident_bytes()
    each = (used_bytes(plain) - empty) / TRACES
    grown = resident_bytes() - rss
    print(f"{each:,.0f} bytes of Redis a session; this process grew by {grown:,} bytes over the second half")
    assert each < 3_500
    assert grown < 32_000_000
    assert_every_key_lives_or_expires(plain, indexed=True)
    closed = 0
    for number in range(TRACES // BATCH):
        refs = [SessionRef("default", f"s-{number}-{index}") for index in range(BATCH)]
        for start in range(0, BATCH, 64):
            claims = await writing.close(refs[start : start + 64])
            closed += sum(claim.outcome is ClaimOutcome.CLAIMED for claim in claims)
    assert closed == TRACES
    assert_every_key_lives_or_expires(plain)


@pytest.mark.timeout(1200)
async def test_a_topic_of_unclaimed_spans_only(writing: Writing, plain: Any) -> None:
    """Each state expires `unclaimed_ttl` after its last span, so Redis holds those of that time and no more."""
    empty, rss, life_ms, most = used_bytes(plain), 0, 2_000, 0
    for number in range(TRACES // BATCH):
        await writing.apply([""] * BATCH, life_ms=life_ms)
        most = max(most, plain.dbsize())
        if number == TRACES // BATCH // 2:
            rss = resident_bytes()
            each = (used_bytes(plain) - empty) / plain.dbsize()
    grown = resident_bytes() - rss
    print(f"{each:,.0f} bytes a trace, {most:,} of {TRACES:,} at most; this process grew by {grown:,} bytes")
    assert grown < 32_000_000
    assert each < 600
    assert not list(plain.scan_iter(match="agg:session:*", count=1000))
    assert all(plain.pttl(key) <= life_ms for key in plain.scan_iter(match="agg:trace:*", count=1000))
    assert most < TRACES or TRACES <= 100_000
    deadline = time.monotonic() + 30
    while plain.dbsize():  # Redis looks for what has expired ten times a second
        assert time.monotonic() < deadline
        await asyncio.sleep(0.2)
