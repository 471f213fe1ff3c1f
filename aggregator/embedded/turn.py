"""One simulated turn: its spans, and what it truly cost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from openinference.instrumentation import OITracer
from opentelemetry.trace import Span, SpanKind, Tracer
from opentelemetry.util.types import AttributeValue

from aggregator.core.model import SessionRef
from aggregator.embedded.ledger import Figures, Ledger


class Tracers(NamedTuple):
    """One application: its own tracer, the one of the framework that it uses, and that of a service it calls."""

    app: OITracer
    framework: OITracer
    service: Tracer


class Turn:
    """One trace in the making: opens spans and keeps the ledger.  `speed` 2 makes everything take half the time."""

    def __init__(self, ref: SessionRef, tracers: Tracers, ledger: Ledger, dice: random.Random, speed: float) -> None:
        self.tracers = tracers
        self.dice = dice
        self._ref = ref
        self._ledger = ledger
        self._speed = speed
        self._depth = 0

    @contextmanager
    def span(
        self,
        name: str,
        kind: str,
        attributes: dict[str, AttributeValue] | None = None,
        *,
        tracer: OITracer | None = None,
    ) -> Iterator[Span]:
        """An OpenInference span; an exception that leaves it makes it an error."""
        opened = (tracer or self.tracers.app).start_as_current_span(
            name,
            openinference_span_kind=kind,  # type: ignore[arg-type]  # its own literal type, spelled out nowhere public
            attributes=attributes,
        )
        with self._entered(), opened as span:
            yield span

    @contextmanager
    def foreign_span(self, name: str) -> Iterator[Span]:
        """A span of another service in the same trace, which carries no session id."""
        with (
            self._entered(),
            self.tracers.service.start_as_current_span(
                name, kind=SpanKind.SERVER, attributes={"http.request.method": "GET", "url.path": "/search"}
            ) as span,
        ):
            yield span

    @contextmanager
    def _entered(self) -> Iterator[None]:
        traces = 1 if self._depth == 0 else 0
        self._depth += 1
        errors = 0
        try:
            yield
        except Exception:
            errors = 1
            raise
        finally:  # a span that is cancelled ends and is exported too
            self._depth -= 1
            self._ledger.enter(self._ref, Figures(traces=traces, spans=1, errors=errors))

    def bill(self, *, prompt: int = 0, completion: int = 0, embedding: int = 0) -> None:
        """Enter what a provider charges for."""
        figures = Figures(prompt_tokens=prompt, completion_tokens=completion, embedding_tokens=embedding)
        self._ledger.enter(self._ref, figures)

    async def pause(self, least_s: float, most_s: float) -> None:
        """Let some time go by."""
        await asyncio.sleep(self.dice.uniform(least_s, most_s) / self._speed)
