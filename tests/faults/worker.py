"""A worker whose ways to the servers lead through proxies, and that can be told at which step to die.

`python -m tests.faults.worker` is `python -m aggregator` otherwise: no part of it knows.

FAULTS_WAYS    JSON, port → port of the proxy that stands before it.  No other port of a server can be reached, so that
               no way is left out by mistake; it works where servers tell their own addresses, as a Cluster does.
FAULTS_DIES    JSON, [before or after, step, n]: at its n-th call of that step the process kills itself.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal

from aggregator import cli
from aggregator.__main__ import main
from aggregator.adapters.kafka.sink import KafkaDeadLetters, KafkaSummarySink
from aggregator.adapters.kafka.source import KafkaSource
from aggregator.adapters.redis.index import RedisSessionIndex
from aggregator.adapters.redis.progress import RedisProgress
from aggregator.adapters.redis.schedule import RedisSchedule
from aggregator.adapters.redis.sessions import RedisSessions
from aggregator.adapters.redis.traces import RedisTraces

When = Literal["before", "after"]

INGEST: Final[dict[str, tuple[type, str]]] = {
    "dead letter": (KafkaDeadLetters, "send"),
    "store traces": (RedisTraces, "store"),
    "schedule sessions": (RedisSchedule, "add"),
    "put sessions": (RedisSessions, "put"),
    "write progress": (RedisProgress, "write"),
    "commit": (KafkaSource, "commit"),
}
"""The steps of the write path, in their order: the methods of the ports that change something."""

CLOSE: Final[dict[str, tuple[type, str]]] = {
    "hold deadlines": (RedisSchedule, "hold"),
    "claim": (RedisSessions, "claim"),
    "publish": (KafkaSummarySink, "publish"),
    "settle": (RedisSessions, "settle"),
    "write indexes": (RedisSessionIndex, "write"),
    "move deadlines": (RedisSchedule, "move"),
}
"""Those of the read path."""


def dies(when: When, step: str, call: int) -> dict[str, str]:
    """The variables of a worker that dies there; calls count from 1."""
    return {"FAULTS_DIES": json.dumps([when, step, call])}


def _die_at(when: When, step: str, call: int) -> None:
    owner, name = (INGEST | CLOSE)[step]
    method: Callable[..., Awaitable[Any]] = getattr(owner, name)
    calls = 0

    @functools.wraps(method)
    async def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        last = calls == call
        if last and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = await method(*arguments, **named)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    setattr(owner, name, counted)


def _lead_through(ways: dict[str, int]) -> None:
    """Let the program's own kind of event loop connect through the proxies; no method of uvloop's can be replaced."""
    loop: type[asyncio.AbstractEventLoop] = cli._loop_factory() or asyncio.SelectorEventLoop

    class Led(loop):  # type: ignore[misc, valid-type]
        async def create_connection(self, factory: Any, host: Any = None, port: Any = None, **named: Any) -> Any:
            if str(port) not in ways:
                raise RuntimeError(f"no way through a proxy leads to {host}:{port}, only to {sorted(ways)}")
            return await super().create_connection(factory, host, ways[str(port)], **named)

    setattr(cli, "_loop_factory", lambda: Led)  # noqa: B010 - a plain assignment is no function's type


if __name__ == "__main__":
    _lead_through(json.loads(os.environ["FAULTS_WAYS"]))
    if point := os.environ.get("FAULTS_DIES"):
        _die_at(*json.loads(point))
    main()
