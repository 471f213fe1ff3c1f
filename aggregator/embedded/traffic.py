"""Traffic of the demo: several LLM applications with several users each, traced and exported as real ones are.

OpenTelemetry's SDK, OpenInference's instrumentation helpers and the standard OTLP/HTTP exporter do the work; life is
sped up so that sessions open, grow, fall idle and close within seconds.  Now and then a batch is exported twice, as an
exporter does that missed the answer to its first try.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, NamedTuple, Self

import requests
from openinference.instrumentation import OITracer, TraceConfig, using_attributes
from openinference.semconv.resource import ResourceAttributes
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from aggregator.core.model import SessionRef
from aggregator.embedded.ledger import Ledger
from aggregator.embedded.otlp_http import TRACES_PATH
from aggregator.embedded.scenes import SCENES, RateLimitedError
from aggregator.embedded.turn import Tracers, Turn

_USERS: Final = ("ada", "barbara", "claude", "dennis", "edsger", "frances", "grace", "hedy", "ken", "margaret")
_EXPORT_EVERY_MS: Final = 200
_EXPORT_TIMEOUT_S: Final = 30.0
_REPEAT_EVERY: Final = 6  # batches
_CONVERSATIONS: Final = 6  # at once
_SHORT: Final = 0.9  # of the sessions; the others go on and on, as an agent does that finds no end
_RETURN_AFTER_S: Final = 9.0  # longer than the demo's idle timeout: the session is closed by then


class _App(NamedTuple):
    """An application that is traced."""

    project: str
    service: str


_APPS: Final = (_App("shop", "shop-assistant"), _App("helpdesk", "helpdesk-agent"))


class RepeatingExporter(SpanExporter):
    """Hands every batch on, and some of them twice."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._batches = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export, and export again every few batches."""
        self._batches += 1
        if self._batches % _REPEAT_EVERY == 0:
            self._exporter.export(spans)
        return self._exporter.export(spans)

    def shutdown(self) -> None:
        """Shut the real exporter down."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the real exporter."""
        return self._exporter.force_flush(timeout_millis)


class Traffic:
    """Users who talk to applications until they are told to stop.

    `endpoint` is the base address of an OTLP/HTTP receiver.  `ledger` holds the true figures of what was sent; they
    are complete once `run` has returned.  Equal seeds make equal sessions, their ids aside.
    An `exporter` in place of the OTLP one gets the spans of all applications; it is not shut down.
    """

    def __init__(
        self, endpoint: str, *, seed: int | None = None, speed: float = 1.0, exporter: SpanExporter | None = None
    ) -> None:
        self.ledger = Ledger()
        self._endpoint = endpoint
        self._dice = random.Random(seed)  # noqa: S311 - nothing here is secret
        self._speed = speed
        self._exporter = exporter
        self._providers: list[TracerProvider] = []
        self._tracers: dict[_App, Tracers] = {}

    async def __aenter__(self) -> Self:
        search = self._provider({"service.name": "search-api"})
        for app in _APPS:
            provider = self._provider({"service.name": app.service, ResourceAttributes.PROJECT_NAME: app.project})
            self._tracers[app] = Tracers(
                app=OITracer(provider.get_tracer("openinference.instrumentation.openai"), config=TraceConfig()),
                framework=OITracer(
                    provider.get_tracer("openinference.instrumentation.llama_index"), config=TraceConfig()
                ),
                service=search.get_tracer("opentelemetry.instrumentation.asgi"),
            )
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        # In threads, since the receiver may live in this very event loop.
        await asyncio.gather(*(asyncio.to_thread(provider.shutdown) for provider in self._providers))

    async def run(self, stop: asyncio.Event) -> None:
        """Talk until `stop` is set; the turns that are under way then are finished, and all spans are exported."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(_CONVERSATIONS):
                app = _APPS[number % len(_APPS)]
                dice = random.Random(self._dice.random())  # noqa: S311 - likewise
                tasks.create_task(self._talk(app, dice, stop), name=f"sessions-{number}")
        await asyncio.to_thread(self._flush)

    def _flush(self) -> None:
        for provider in self._providers:
            provider.force_flush()

    async def _talk(self, app: _App, dice: random.Random, stop: asyncio.Event) -> None:
        """One session after the other."""
        await self._idle(dice.uniform(0, 1.5), stop)
        while not stop.is_set():
            ref = SessionRef(app.project, f"{app.project}-{random.getrandbits(32):08x}")
            user = dice.choice(_USERS)
            turns = dice.randint(2, 6) if dice.random() < _SHORT else dice.randint(12, 20)
            for _ in range(turns):
                if not stop.is_set():
                    await self._take_turn(app, ref, user, dice)
                await self._idle(dice.uniform(0.2, 1.0), stop)
            if dice.random() < 0.15:
                await self._idle(_RETURN_AFTER_S, stop)
                if not stop.is_set():
                    await self._take_turn(app, ref, user, dice)

    async def _take_turn(self, app: _App, ref: SessionRef, user: str, dice: random.Random) -> None:
        scenes, weights = zip(*SCENES, strict=True)
        (scene,) = dice.choices(scenes, weights)
        self.ledger.users[ref] = user
        with using_attributes(session_id=ref.session_id, user_id=user), suppress(RateLimitedError):
            await scene(Turn(ref, self._tracers[app], self.ledger, dice, self._speed))

    async def _idle(self, seconds: float, stop: asyncio.Event) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), seconds / self._speed)

    def _provider(self, resource: dict[str, str]) -> TracerProvider:
        provider = TracerProvider(sampler=ALWAYS_ON, resource=Resource(resource), shutdown_on_exit=False)
        exporter = self._exporter
        if exporter is None:
            session = requests.Session()
            session.trust_env = False  # a proxy of the environment has no business here
            endpoint = self._endpoint + TRACES_PATH
            exporter = RepeatingExporter(
                OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_TIMEOUT_S, session=session)
            )
        provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=_EXPORT_EVERY_MS))
        self._providers.append(provider)
        return provider
