-- docs: begin clickhouse-table
CREATE TABLE sessions
(
    project String,
    session_id String,
    opened_at DateTime64(6, 'UTC'),
    revision UInt32,
    started_at Nullable(DateTime64(6, 'UTC')),
    ended_at Nullable(DateTime64(6, 'UTC')),
    user_id Nullable(String),
    trace_count UInt64,
    error_count UInt64,
    total_tokens UInt64,
    cost_usd Decimal128(9),
    summary String CODEC(ZSTD),
    version UInt64 MATERIALIZED toUnixTimestamp64Milli(opened_at) * 1048576 + revision
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (project, session_id);
-- docs: end

-- docs: begin clickhouse-kafka
CREATE TABLE session_summaries (value String)
ENGINE = Kafka
SETTINGS kafka_broker_list = 'localhost:9092', kafka_topic_list = 'session_summaries',
    kafka_group_name = 'sessions-to-clickhouse', kafka_format = 'JSONAsString';
-- docs: end

-- docs: begin clickhouse-view
CREATE MATERIALIZED VIEW sessions_from_kafka TO sessions AS
SELECT
    JSONExtractString(value, 'project') AS project,
    JSONExtractString(value, 'session_id') AS session_id,
    parseDateTime64BestEffort(JSONExtractString(value, 'opened_at'), 6, 'UTC') AS opened_at,
    JSONExtractUInt(value, 'revision') AS revision,
    parseDateTime64BestEffortOrNull(JSONExtractString(value, 'started_at'), 6, 'UTC') AS started_at,
    parseDateTime64BestEffortOrNull(JSONExtractString(value, 'ended_at'), 6, 'UTC') AS ended_at,
    JSONExtract(value, 'user_id', 'Nullable(String)') AS user_id,
    JSONExtractUInt(value, 'trace_count') AS trace_count,
    JSONExtractUInt(value, 'error_count') AS error_count,
    JSONExtractUInt(value, 'tokens', 'total') AS total_tokens,
    toDecimal128(JSONExtractString(value, 'cost_usd'), 9) AS cost_usd,
    value AS summary
FROM session_summaries;
-- docs: end

-- docs: begin clickhouse-query
SELECT session_id, cost_usd, error_count
FROM sessions FINAL
WHERE project = 'shop' AND trace_count > 0
ORDER BY cost_usd DESC
LIMIT 10;
-- docs: end

-- docs: begin clickhouse-erase
DELETE FROM sessions WHERE project = 'shop' AND session_id = 'chat-1';
-- docs: end
