"""The dashboards of the worker itself: the overview, whose rows are named like the stages, and the sessions."""

from __future__ import annotations

from typing import Final

from aggregator.telemetry import Stage
from deploy.generate.panels import Board, Panel, quantiles


def _stage(stage: Stage, says: str) -> Panel:
    name = f'aggregator_stage_seconds_bucket{{,stage="{stage}"}}'
    queries = [
        (f"{share * 100:g} %", f"histogram_quantile({share}, sum by (le) (rate({name}[RATE])))")
        for share in (0.5, 0.99)
    ]
    return Panel(f"{stage}: time of a batch", "s", queries, says)


OVERVIEW: Final = Board(
    "session-aggregator-overview",
    "Session aggregator: overview",
    "Are we well?",
    "aggregator_build_info",
    [
        (
            "Are we well?",
            [
                Panel("Workers", "none", [("", "count(aggregator_build_info{})")], single=True),
                Panel("Lag", "short", [("", "sum(aggregator_consumer_lag_records{})")], "Records to go", single=True),
                Panel(
                    "Age of the oldest watermark",
                    "s",
                    [("", "time() - min(max by (topic, partition) (aggregator_watermark_timestamp_seconds{}))")],
                    "No session closes before this partition has been read further.",
                    single=True,
                ),
                Panel(
                    "Records that could not be used",
                    "percentunit",
                    [
                        (
                            "",
                            (
                                'sum(rate(aggregator_records_total{,outcome!="applied"}[RATE]))'
                                " / sum(rate(aggregator_records_total{}[RATE]))"
                            ),
                        )
                    ],
                    single=True,
                ),
            ],
        ),
        (
            "Input",
            [
                Panel(
                    "Records",
                    "short",
                    [("{{outcome}}", "sum by (outcome) (rate(aggregator_records_total{}[RATE]))")],
                ),
                Panel(
                    "Spans",
                    "short",
                    [("{{outcome}}", "sum by (outcome) (rate(aggregator_spans_total{}[RATE]))")],
                ),
                Panel(
                    "Lag by partition",
                    "short",
                    [("{{topic}}/{{partition}}", "max by (topic, partition) (aggregator_consumer_lag_records{})")],
                ),
                Panel(
                    "Age of the watermark by partition",
                    "s",
                    [
                        (
                            "{{topic}}/{{partition}}",
                            "time() - max by (topic, partition) (aggregator_watermark_timestamp_seconds{})",
                        )
                    ],
                    "Sessions close only as fast as the slowest partition is read.",
                ),
                Panel(
                    "Record to Redis",
                    "s",
                    quantiles("aggregator_end_to_end_seconds"),
                    "From a record's log time until it is visible.",
                ),
                Panel(
                    "Where partitions are read from",
                    "short",
                    [("{{reason}}", "sum by (reason) (increase(aggregator_partition_starts_total{}[RATE]))")],
                    "redis_behind, state_lost and log_cut: something was lost.",
                ),
                Panel(
                    "Read again",
                    "short",
                    [("{{reason}}", "sum by (reason) (rate(aggregator_replayed_records_total{}[RATE]))")],
                    "Records a second of a log that is read again; sessions may be incomplete until that ends.",
                ),
            ],
        ),
        ("decode", [_stage(Stage.DECODE, "From bytes to spans"), Panel(
            "Dead letters",
            "short",
            [("{{reason}}", "sum by (reason) (rate(aggregator_dead_letters_total{}[RATE]))")],
        )]),
        ("fold", [_stage(Stage.FOLD, "Merging spans into traces, rolling them up"), Panel(
            "Values passed over",
            "short",
            [("{{field}}: {{reason}}", "sum by (field, reason) (rate(aggregator_ignored_values_total{}[RATE]))")],
        )]),
        ("store", [_stage(Stage.STORE, "Trace states and session rollups into Redis"), Panel(
            "Repeated calls and conflicts",
            "short",
            [
                ("repeated", "sum(rate(aggregator_redis_retries_total{}[RATE]))"),
                ("conflicts", "sum(rate(aggregator_trace_conflicts_total{}[RATE]))"),
            ],
        )]),
        ("commit", [_stage(Stage.COMMIT, "Progress in Redis, offsets in Kafka")]),
        ("claim", [_stage(Stage.CLAIM, "Taking sessions that are due"), Panel(
            "Closing delay",
            "s",
            quantiles("aggregator_close_delay_seconds"),
            "From a session's falling due until its summary is published.",
        )]),
        ("publish", [_stage(Stage.PUBLISH, "Summaries acknowledged by the broker"), Panel(
            "Summaries", "short", [("published", "sum(rate(aggregator_summaries_published_total{}[RATE]))")]
        )]),
        ("settle", [_stage(Stage.SETTLE, "Marking sessions as closed"), Panel(
            "Sessions closed",
            "short",
            [("{{reason}}", "sum by (reason) (rate(aggregator_sessions_closed_total{}[RATE]))")],
        )]),
        ("index", [_stage(Stage.INDEX, "Sessions into the indexes that lists are made of"), Panel(
            "Values of Redis set aside",
            "short",
            [("{{kind}}", "sum by (kind) (increase(aggregator_corrupt_keys_total{}[RATE]))")],
            "They could not be read; the log of the worker names them.",
        )]),
        (
            "Workers",
            [
                Panel("CPU", "short", [("{{instance}}", "rate(process_cpu_seconds_total{}[RATE])")], "Cores"),
                Panel("Memory", "bytes", [("{{instance}}", "process_resident_memory_bytes{}")]),
                Panel("Uptime", "s", [("{{instance}}", "time() - process_start_time_seconds{}")]),
                Panel("Versions", "none", [("{{version}}", "count by (version, core) (aggregator_build_info{})")]),
            ],
        ),
    ],
)  # fmt: skip

