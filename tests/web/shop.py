"""Made-up traffic for the web view to show, and the view on it as a process of its own."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from aggregator.adapters.redis.connections import connect
from aggregator.adapters.redis.keys import Keys
from aggregator.core.model import SessionRef
from aggregator.ports import SessionPut
from tests.client.sessions import whole_put
from tests.contract.conftest import Stores, redis_stores

KEYS: Final = Keys()
TRACE_URL: Final = "https://jaeger.example/trace/{trace_id}?session={session_id}"
RUNAWAY: Final = SessionRef("travel", "runaway-agent")
FAILED: Final = f"{90_003:032x}"
"""The one of its traces that failed."""

_STEPS: Final = ("plan the trip", "search flights", "compare hotels", "book", "summarise", "answer")
_USERS: Final = ("ada", "grace", "linus", "margaret", "")


async def stock(url: str, *, sessions: int = 120, seed: int = 3) -> None:
    """Sessions of the last day; `runaway-agent` is the most expensive open one, and its fourth trace failed."""
    connections = connect(url)
    stores = redis_stores(connections, None, KEYS)
    chance = random.Random(seed)
    now_us = round(time.time() * 1e6)
    puts = [_session(chance, number, now_us) for number in range(sessions)]
    closed = [put.ref for put in puts[: sessions // 2]]
    await stores.sessions.put([*puts, _runaway(now_us)])
    claims = await stores.sessions.claim(closed, watermark_ms=2**52)
    await stores.sessions.settle([(claim.rollup.ref, 1) for claim in claims if claim.rollup is not None])
    refs = [put.ref for put in puts] + [RUNAWAY]
    await stores.schedule.add([(ref, now_us // 1000) for ref in refs if ref not in closed])
    await stores.index.write(refs, now_ms=now_us // 1000)
    await connections.close()


def _session(chance: random.Random, number: int, now_us: int) -> SessionPut:
    at_us = now_us - chance.randrange(20 * 3600) * 1_000_000
    user, traces = chance.choice(_USERS), []
    for trace in range(chance.randint(1, 7)):
        took_us = chance.randrange(200_000, 40_000_000)
        prompt, completion = chance.randrange(200, 30_000), chance.randrange(10, 2000)
        nano = prompt * 2500 + completion * 10_000
        traces.append(
            whole_put(
                number * 100 + trace, name=chance.choice(_STEPS), started_us=at_us, ended_us=at_us + took_us,
                counts={
                    "span_count": chance.randint(2, 20), "llm_span_count": 1,
                    "error_count": chance.randint(0, 12) // 12,
                    "prompt_tokens": prompt, "completion_tokens": completion, "cost_rest_nano": nano,
                },
                users=[(at_us, "ab" * 8, user)] if user else [],
                models={chance.choice(["gpt-4o", "claude-sonnet-4"]): [1, prompt, completion, 0, 0, nano]},
            )
        )  # fmt: skip
        at_us += took_us + chance.randrange(60_000_000)
    project = chance.choice(["travel", "travel", "support"])
    return SessionPut(SessionRef(project, f"chat-{number:04d}"), traces)


def _runaway(now_us: int) -> SessionPut:
    start_us = now_us - 1_900_000_000
    traces = [
        whole_put(
            90_000 + step, name="search flights" if step == 3 else _STEPS[step % len(_STEPS)],
            started_us=start_us + step * 150_000_000, ended_us=start_us + step * 150_000_000 + 120_000_000,
            counts={
                "span_count": 40, "llm_span_count": 12, "error_count": int(step == 3),
                "error_trace_count": int(step == 3), "reported_costs": 12, "prompt_tokens": 400_000,
                "completion_tokens": 9000,
                "cost_whole_usd": 4, "cost_rest_nano": 310_000_000,
            },
            users=[(start_us, "ab" * 8, "grace")],
            models={"gpt-4o": [12, 400_000, 9000, 0, 4, 310_000_000]},
        )
        for step in range(12)
    ]  # fmt: skip
    return SessionPut(RUNAWAY, traces)


async def add_trace(stores: Stores, ref: SessionRef, number: int) -> None:
    """One more trace of a session, in the indexes as well."""
    now_us = round(time.time() * 1e6)
    await stores.sessions.put([SessionPut(ref, [whole_put(number, started_us=now_us - 1_000_000, ended_us=now_us)])])
    await stores.index.write([ref], now_ms=now_us // 1000)


async def grow(url: str, number: int) -> None:
    """One more trace of `runaway-agent`."""
    connections = connect(url)
    await add_trace(redis_stores(connections, None, KEYS), RUNAWAY, number)
    await connections.close()


def environ_of(redis_url: str, **settings: str) -> dict[str, str]:
    """The variables of a process that looks at it."""
    own = {"REDIS__URL": redis_url, "WEB__TRACE_URL": TRACE_URL} | settings
    return {**os.environ, **{f"AGGREGATOR_{name}": value for name, value in own.items()}}


@contextmanager
def web(redis_url: str, **settings: str) -> Iterator[str]:
    """`session-aggregator web` on a free port; gives its address."""
    environ = environ_of(redis_url, WEB__PORT="0", WEB__REQUESTS_PER_S="10000", **settings)
    with served(["web"], environ) as address:
        yield address.rstrip("/")


@contextmanager
def served(arguments: Sequence[str], environ: dict[str, str]) -> Iterator[str]:
    """A command that serves HTTP, as a process of its own; gives the address that it says."""
    process = subprocess.Popen(
        [sys.executable, "-m", "aggregator", *arguments], env=environ, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, line
        yield found[0]
        process.terminate()
        assert process.wait(timeout=30) == 0
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
