"""One run of the demo: traffic goes in, sessions are shown, and at the end both are compared."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from aggregator.core.model import SessionRef
from aggregator.embedded.ledger import Figures, Ledger, differences
from aggregator.embedded.process import LOCALHOST, EmbeddedError
from aggregator.embedded.screen import Screen, counted, figures_text, screen_for_stdout
from aggregator.embedded.stage import ALLOWED_SKEW_S, IDLE_TIMEOUT_S, RETENTION_S, SPANS_TOPIC, SUMMARY_TOPIC, Stage
from aggregator.embedded.traffic import Traffic
from aggregator.embedded.watch import Shown, Summaries, read_sessions

_REFRESH_S: Final = 0.5
_CLOSING_S: Final = 3.5  # on top of idle timeout and skew: last turns, idle answers of the broker, two refreshes
_TAIL_S: Final = IDLE_TIMEOUT_S + ALLOWED_SKEW_S + _CLOSING_S
"""How long before the end traffic has to stop for the last sessions to be closed by then."""
_LEAST_TRAFFIC_S: Final = 3.0
_SETTLE_S: Final = 10.0  # for the last spans and summaries on a busy machine; usually they are there at once
_DIFFERENCES_SHOWN: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run came to; `differing` are the sessions that are not seen as they were sent, one line each."""

    sent: Ledger
    closed: int
    cost_usd: Decimal
    others: int
    differing: list[str]
    worker_exit_code: int

    @property
    def good(self) -> bool:
        """Whether everything is as it should be."""
        return not self.differing and self.worker_exit_code == 0

    def line(self) -> str:
        """The demo's last line."""
        total = len(self.sent.sessions)
        parts = [
            f"total   {counted(total, 'session')} sent ({self.closed} closed, {total - self.closed} open), "
            + figures_text(self.sent.total(), self.cost_usd)
        ]
        if self.others:
            parts.append(f"{counted(self.others, 'session')} of other applications")
        if self.worker_exit_code:
            parts.append(f"the worker ended with exit code {self.worker_exit_code}")
        if self.differing:
            more = len(self.differing) - _DIFFERENCES_SHOWN
            shown = self.differing[:_DIFFERENCES_SHOWN] + ([f"and {more} more"] if more > 0 else [])
            parts.append(f"Redis and summaries DIFFER from what was sent: {' / '.join(shown)}")
        else:
            parts.append("Redis and summaries equal what was sent")
        return "; ".join(parts)


async def show(*, seconds: float | None, http_port: int, interrupted: asyncio.Event) -> Outcome | None:
    """Start everything, run for `seconds` or until interrupted, end everything.

    None where it was interrupted before the worker was ready.  Raises `EmbeddedError` with what to do or what was
    seen where a part does not start or dies.
    """
    stage = Stage(http_port=http_port)
    _log_to_file(stage)
    screen = screen_for_stdout()
    screen.say("Starting a broker, Valkey and the worker …")
    async with stage:
        screen.say(_introduction(stage, http_port))
        if not await _done_before(interrupted, stage.ready()):
            return None
        async with (
            Traffic(stage.receiver.endpoint) as traffic,
            Summaries(stage.broker.bootstrap_servers, SUMMARY_TOPIC) as summaries,
            Redis.from_url(stage.valkey.url, decode_responses=True) as client,
        ):
            run = _Run(stage, traffic, summaries, client, screen)
            with screen:
                await run.until_over(seconds, interrupted)
            outcome = run.outcome(worker_exit_code=await stage.stop_worker())
        if not outcome.good:
            stage.keep_logs()
            screen.say(f"All logs are kept in {stage.log_dir}")
    return outcome


