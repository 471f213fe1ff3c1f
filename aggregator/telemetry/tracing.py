"""What a worker traces of itself: a span per batch of each path, with its stages below it.

Off by default, and then nothing but a few empty calls a batch; `adapters/self_tracing.py` has the rest.
Times are seconds of the monotonic clock that the stages are timed by.
"""

from __future__ import annotations

from typing import Protocol

from aggregator.telemetry.labels import Stage


class BatchTrace(Protocol):
    """One batch on its way."""

    def stage(self, stage: Stage, started_s: float, ended_s: float) -> None:
        """It has been in a stage, whether that ended well or not."""

    def end(self, **counts: int) -> None:
        """It has been dealt with; one that is never ended is not told of."""


class SelfTracing(Protocol):
    """Where traces of batches go."""

    def begin(self, path: str) -> BatchTrace:
        """A batch of `ingest`, `close` or `index` begins."""


class _NoTrace:
    def stage(self, stage: Stage, started_s: float, ended_s: float) -> None:
        pass

    def end(self, **counts: int) -> None:
        pass


class NoTracing:
    """Tells nobody."""

    def begin(self, path: str) -> BatchTrace:
        """See `SelfTracing`."""
        return NO_TRACE


NO_TRACE: BatchTrace = _NoTrace()
