"""Traces of the worker's own batches, sent by OTLP over HTTP; needs the extra `tracing`.

A batch becomes spans when it ends, with the times that its stages were measured by, so that nothing of OpenTelemetry
is on the way of the batch.  Sending is a thread of the SDK with a bounded queue: where the receiver is away, spans are
dropped.  The resource is marked, so that spans which come back through the input topic are left out on decoding.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from aggregator.core.conventions import OWN_SPANS
from aggregator.core.errors import ConfigurationError
from aggregator.ports import Clock
from aggregator.telemetry import BatchTrace, Stage, package_version

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

SEND_TIMEOUT_S: Final = 2.0
"""For one request and all its repetitions: the last one is waited for when the worker ends."""

_NAME: Final = "session-aggregator"


class OtlpSelfTracing:
    """`telemetry.SelfTracing`: a root span per batch, and one per stage below it."""

    def __init__(self, endpoint: str, clock: Clock) -> None:
        """`endpoint` takes traces, as `http://collector:4318/v1/traces`; the rest is up to the usual `OTEL_…`."""
        self._clock = clock
        self._provider = _provider(endpoint)
        self._tracer = self._provider.get_tracer(_NAME, package_version())

    def begin(self, path: str) -> BatchTrace:
        """See `telemetry.SelfTracing`."""
        return _Trace(path, self._tracer, self._clock)

    async def close(self) -> None:
        """Send what is still to be sent; a thread that hangs in that does not hold up the process's end."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # nobody waits any more
                loop.call_soon_threadsafe(done.set)

        threading.Thread(target=shut_down, name="self-tracing", daemon=True).start()
        await done.wait()


class _Trace:
    def __init__(self, path: str, tracer: Tracer, clock: Clock) -> None:
        self._path = path
        self._tracer = tracer
        self._clock = clock
        self._started_s = clock.monotonic_s()
        self._stages: list[tuple[Stage, float, float]] = []

    def stage(self, stage: Stage, started_s: float, ended_s: float) -> None:
        self._stages.append((stage, started_s, ended_s))

    def end(self, **counts: int) -> None:
        from opentelemetry.trace import set_span_in_context

        ended_s = self._clock.monotonic_s()
        origin_ns = self._clock.now_ms() * 1_000_000 - round(ended_s * 1e9)

        def time_ns(monotonic_s: float) -> int:
            return origin_ns + round(monotonic_s * 1e9)

        attributes = {f"session_aggregator.{name}": count for name, count in counts.items()}
        root = self._tracer.start_span(self._path, start_time=time_ns(self._started_s), attributes=attributes)
        context = set_span_in_context(root)
        for stage, started_s, stage_ended_s in self._stages:
            self._tracer.start_span(stage, context, start_time=time_ns(started_s)).end(time_ns(stage_ended_s))
        root.end(time_ns(ended_s))


def _provider(endpoint: str) -> TracerProvider:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigurationError(
            f"AGGREGATOR_TRACING__ENDPOINT needs {error.name}: pip install 'session-aggregator[tracing]', or unset it"
        ) from error
    usual = Resource({"service.name": _NAME, "service.version": package_version()})
    resource = usual.merge(OTELResourceDetector().detect()).merge(Resource({OWN_SPANS: True}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=SEND_TIMEOUT_S)))
    return provider
