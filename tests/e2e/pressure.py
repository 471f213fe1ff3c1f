"""A lag of many small records, a Redis at a tenth of its speed, and what a worker looks like meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.builders import span_id, to_protobuf, trace_id
from tests.e2e.deliveries import PARTITIONS, known_trace
from tests.e2e.pipeline import Pipeline
from tests.e2e.workers import Answer, Worker
from tests.redis_servers import RedisServer

TRACE_SPANS: Final = 10
SESSION_SPANS: Final = 100
_BATCH_BYTES: Final = 500_000
_PERIOD_S: Final = 0.1  # as the CPU limit of a container counts
TENTH: Final = 0.1
_LEAST_SHARE: Final = 0.02
_TRIES: Final = 5
_LOOK_S: Final = 0.25
_SPIN: Final = "local x = 0 for i = 1, 1000000 do x = x + i end return x"


# --- a slow Redis ----------------------------------------------------------------------------------------------------


def speed(server: RedisServer) -> float:
    """How many times a second it runs a script that takes nothing but its CPU."""
    with server.client() as client:
        began_s = time.monotonic()
        for _ in range(10):
            client.eval(_SPIN, 0)
        return 10 / (time.monotonic() - began_s)


@contextmanager
def running_for(server: RedisServer, share: float) -> Iterator[None]:
    """Let it run for that share of the time, as in a container that may use as much of a CPU."""
    assert server.process is not None
    pid, over = server.process.pid, threading.Event()

    def throttle() -> None:
        try:
            while not over.is_set():
                began_s = time.monotonic()
                time.sleep(_PERIOD_S * share)
                os.kill(pid, signal.SIGSTOP)
                ran_s = time.monotonic() - began_s  # longer than meant, on a busy machine
                time.sleep(ran_s * (1 - share) / share)
                os.kill(pid, signal.SIGCONT)
        finally:
            os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=throttle, name="throttle")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def share_for_a_tenth(server: RedisServer) -> tuple[float, float]:
    """For which share of the time it has to run to be a tenth as fast, and how fast it was then, as part of the whole.

    On a busy machine it is more than a tenth as fast in a tenth of the time, since it has rested before; what is
    measured there is noisy, so a few tries are made.
    """
    share = part = TENTH
    for number in range(_TRIES):
        share = max(share * TENTH / part, _LEAST_SHARE) if number else TENTH
        whole = speed(server)
        with running_for(server, share):
            part = speed(server) / whole
        if part < 1.2 * TENTH:
            break
    return share, part


# --- many small records ----------------------------------------------------------------------------------------------


def small_records(first: int, count: int) -> Iterator[bytes]:
    """Records of one span of some 150 bytes each, ten of them a trace, ten traces a session."""
    whole = to_protobuf(known_trace(1, round(time.time() * 1000), session="s-0000000", spans=1))
    before_trace, rest = whole.split(trace_id(1), 1)
    before_span, rest = rest.split(span_id(1), 1)
    before_session, after = rest.split(b"s-0000000", 1)
    for number in range(first, first + count):
        trace, span, session = number // TRACE_SPANS + 1, number % TRACE_SPANS + 1, number // SESSION_SPANS
        yield b"".join(
            (before_trace, trace_id(trace), before_span, span_id(span), before_session, b"s-%07d" % session, after)
        )


async def pile_up(made: Pipeline, first: int, count: int) -> None:
    """Append them evenly over the partitions, whole batches at a time."""
    now_ms = round(time.time() * 1000)
    async with made.broker.producer(max_batch_size=_BATCH_BYTES) as producer:
        batches: list[Any] = [producer.create_batch() for _ in range(PARTITIONS)]

        async def send(number: int) -> None:
            if batches[number].record_count():
                place = await (await producer.send_batch(batches[number], made.topic, partition=number))
                made.ends[number] = place.offset + batches[number].record_count()
            batches[number] = producer.create_batch()

        for index, value in enumerate(small_records(first, count)):
            number = index % PARTITIONS
            if batches[number].append(timestamp=now_ms, key=None, value=value) is None:
                await send(number)
                batches[number].append(timestamp=now_ms, key=None, value=value)
        for number in range(PARTITIONS):
            await send(number)


# --- what the worker looks like --------------------------------------------------------------------------------------


def resident_bytes(worker: Worker, which: str = "VmRSS") -> int:
    """Its memory now, or at its peak (`VmHWM`)."""
    lines = Path(f"/proc/{worker.child.pid}/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{which}:"))
    return int(line.split()[1]) * 1024


@dataclass(kw_only=True)
class Look:
    """What was seen of a worker, four times a second."""

    live: set[Answer] = field(default_factory=set)
    ready: set[Answer] = field(default_factory=set)
    longest_standstill_s: float = 0.0
    resident: list[int] = field(default_factory=list)
    applied: int = 0

    async def watch(self, made: Pipeline, worker: Worker, total: int) -> None:
        """Look until all is applied."""
        moved_s = time.monotonic()
        while self.applied < total:
            self.live.add(await worker.get("/livez"))
            self.ready.add(await worker.get("/readyz"))
            self.resident.append(resident_bytes(worker))
            applied, now_s = await asyncio.to_thread(made.applied), time.monotonic()
            if applied > self.applied:
                self.applied, moved_s = applied, now_s
            self.longest_standstill_s = max(self.longest_standstill_s, now_s - moved_s)
            await asyncio.sleep(_LOOK_S)
