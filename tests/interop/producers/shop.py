"""What all producers here have in common: the tracing set-up, and a word at the end on what they did.

Producers run in environments of their own, so nothing here knows the rest of the repository.
Where to export to, and the resource with the project, come from OpenTelemetry's own variables.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

sessions: dict[str, dict[str, object]] = {}

# docs: begin set-up
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def set_up_tracing() -> TracerProvider:
    """The tracer provider, made the global one as well."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider


# docs: end


def did(session: str, user: str | None, *, traces: int = 1, error_traces: int = 0, project: str = "shop") -> None:
    """Note what a session did; `user` is the first that it ever had."""
    told = sessions.setdefault(session, {"project": project, "user": user, "traces": 0, "error_traces": 0})
    told["traces"] = int(str(told["traces"])) + traces
    told["error_traces"] = int(str(told["error_traces"])) + error_traces


@contextmanager
def refused(session: str, user: str | None) -> Iterator[None]:
    """A turn that the API must refuse."""
    did(session, user, error_traces=1)
    try:
        yield
    except Exception:  # each client has an error of its own
        return
    raise RuntimeError("the API should have refused")


def finish(provider: TracerProvider | None = None) -> None:
    """Export what is left and tell what was done."""
    if provider is not None:
        provider.shutdown()
    print(json.dumps({"sessions": sessions}), flush=True)
