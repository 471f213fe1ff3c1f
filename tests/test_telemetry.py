"""Metrics and logs hold what dashboards and operators rely on."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

import aggregator
from aggregator.core.model import Counts, SessionRef, SessionRollup
from aggregator.telemetry import (
    NO_TRACE,
    Event,
    Metrics,
    RecordOutcome,
    RejectLog,
    SpanOutcome,
    Stage,
    StartReason,
    configure_logging,
    get_logger,
)


class Ticks:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def ticks() -> Ticks:
    return Ticks()


@pytest.fixture
def metrics(registry: CollectorRegistry, ticks: Ticks) -> Metrics:
    return Metrics(registry, monotonic_s=ticks)


@pytest.fixture
def logging_restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("aggregator").setLevel(logging.NOTSET)
    structlog.reset_defaults()


# Straight from the table that dashboards rely on: name -> labels.
CATALOGUE = {
    "records_total": {"topic", "outcome"},
    "records_lost_total": {"topic"},
    "spans_total": {"outcome"},
    "sessions_opened_total": set(),
    "sessions_reopened_total": set(),
    "sessions_closed_total": {"reason"},
    "summaries_published_total": set(),
    "summary_bytes_count": set(),
    "dead_letters_total": {"reason"},
    "ignored_values_total": {"field", "reason"},
    "stage_seconds_count": {"stage"},
    "end_to_end_seconds_count": set(),
    "close_delay_seconds_count": set(),
    "consumer_lag_records": {"topic", "partition"},
    "watermark_lag_seconds": {"topic", "partition"},
    "watermark_timestamp_seconds": {"topic", "partition"},
    "partition_starts_total": {"reason"},
    "open_sessions": set(),
    "redis_retries_total": set(),
    "trace_conflicts_total": set(),
    "corrupt_keys_total": {"kind"},
}


def test_every_metric_of_the_catalogue_is_exposed_with_its_labels(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    metrics.records("otlp_spans", RecordOutcome.APPLIED, 3)
    metrics.records_lost("otlp_spans", 0)
    metrics.ignored([("cost", "negative"), ("cost", "negative")])
    metrics.partition_lag("otlp_spans", 1, records=7, watermark_ms=10_000, now_ms=11_500)
    text = generate_latest(registry).decode()
    samples = {
        sample.name: set(sample.labels)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("aggregator_")
    }
    assert {name: samples.get(f"aggregator_{name}") for name in CATALOGUE} == CATALOGUE
    assert "_created" not in text


def closed(*, started_us: int, ended_us: int, counts: Counts) -> SessionRollup:
    return SessionRollup(
        ref=SessionRef(project="p", session_id="s"),
        revision=1,
        close_reason="idle",
        opened_ms=0,
        started_us=started_us,
        ended_us=ended_us,
        counts=counts,
        users=[],
        services=[],
        models={},
        trace_entries=[],
        truncated=False,
    )


def test_counts_arrive_under_their_labels(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.spans({SpanOutcome.MERGED: 5, SpanOutcome.DROPPED: 1})
    metrics.spans({SpanOutcome.MERGED: 6})
    metrics.sessions(opened=2, reopened=1)
    metrics.ignored([("cost", "negative"), ("usage", "invalid"), ("cost", "negative")])
    metrics.session_closed(closed(started_us=1_000_000, ended_us=21_000_000, counts=Counts(prompt_tokens=900)))
    metrics.session_closed(
        closed(started_us=0, ended_us=0, counts=Counts(cost_whole_usd=2, cost_rest_nano=500_000_000))
    )
    metrics.summary_published(2_000, 0.3)
    assert registry.get_sample_value("aggregator_spans_total", {"outcome": "merged"}) == 11
    assert registry.get_sample_value("aggregator_spans_total", {"outcome": "too_late"}) == 0
    assert registry.get_sample_value("aggregator_sessions_closed_total", {"reason": "idle"}) == 2
    assert registry.get_sample_value("aggregator_sessions_opened_total") == 2
    assert registry.get_sample_value("aggregator_sessions_reopened_total") == 1
    sums = {name: registry.get_sample_value(f"aggregator_session_{name}_sum") for name in ("tokens", "cost_usd")}
    assert sums == {"tokens": 900, "cost_usd": 2.5}
    assert registry.get_sample_value("aggregator_session_duration_seconds_sum") == 20
    assert registry.get_sample_value("aggregator_session_duration_seconds_count") == 1  # of one no time is known
    negative_costs = {"field": "cost", "reason": "negative"}
    assert registry.get_sample_value("aggregator_ignored_values_total", negative_costs) == 2
    assert registry.get_sample_value("aggregator_summary_bytes_bucket", {"le": "2048.0"}) == 1
    assert registry.get_sample_value("aggregator_summary_bytes_bucket", {"le": "1024.0"}) == 0


def test_labels_stay_a_closed_set(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.ignored([("made up", "also made up")] * 4)
    metrics.dead_letter("made up")
    other = {"field": "other", "reason": "other"}
    assert registry.get_sample_value("aggregator_ignored_values_total", other) == 4
    assert registry.get_sample_value("aggregator_dead_letters_total", {"reason": "other"}) == 1


def test_a_batch_of_equal_observations_counts_each(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.end_to_end(0.002, 10)
    metrics.end_to_end(0.0025)
    metrics.end_to_end(1e9, 2)
    metrics.end_to_end(-5.0)
    name = "aggregator_end_to_end_seconds"
    assert registry.get_sample_value(f"{name}_bucket", {"le": "0.001"}) == 1
    assert registry.get_sample_value(f"{name}_bucket", {"le": "0.0025"}) == 12
    assert registry.get_sample_value(f"{name}_bucket", {"le": "3600.0"}) == 12
    assert registry.get_sample_value(f"{name}_bucket", {"le": "+Inf"}) == 14
    assert registry.get_sample_value(f"{name}_count") == 14
    assert registry.get_sample_value(f"{name}_sum") == pytest.approx(2e9 + 0.0225)


def test_a_stage_is_timed_also_when_it_fails(registry: CollectorRegistry, metrics: Metrics, ticks: Ticks) -> None:
    def failing() -> None:
        with metrics.stage(Stage.STORE, NO_TRACE):
            ticks.now_s += 0.2
            raise RuntimeError("redis is away")

    with pytest.raises(RuntimeError, match="redis is away"):
        failing()
    assert registry.get_sample_value("aggregator_stage_seconds_sum", {"stage": "store"}) == pytest.approx(0.2)
    assert registry.get_sample_value("aggregator_stage_seconds_count", {"stage": "store"}) == 1


def test_a_partition_that_left_is_shown_no_longer(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.partition_lag("a", 0, records=1, watermark_ms=None, now_ms=5_000)
    metrics.partition_lag("a", 1, records=2, watermark_ms=2_000, now_ms=5_000)
    metrics.forget_partition("a", 1)
    metrics.forget_partition("a", 9)
    assert registry.get_sample_value("aggregator_consumer_lag_records", {"topic": "a", "partition": "0"}) == 1
    assert registry.get_sample_value("aggregator_consumer_lag_records", {"topic": "a", "partition": "1"}) is None
    for name in ("watermark_lag_seconds", "watermark_timestamp_seconds"):
        assert registry.get_sample_value(f"aggregator_{name}", {"topic": "a", "partition": "1"}) is None


def test_a_watermark_is_shown_as_an_age_and_as_a_time(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.partition_lag("a", 1, records=2, watermark_ms=2_000, now_ms=5_000)
    where = {"topic": "a", "partition": "1"}
    assert registry.get_sample_value("aggregator_watermark_lag_seconds", where) == 3
    assert registry.get_sample_value("aggregator_watermark_timestamp_seconds", where) == 2


def test_starts_are_counted_by_reason(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.partition_started(StartReason.STATE_LOST)
    assert registry.get_sample_value("aggregator_partition_starts_total", {"reason": "state_lost"}) == 1
    assert registry.get_sample_value("aggregator_partition_starts_total", {"reason": "committed"}) == 0


def test_two_sets_of_metrics_live_side_by_side(ticks: Ticks) -> None:
    one, two = CollectorRegistry(), CollectorRegistry()
    Metrics(one, monotonic_s=ticks).redis_retries()
    Metrics(two, monotonic_s=ticks)
    assert one.get_sample_value("aggregator_redis_retries_total") == 1
    assert two.get_sample_value("aggregator_redis_retries_total") == 0


@pytest.mark.usefixtures("logging_restored")
def test_json_lines_carry_event_level_time_and_fields() -> None:
    out = io.StringIO()
    configure_logging("info", "auto", out)
    log = get_logger(stage=Stage.DECODE)
    log.info(Event.WORKER_STARTED, version="1")
    log.debug(Event.WORKER_READY)
    logging.getLogger("aiokafka").warning("a library says %s", "so")
    logging.getLogger("aiokafka").info("chatter")
    first, second = (json.loads(line) for line in out.getvalue().splitlines())
    assert first.items() >= {"event": "worker_started", "level": "info", "version": "1", "stage": "decode"}.items()
    assert first["timestamp"].endswith("Z")
    assert second.items() >= {"event": "a library says so", "level": "warning", "logger": "aiokafka"}.items()


@pytest.mark.usefixtures("logging_restored")
def test_an_exception_is_one_line_of_json() -> None:
    out = io.StringIO()
    configure_logging("error", "json", out)
    try:
        int("broken")
    except ValueError:
        get_logger().exception(Event.TASK_DIED, task="ingest")
    (line,) = out.getvalue().splitlines()
    assert "ValueError: invalid literal" in json.loads(line)["exception"]


@pytest.mark.usefixtures("logging_restored")
def test_text_is_for_people() -> None:
    out = io.StringIO()
    configure_logging("info", "text", out)
    get_logger().warning(Event.RETRYING, operation="store", error="redis is away")
    assert "retrying" in out.getvalue()
    assert "operation=store" in out.getvalue()


@pytest.mark.usefixtures("logging_restored")
def test_rejects_are_logged_once_per_reason_and_interval_and_all_are_counted(ticks: Ticks) -> None:
    out = io.StringIO()
    configure_logging("info", "json", out)
    rejects = RejectLog(get_logger(), ticks)

    def reject(reason: str, offset: int) -> None:
        rejects.reject(reason, topic="t", partition=0, offset=offset, detail="d", partial=False)

    for offset in range(100):
        reject("not_json", offset)
    reject("bad_id", 100)
    ticks.now_s += RejectLog.INTERVAL_S
    reject("not_json", 101)
    reject("not_json", 102)
    rejects.flush()
    rejects.flush()
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(line["reason"], line.get("offset"), line["suppressed"]) for line in lines] == [
        ("not_json", 0, 0),
        ("bad_id", 100, 0),
        ("not_json", 101, 99),
        ("not_json", None, 1),
    ]


def test_the_catalogue_holds_nothing_that_is_never_said_or_counted() -> None:
    package = Path(aggregator.__file__).parent
    code = "".join(path.read_text(encoding="utf-8") for path in package.rglob("*.py"))
    assert [event for event in Event if f"Event.{event.name}" not in code] == []
    counting = [name for name in vars(Metrics) if not name.startswith("_")]
    assert [name for name in counting if not re.search(rf"metrics\.{name}\b", code)] == []


def test_what_libraries_repeat_is_held_back() -> None:
    out = io.StringIO()
    configure_logging("info", "json", out)
    library = logging.getLogger("aiokafka")
    for number in range(50):
        library.error("no broker %s", number)
    library.error("something else")
    for _ in range(3):
        get_logger().warning(Event.RETRYING, operation="ours")
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["no broker 0", "something else", *["retrying"] * 3]
