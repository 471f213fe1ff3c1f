"""What an operator can measure (`metrics.py`) and read (`logs.py`): one catalogue of each."""

from __future__ import annotations

from aggregator.telemetry.labels import (
    CloseReason,
    CorruptKind,
    IgnoredField,
    IgnoredReason,
    RecordOutcome,
    RejectReason,
    SpanOutcome,
    Stage,
    StartReason,
)
from aggregator.telemetry.logs import Event, Log, RejectLog, configure_logging, get_logger
from aggregator.telemetry.metrics import Metrics, core_flavour, package_version
from aggregator.telemetry.tracing import NO_TRACE, BatchTrace, NoTracing, SelfTracing

__all__ = [
    "NO_TRACE",
    "BatchTrace",
    "CloseReason",
    "CorruptKind",
    "Event",
    "IgnoredField",
    "IgnoredReason",
    "Log",
    "Metrics",
    "NoTracing",
    "RecordOutcome",
    "RejectLog",
    "RejectReason",
    "SelfTracing",
    "SpanOutcome",
    "Stage",
    "StartReason",
    "configure_logging",
    "core_flavour",
    "get_logger",
    "package_version",
]
