"""Every metric: the catalogue of what an operator can measure (`logs.py` is that of what one can read).

Labels come from the enums of `labels.py` (a topic and a partition number aside, which the operator chose), never from
ids or other content of spans.  The paths count once a batch, not once a span.
"""

from __future__ import annotations

import platform
from bisect import bisect_left
from collections import Counter as Counts
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.registry import Collector

from aggregator.core import model
from aggregator.core.model import SessionRollup
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
    known,
)

_STAGE_BUCKETS_S: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_END_TO_END_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 300, 3600)
_CLOSE_DELAY_BUCKETS_S: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 15, 30, 60, 300, 900, 3600)
_DURATION_BUCKETS_S: Final = (1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 14_400, 28_800, 86_400)
_TOKEN_BUCKETS: Final = (0, 100, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 10_000_000)
_COST_BUCKETS_USD: Final = (0, 0.0001, 0.001, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 100)
_SUMMARY_BUCKETS_BYTES: Final = tuple(2**power for power in range(10, 23))


class _BatchHistogram(Collector):
    """A histogram that takes many equal observations in one step; the library's own takes them one by one."""

    def __init__(self, name: str, documentation: str, buckets: tuple[float, ...]) -> None:
        self._name = name
        self._documentation = documentation
        self._buckets = buckets
        self._counts = [0] * (len(buckets) + 1)
        self._sum = 0.0

    def observe(self, value: float, count: int) -> None:
        self._counts[bisect_left(self._buckets, value)] += count
        self._sum += value * count

    def collect(self) -> Iterable[HistogramMetricFamily]:
        total = 0
        cumulative: list[tuple[str, float]] = []
        for bound, count in zip((*(str(float(bound)) for bound in self._buckets), "+Inf"), self._counts, strict=True):
            total += count
            cumulative.append((bound, total))
        yield HistogramMetricFamily(self._name, self._documentation, buckets=cumulative, sum_value=self._sum)


