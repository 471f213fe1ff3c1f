"""The dashboards of what the worker stands on: Redis and Kafka."""

from __future__ import annotations

from typing import Final

from deploy.generate.panels import Board, Panel

_TRAFFIC: Final = "kafka_server_brokertopicmetrics"

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
                            "rate(redis_cpu_sys_seconds_total{}[RATE]) + rate(redis_cpu_user_seconds_total{}[RATE])",
                        )
                    ],
                    "The main thread takes one core at most.",
                ),
                Panel(
                    "Commands",
                    "short",
                    [("{{cmd}}", "sum by (cmd) (rate(redis_commands_total{}[RATE]))")],
                ),
                Panel("Clients", "short", [("{{instance}}", "redis_connected_clients{}")]),
                Panel(
                    "Network",
                    "Bps",
                    [
                        ("in", "rate(redis_net_input_bytes_total{}[RATE])"),
                        ("out", "rate(redis_net_output_bytes_total{}[RATE])"),
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
                            'sum by (topic) (rate(kafka_server_brokertopicmetrics_messagesin_total{,topic!=""}[RATE]))',
                        )
                    ],
                ),
                Panel(
                    "Bytes in and out",
                    "Bps",
                    [
                        (f"{{{{topic}}}} {way}", f"sum by (topic) (rate({_TRAFFIC}_bytes{way}_total{{}}[RATE]))")
                        for way in ("in", "out")
                    ],
                ),
                Panel(
                    "Time of requests, 99 %",
                    "ms",
                    [
                        (
                            "{{request}}",
                            (
                                "max by (request) (kafka_network_requestmetrics_totaltimems"
                                '{,quantile="0.99",request=~"Produce|FetchConsumer"})'
                            ),
                        )
                    ],
                ),
            ],
        ),
    ],
)