SESSIONS: Final = Board(
    "session-aggregator-sessions",
    "Session aggregator: sessions",
    "How many sessions there are, how long they last and what they use.  Figures by project or user are in the"
    " summaries: labels here stay bounded.",
    "aggregator_build_info",
    [
        (
            "How many",
            [
                Panel("Open sessions", "short", [("open", "sum(aggregator_open_sessions{})")]),
                Panel(
                    "Opened, reopened, closed",
                    "short",
                    [
                        ("opened", "sum(rate(aggregator_sessions_opened_total{}[RATE]))"),
                        ("reopened", "sum(rate(aggregator_sessions_reopened_total{}[RATE]))"),
                        ("closed", "sum(rate(aggregator_sessions_closed_total{}[RATE]))"),
                    ],
                ),
            ],
        ),
        (
            "How large, as they close",
            [
                Panel("Duration", "s", quantiles("aggregator_session_duration_seconds")),
                Panel("Tokens of a session", "short", quantiles("aggregator_session_tokens")),
                Panel("Cost of a session", "currencyUSD", quantiles("aggregator_session_cost_usd")),
                Panel("Size of a summary", "bytes", quantiles("aggregator_summary_bytes")),
            ],
        ),
        (
            "How much, of the sessions that close",
            [
                Panel("Tokens a second", "short", [("", "sum(rate(aggregator_session_tokens_sum{}[RATE]))")]),
                Panel(
                    "Cost an hour",
                    "currencyUSD",
                    [("", "3600 * sum(rate(aggregator_session_cost_usd_sum{}[RATE]))")],
                ),
                Panel(
                    "Spans not counted any more",
                    "short",
                    [
                        (
                            "{{outcome}}",
                            'sum by (outcome) (rate(aggregator_spans_total{,outcome=~"too_late|folded"}[RATE]))',
                        )
                    ],
                    "They came after their trace was forgotten, or for one whose detail was given up.",
                ),
            ],
        ),
    ],
)