class _Run:
    """The running demo, from the worker being ready until the comparison."""

    def __init__(self, stage: Stage, traffic: Traffic, summaries: Summaries, client: Redis, screen: Screen) -> None:
        self._stage = stage
        self._traffic = traffic
        self._summaries = summaries
        self._client = client
        self._screen = screen
        self._sessions: dict[SessionRef, Shown] = {}

    async def until_over(self, seconds: float | None, interrupted: asyncio.Event) -> None:
        """Let traffic run and look every half second, until it is time and everything has come through."""
        began = time.monotonic()
        traffic_s = None if seconds is None else max(_LEAST_TRAFFIC_S, seconds - _TAIL_S)

        def over(limit_s: float | None) -> bool:
            return interrupted.is_set() or (limit_s is not None and time.monotonic() - began >= limit_s)

        stop = asyncio.Event()
        talk = asyncio.create_task(self._traffic.run(stop), name="traffic")
        try:
            await self._look_until(lambda: over(traffic_s) or talk.done())
            stop.set()
            await self._look_until(talk.done)
            await talk
            await self._look_until(lambda: over(seconds))
            settled_by = time.monotonic() + _SETTLE_S

            def settled() -> bool:
                all_closed = interrupted.is_set() or len(self._closed()) == len(self._traffic.ledger.sessions)
                return all_closed and not self._differences()

            await self._look_until(lambda: settled() or time.monotonic() >= settled_by)
        finally:
            talk.cancel()
            await asyncio.wait((talk,))

    async def _look_until(self, ended: Callable[[], bool]) -> None:
        await self._look()
        while not ended():
            await asyncio.sleep(_REFRESH_S)
            await self._look()

    def outcome(self, *, worker_exit_code: int) -> Outcome:
        """Compare, as of the last look."""
        sent = self._traffic.ledger
        shown = self._summaries.latest | self._sessions  # Redis forgets closed sessions in time, summaries stay
        own = [shown[ref] for ref in sent.sessions if ref in shown]
        return Outcome(
            sent=sent,
            closed=len(self._closed()),
            cost_usd=sum((session.cost_usd for session in own), Decimal()),
            others=len(shown) - len(own),
            differing=self._differences(),
            worker_exit_code=worker_exit_code,
        )

    async def _look(self) -> None:
        """See that all processes live, and show what Redis and the summaries show."""
        self._stage.check()
        try:
            self._sessions = await read_sessions(self._client)
        except RedisError as error:
            self._stage.check()
            raise EmbeddedError(f"Valkey does not answer: {error}") from error
        for summary in await self._summaries.poll():
            self._screen.summary(summary)
        self._screen.sessions([shown for shown in self._sessions.values() if shown.status != "closed"])

    def _differences(self) -> list[str]:
        """What Redis shows otherwise than it was sent, and for closed sessions also what their summaries do."""
        sent = self._traffic.ledger.sessions
        in_redis = {ref: shown.figures for ref, shown in self._sessions.items()}
        published = {ref: shown.figures for ref, shown in self._summaries.latest.items()}
        kept = {ref: figures for ref, figures in sent.items() if ref in in_redis or ref not in published}
        return [f"Redis: {line}" for line in differences(kept, in_redis)] + [
            f"summary: {line}" for line in differences(self._closed(), published)
        ]

    def _closed(self) -> dict[SessionRef, Figures]:
        """The sent sessions that are closed: by their status, or by their summary once Redis has forgotten them."""
        closed = {}
        for ref, figures in self._traffic.ledger.sessions.items():
            shown = self._sessions.get(ref)
            if shown.status == "closed" if shown else ref in self._summaries.latest:
                closed[ref] = figures
        return closed


def _log_to_file(stage: Stage) -> None:
    """Keep the warnings of libraries off the screen."""
    logging.basicConfig(filename=stage.log_dir / "demo.log", level=logging.WARNING, force=True)
    logging.captureWarnings(capture=True)


def _introduction(stage: Stage, http_port: int) -> str:
    receiver = stage.receiver
    text = _INTRODUCTION.format(
        web=f"http://{LOCALHOST}:{stage.web_port}/",
        endpoint=receiver.endpoint,
        kafka=stage.broker.bootstrap_servers,
        redis_port=stage.valkey.port,
        pid=stage.worker.pid,
        log=stage.worker.log_path,
        metrics=f"http://{LOCALHOST}:{stage.metrics_port}/metrics",
    )
    if http_port in (receiver.port, 0):
        return text
    return f"Port {http_port} is taken (by a collector?); OTLP is received on {receiver.port} instead.\n{text}"


_INTRODUCTION: Final = f"""\
See the sessions at {{web}} as soon as the worker is ready.
To see an application of your own, put a session id on its spans (attribute session.id, with OpenInference
using_session("...")) and start it with
    OTEL_EXPORTER_OTLP_ENDPOINT={{endpoint}} OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf
The demo receives OTLP/HTTP itself; in production the OpenTelemetry Collector does, with its Kafka exporter.
Kafka    {{kafka}}, topics {SPANS_TOPIC} and {SUMMARY_TOPIC}
Redis    redis-cli -p {{redis_port}}, keys agg:session:{{{{<project>/<session id>}}}}
         AGGREGATOR_REDIS__URL=redis://{LOCALHOST}:{{redis_port}}/0 for session-aggregator sessions ls, or mcp
Worker   python -m aggregator run, pid {{pid}}, metrics {{metrics}}
         log {{log}}
Sessions close {IDLE_TIMEOUT_S:g} s after their last activity (default 30 min), and go {RETENTION_S:g} s later (24 h).
"""


async def _done_before(interrupted: asyncio.Event, work: Coroutine[object, object, None]) -> bool:
    """Whether the work came to its end before the interruption, which cancels it; its errors are raised."""
    working, waiting = asyncio.ensure_future(work), asyncio.ensure_future(interrupted.wait())
    try:
        await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        if not working.done():
            working.cancel()
            await asyncio.wait((working,))
    if working.cancelled():
        return False
    working.result()
    return True