class Metrics:
    """All metrics, registered with the registry that is handed in; every label value exists from the start.

    `monotonic_s` times the stages: seconds that never go back.
    """

    def __init__(self, registry: CollectorRegistry, *, monotonic_s: Callable[[], float]) -> None:
        # Without it there is a second series for each counter and histogram that nobody asks for; it lacks types.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry
        self._monotonic_s = monotonic_s

        def counter(name: str, documentation: str, *labels: str) -> Counter:
            return Counter(f"aggregator_{name}", documentation, labels, registry=registry)

        def histogram(name: str, documentation: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"aggregator_{name}", documentation, labels, buckets=buckets, registry=registry)

        def gauge(name: str, documentation: str, *labels: str) -> Gauge:
            return Gauge(f"aggregator_{name}", documentation, labels, registry=registry)

        self._records = counter("records", "Input records by what became of them", "topic", "outcome")
        self._lost = counter("records_lost", "Records that retention took before they were read", "topic")
        self._spans = counter("spans", "Spans by what became of them", "outcome")
        self._opened = counter("sessions_opened", "Sessions whose key was made")
        self._reopened = counter("sessions_reopened", "Closing or closed sessions that became active again")
        self._closed = counter("sessions_closed", "Sessions settled", "reason")
        # Each time a session closes, its figures as they stand then: one that comes back is seen again, grown.
        self._duration = histogram("session_duration_seconds", "Duration of a closing session", _DURATION_BUCKETS_S)
        self._tokens = histogram("session_tokens", "Total tokens of a closing session", _TOKEN_BUCKETS)
        self._cost = histogram("session_cost_usd", "Cost of a closing session", _COST_BUCKETS_USD)
        self._published = counter("summaries_published", "Summaries acknowledged by the broker")
        self._summary_bytes = histogram("summary_bytes", "Size of a summary", _SUMMARY_BUCKETS_BYTES)
        self._dead_letters = counter("dead_letters", "Records sent to the dead-letter topic", "reason")
        self._ignored = counter("ignored_values", "Values, spans and records that were passed over", "field", "reason")
        self._stage = histogram("stage_seconds", "Time of one batch in a stage", _STAGE_BUCKETS_S, "stage")
        self._end_to_end = _BatchHistogram(
            "aggregator_end_to_end_seconds",
            "From a record's log time to its visibility in Redis",
            _END_TO_END_BUCKETS_S,
        )
        registry.register(self._end_to_end)
        self._close_delay = histogram("close_delay_seconds", "From due to published", _CLOSE_DELAY_BUCKETS_S)
        self._consumer_lag = gauge("consumer_lag_records", "Records not applied yet", "topic", "partition")
        self._watermark_lag = gauge("watermark_lag_seconds", "Age of the watermark", "topic", "partition")
        # A time, not an age: an age would stand still while nothing is applied, just when it matters.
        self._watermark = gauge("watermark_timestamp_seconds", "The watermark, as Unix time", "topic", "partition")
        self._clock_correction = gauge("clock_correction_seconds", "What this machine's clock is short of Redis'")
        self._starts = counter(
            "partition_starts", "Partitions begun, by why they are read from where they are", "reason"
        )
        self._replay = gauge("replay_records", "Records still to be read again", "topic", "partition", "reason")
        self._replayed = counter("replayed_records", "Records that were read again", "reason")
        self._replays: dict[tuple[str, int], StartReason] = {}  # by which each partition's series is shown
        self._open_sessions = gauge("open_sessions", "Sessions in the shards that this worker owns")
        self._redis_retries = counter("redis_retries", "Calls to Redis that were repeated")
        self._corrupt = counter("corrupt_keys", "Values in Redis that could not be read and were set aside", "kind")
        self._conflicts = counter("trace_conflicts", "Trace states that another worker had changed meanwhile")
        self._register_process()
        self._prepare_labels()

    def _register_process(self) -> None:
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        build = Info("aggregator_build", "What is running", registry=self.registry)
        build.info({"version": package_version(), "python": platform.python_version(), "core": core_flavour()})

    def _prepare_labels(self) -> None:
        for span_outcome in SpanOutcome:
            self._spans.labels(span_outcome)
        for close_reason in CloseReason:
            self._closed.labels(close_reason)
        for start_reason in StartReason:
            self._starts.labels(start_reason)
            self._replayed.labels(start_reason)
        for kind in CorruptKind:
            self._corrupt.labels(kind)
        for reject_reason in RejectReason:
            self._dead_letters.labels(reject_reason)
        self._stages = {stage: self._stage.labels(stage) for stage in Stage}

    # the write path

    def records(self, topic: str, outcome: RecordOutcome, count: int = 1) -> None:
        """Count input records of one topic."""
        self._records.labels(topic, outcome).inc(count)

    def records_lost(self, topic: str, count: int) -> None:
        """Count records of one topic that were gone before they could be read."""
        self._lost.labels(topic).inc(count)

    def spans(self, counts: Mapping[SpanOutcome, int]) -> None:
        """Count the spans of a batch."""
        for outcome, count in counts.items():
            self._spans.labels(outcome).inc(count)

    def ignored(self, values: Iterable[tuple[str, str]]) -> None:
        """Count what was passed over, as the (field, reason) that the core names."""
        for (field, reason), count in Counts(values).items():
            self._ignored.labels(known(IgnoredField, field), known(IgnoredReason, reason)).inc(count)

    def dead_letter(self, reason: str, count: int = 1) -> None:
        """Count records acknowledged by the dead-letter topic."""
        self._dead_letters.labels(known(RejectReason, reason)).inc(count)

    def end_to_end(self, seconds: float, count: int = 1) -> None:
        """Observe `count` records that became visible this long after their log time."""
        self._end_to_end.observe(max(seconds, 0.0), count)

    def trace_conflicts(self, count: int = 1) -> None:
        """Count trace states that another worker had changed meanwhile."""
        self._conflicts.inc(count)

    def redis_retries(self, count: int = 1) -> None:
        """Count calls to Redis that were repeated."""
        self._redis_retries.inc(count)

    def corrupt_key(self, kind: CorruptKind) -> None:
        """Count a value in Redis that could not be read and was set aside."""
        self._corrupt.labels(kind).inc()

    def partition_started(self, reason: StartReason) -> None:
        """Count a partition that is read from somewhere from now on."""
        self._starts.labels(reason).inc()

    def replay(self, topic: str, partition: int, reason: StartReason, *, left: int, done: int = 0) -> None:
        """Show how much of a partition is still to be read again, and why, and count what just was."""
        shown = self._replays.get((topic, partition), reason)
        if shown is not reason:
            self._replay.remove(topic, str(partition), shown)
        self._replays[topic, partition] = reason
        self._replay.labels(topic, str(partition), reason).set(left)
        self._replayed.labels(reason).inc(done)

    def partition_lag(self, topic: str, partition: int, *, records: int, watermark_ms: int | None, now_ms: int) -> None:
        """Show how far behind a partition is; `watermark_ms` is None where it has no watermark yet."""
        self._consumer_lag.labels(topic, str(partition)).set(records)
        if watermark_ms is not None:
            self._watermark_lag.labels(topic, str(partition)).set(max(0, now_ms - watermark_ms) / 1000)
            self._watermark.labels(topic, str(partition)).set(watermark_ms / 1000)

    def clock_correction(self, seconds: float) -> None:
        """Show what has to be added to this machine's clock."""
        self._clock_correction.set(seconds)

    def forget_partition(self, topic: str, partition: int) -> None:
        """Show a partition no longer: another worker reports it now."""
        for gauge in (self._consumer_lag, self._watermark_lag, self._watermark):
            with suppress(KeyError):  # never shown
                gauge.remove(topic, str(partition))
        if (reason := self._replays.pop((topic, partition), None)) is not None:
            self._replay.remove(topic, str(partition), reason)

    # sessions

    def sessions(self, *, opened: int, reopened: int) -> None:
        """Count sessions whose key was made, and closing or closed ones that became active again."""
        self._opened.inc(opened)
        self._reopened.inc(reopened)

    def session_closed(self, session: SessionRollup) -> None:
        """Count a settled session, and observe its figures."""
        self._closed.labels(CloseReason(session.close_reason)).inc()
        if session.started_us and session.ended_us:  # else no valid time is known
            self._duration.observe(max(session.ended_us - session.started_us, 0) / 1_000_000)
        self._tokens.observe(session.counts.prompt_tokens + session.counts.completion_tokens)
        self._cost.observe(session.counts.cost_whole_usd + session.counts.cost_rest_nano / 1_000_000_000)

    def summary_published(self, size_bytes: int, delay_s: float) -> None:
        """Count a summary that the broker has acknowledged, `delay_s` after its session fell due."""
        self._published.inc()
        self._summary_bytes.observe(size_bytes)
        self._close_delay.observe(max(delay_s, 0.0))

    def open_sessions(self, count: int) -> None:
        """Show how many sessions stand in the shards that this worker owns."""
        self._open_sessions.set(count)

    # both

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Time one batch in one stage, also when it fails."""
        started_s = self._monotonic_s()
        try:
            yield
        finally:
            self._stages[stage].observe(self._monotonic_s() - started_s)

    def observe_stage(self, stage: Stage, seconds: float) -> None:
        """Observe one batch that was timed elsewhere, for instance in a thread."""
        self._stages[stage].observe(seconds)


def package_version() -> str:
    """The installed version, `unknown` when run from a tree that is not installed."""
    try:
        return version("session-aggregator")
    except PackageNotFoundError:
        return "unknown"


def core_flavour() -> str:
    """`compiled` when the core was compiled by mypyc, else `interpreted`."""
    return "interpreted" if Path(model.__file__).suffix == ".py" else "compiled"
