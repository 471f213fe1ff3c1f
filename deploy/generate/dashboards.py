"""Grafana's dashboards, `deploy/grafana/*.json`: every panel is one row of a table here.

Rows are named like the stages of the two paths, so that logs, metrics and dashboards tell one story.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from grafana_foundation_sdk.builders.common import VizLegendOptions
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, QueryVariable, Row
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh

from aggregator.telemetry import Stage

_HEIGHT: Final = 7
_WIDTH: Final = 24
_SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")

JOB: Final = "$job"
"""In every selector: the Prometheus job of what the dashboard is about."""


class Panel(NamedTuple):
    """One panel: what it answers, its queries as (legend, PromQL), and the unit of its values."""

    title: str
    unit: str
    queries: Sequence[tuple[str, str]]
    says: str = ""
    single: bool = False


class Board(NamedTuple):
    """One dashboard: rows of panels; `finds` is a metric that only its targets have."""

    uid: str
    title: str
    says: str
    finds: str
    rows: Sequence[tuple[str, Sequence[Panel]]]


def _own(text: str) -> str:
    """PromQL with `{}` standing for the selector of the chosen job."""
    return text.replace("{}", '{job="$job"}').replace("{,", '{job="$job",')


def _quantiles(histogram: str, by: str = "") -> list[tuple[str, str]]:
    labels = f"le,{by}" if by else "le"
    return [
        (
            f"{{{{{by}}}}} {share * 100:g} %" if by else f"{share * 100:g} %",
            f"histogram_quantile({share}, sum by ({labels}) (rate({histogram}_bucket{{}}[$__rate_interval])))",
        )
        for share in (0.5, 0.99)
    ]


def _stage(stage: Stage, says: str) -> Panel:
    name = f'aggregator_stage_seconds_bucket{{,stage="{stage}"}}'
    queries = [
        (f"{share * 100:g} %", f"histogram_quantile({share}, sum by (le) (rate({name}[$__rate_interval])))")
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
                            'sum(rate(aggregator_records_total{,outcome!="applied"}[$__rate_interval]))'
                            " / sum(rate(aggregator_records_total{}[$__rate_interval]))",
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
                    [("{{outcome}}", "sum by (outcome) (rate(aggregator_records_total{}[$__rate_interval]))")],
                ),
                Panel(
                    "Spans",
                    "short",
                    [("{{outcome}}", "sum by (outcome) (rate(aggregator_spans_total{}[$__rate_interval]))")],
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
                    _quantiles("aggregator_end_to_end_seconds"),
                    "From a record's log time until it is visible.",
                ),
                Panel(
                    "Where partitions are read from",
                    "short",
                    [("{{reason}}", "sum by (reason) (increase(aggregator_partition_starts_total{}[$__rate_interval]))")],
                    "redis_behind, state_lost and log_cut: something was lost.",
                ),
            ],
        ),
        ("decode", [_stage(Stage.DECODE, "From bytes to spans"), Panel(
            "Dead letters",
            "short",
            [("{{reason}}", "sum by (reason) (rate(aggregator_dead_letters_total{}[$__rate_interval]))")],
        )]),
        ("fold", [_stage(Stage.FOLD, "Merging spans into traces, rolling them up"), Panel(
            "Values passed over",
            "short",
            [("{{field}}: {{reason}}", "sum by (field, reason) (rate(aggregator_ignored_values_total{}[$__rate_interval]))")],
        )]),
        ("store", [_stage(Stage.STORE, "Trace states and session rollups into Redis"), Panel(
            "Repeated calls and conflicts",
            "short",
            [
                ("repeated", "sum(rate(aggregator_redis_retries_total{}[$__rate_interval]))"),
                ("conflicts", "sum(rate(aggregator_trace_conflicts_total{}[$__rate_interval]))"),
            ],
        )]),
        ("commit", [_stage(Stage.COMMIT, "Progress in Redis, offsets in Kafka")]),
        ("claim", [_stage(Stage.CLAIM, "Taking sessions that are due"), Panel(
            "Closing delay",
            "s",
            _quantiles("aggregator_close_delay_seconds"),
            "From a session's falling due until its summary is published.",
        )]),
        ("publish", [_stage(Stage.PUBLISH, "Summaries acknowledged by the broker"), Panel(
            "Summaries", "short", [("published", "sum(rate(aggregator_summaries_published_total{}[$__rate_interval]))")]
        )]),
        ("settle", [_stage(Stage.SETTLE, "Marking sessions as closed"), Panel(
            "Sessions closed",
            "short",
            [("{{reason}}", "sum by (reason) (rate(aggregator_sessions_closed_total{}[$__rate_interval]))")],
        )]),
        (
            "Workers",
            [
                Panel("CPU", "short", [("{{instance}}", "rate(process_cpu_seconds_total{}[$__rate_interval])")], "Cores"),
                Panel("Memory", "bytes", [("{{instance}}", "process_resident_memory_bytes{}")]),
                Panel("Uptime", "s", [("{{instance}}", "time() - process_start_time_seconds{}")]),
                Panel("Versions", "none", [("{{version}} {{core}}", "count by (version, core) (aggregator_build_info{})")]),
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
                        ("opened", "sum(rate(aggregator_sessions_opened_total{}[$__rate_interval]))"),
                        ("reopened", "sum(rate(aggregator_sessions_reopened_total{}[$__rate_interval]))"),
                        ("closed", "sum(rate(aggregator_sessions_closed_total{}[$__rate_interval]))"),
                    ],
                ),
            ],
        ),
        (
            "How large, as they close",
            [
                Panel("Duration", "s", _quantiles("aggregator_session_duration_seconds")),
                Panel("Tokens of a session", "short", _quantiles("aggregator_session_tokens")),
                Panel("Cost of a session", "currencyUSD", _quantiles("aggregator_session_cost_usd")),
                Panel("Size of a summary", "bytes", _quantiles("aggregator_summary_bytes")),
            ],
        ),
        (
            "How much, of the sessions that close",
            [
                Panel(
                    "Tokens a second", "short", [("", "sum(rate(aggregator_session_tokens_sum{}[$__rate_interval]))")]
                ),
                Panel(
                    "Cost an hour",
                    "currencyUSD",
                    [("", "3600 * sum(rate(aggregator_session_cost_usd_sum{}[$__rate_interval]))")],
                ),
                Panel(
                    "Spans not counted any more",
                    "short",
                    [
                        (
                            "{{outcome}}",
                            'sum by (outcome) (rate(aggregator_spans_total{,outcome=~"too_late|folded"}[$__rate_interval]))',
                        )
                    ],
                    "They came after their trace was forgotten, or for one whose detail was given up.",
                ),
            ],
        ),
    ],
)

REDIS: Final = Board(
    "session-aggregator-redis",
    "Session aggregator: Redis",
    "The health of Redis, as redis_exporter tells it.",
    "redis_up",
    [
        (
            "Is it well?",
            [
                Panel("Up", "none", [("{{instance}}", "redis_up{}")], single=True),
                Panel(
                    "Memory in six hours",
                    "bytes",
                    [("{{instance}}", "predict_linear(redis_memory_used_bytes{}[1h], 6 * 3600)")],
                    "At the growth of the last hour.",
                    single=True,
                ),
                Panel("Last save went well", "none", [("{{instance}}", "redis_rdb_last_bgsave_status{}")], single=True),
                Panel(
                    "Evicted keys",
                    "short",
                    [("{{instance}}", "redis_evicted_keys_total{}")],
                    "Must be zero.",
                    single=True,
                ),
            ],
        ),
        (
            "Memory",
            [
                Panel(
                    "Memory",
                    "bytes",
                    [("used", "redis_memory_used_bytes{}"), ("maxmemory", "redis_memory_max_bytes{}")],
                ),
                Panel(
                    "Keys", "short", [("{{db}}", "redis_db_keys{}"), ("{{db}} that expire", "redis_db_keys_expiring{}")]
                ),
            ],
        ),
        (
            "Work",
            [
                Panel(
                    "CPU",
                    "short",
                    [
                        (
                            "cores",
                            "rate(redis_cpu_sys_seconds_total{}[$__rate_interval])"
                            " + rate(redis_cpu_user_seconds_total{}[$__rate_interval])",
                        )
                    ],
                    "The main thread takes one core at most.",
                ),
                Panel(
                    "Commands",
                    "short",
                    [("{{cmd}}", "sum by (cmd) (rate(redis_commands_total{}[$__rate_interval]))")],
                ),
                Panel("Clients", "short", [("{{instance}}", "redis_connected_clients{}")]),
                Panel(
                    "Network",
                    "Bps",
                    [
                        ("in", "rate(redis_net_input_bytes_total{}[$__rate_interval])"),
                        ("out", "rate(redis_net_output_bytes_total{}[$__rate_interval])"),
                    ],
                ),
            ],
        ),
    ],
)

KAFKA: Final = Board(
    "session-aggregator-kafka",
    "Session aggregator: Kafka",
    "The health of the brokers, as the JMX exporter tells it with deploy/kafka/jmx-exporter.yaml.",
    "kafka_server_brokertopicmetrics_messagesin_total",
    [
        (
            "Are they well?",
            [
                Panel(
                    "Partitions without enough replicas",
                    "none",
                    [("", "sum(kafka_server_replicamanager_underreplicatedpartitions{})")],
                    "Must be zero.",
                    single=True,
                ),
                Panel(
                    "Partitions without a leader",
                    "none",
                    [("", "sum(kafka_controller_kafkacontroller_offlinepartitionscount{})")],
                    "Must be zero: such a partition holds back every session.",
                    single=True,
                ),
                Panel("Partitions", "none", [("", "sum(kafka_server_replicamanager_partitioncount{})")], single=True),
                Panel(
                    "Idle request handlers",
                    "percentunit",
                    [("", "avg(kafka_server_kafkarequesthandlerpool_requesthandleravgidlepercent{})")],
                    single=True,
                ),
            ],
        ),
        (
            "Traffic",
            [
                Panel(
                    "Records in",
                    "short",
                    [
                        (
                            "{{topic}}",
                            'sum by (topic) (rate(kafka_server_brokertopicmetrics_messagesin_total{,topic!=""}[$__rate_interval]))',
                        )
                    ],
                ),
                Panel(
                    "Bytes in and out",
                    "Bps",
                    [
                        (
                            f"{{{{topic}}}} {way}",
                            f'sum by (topic) (rate(kafka_server_brokertopicmetrics_bytes{way}_total{{,topic!=""}}[$__rate_interval]))',
                        )
                        for way in ("in", "out")
                    ],
                ),
                Panel(
                    "Time of requests, 99 %",
                    "ms",
                    [
                        (
                            "{{request}}",
                            'max by (request) (kafka_network_requestmetrics_totaltimems{,quantile="0.99",'
                            'request=~"Produce|FetchConsumer"})',
                        )
                    ],
                ),
            ],
        ),
    ],
)

BOARDS: Final = (OVERVIEW, SESSIONS, REDIS, KAFKA)


def dashboard(board: Board) -> str:
    """The JSON that Grafana takes."""
    made = (
        Dashboard(board.title)
        .uid(board.uid)
        .description(board.says)
        .tags(["session-aggregator"])
        .refresh("30s")
        .time("now-3h", "now")
        .readonly()
        .with_variable(DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(
            QueryVariable("job")
            .label("Job")
            .datasource(_SOURCE)
            .query(f"label_values({board.finds}, job)")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        )
    )
    for title, panels in board.rows:
        made = made.with_row(Row(title))
        for panel in panels:
            made = made.with_panel(_built(panel, width=_WIDTH // max(2, min(4, len(panels)))))
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


def _built(panel: Panel, *, width: int) -> Stat | TimeSeries:
    made: Stat | TimeSeries
    if panel.single:
        made = Stat()
    else:
        legend = VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
        made = TimeSeries().min(0).fill_opacity(10).legend(legend.show_legend(True))
    made = made.title(panel.title).description(panel.says).datasource(_SOURCE).unit(panel.unit)
    made = made.height(_HEIGHT).span(width)
    for number, (legend_format, query) in enumerate(panel.queries):
        target = Dataquery().ref_id(chr(ord("A") + number)).expr(_own(query)).legend_format(legend_format)
        made = made.with_target(target.instant() if panel.single else target)
    return made
