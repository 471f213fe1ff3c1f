"""Keeps a table in PostgreSQL equal to the summaries that count."""

# docs: begin latest
from collections.abc import Iterable

from aggregator.summary import Summary


def latest(values: Iterable[bytes]) -> list[Summary]:
    """Of each session the summary that counts, in the order of their keys; `values` are in the order of the topic."""
    kept: dict[tuple[str, str], Summary] = {}
    for value in values:
        summary = Summary.model_validate_json(value)
        key = (summary.project, summary.session_id)
        if key not in kept or summary.version >= kept[key].version:
            kept[key] = summary
    return [kept[key] for key in sorted(kept)]


# docs: end


# docs: begin consumer
import re
from itertools import chain
from typing import Any
from urllib.parse import unquote

import psycopg
from aiokafka import AIOKafkaConsumer

TABLE = """
CREATE TABLE IF NOT EXISTS sessions (
    project text, session_id text, opened_at timestamptz NOT NULL, revision bigint NOT NULL,
    started_at timestamptz, ended_at timestamptz, user_id text,
    trace_count bigint NOT NULL, error_count bigint NOT NULL, total_tokens bigint NOT NULL,
    cost_usd numeric(30, 9) NOT NULL, summary jsonb NOT NULL,
    PRIMARY KEY (project, session_id)
)
"""
UPSERT = """
INSERT INTO sessions VALUES (
    %(project)s, %(session_id)s, %(opened_at)s, %(revision)s, %(started_at)s, %(ended_at)s, %(user_id)s,
    %(trace_count)s, %(error_count)s, %(total_tokens)s, %(cost_usd)s, %(summary)s
)
ON CONFLICT (project, session_id) DO UPDATE SET
    (opened_at, revision, started_at, ended_at, user_id, trace_count, error_count, total_tokens, cost_usd, summary) =
    (EXCLUDED.opened_at, EXCLUDED.revision, EXCLUDED.started_at, EXCLUDED.ended_at, EXCLUDED.user_id,
     EXCLUDED.trace_count, EXCLUDED.error_count, EXCLUDED.total_tokens, EXCLUDED.cost_usd, EXCLUDED.summary)
WHERE (EXCLUDED.opened_at, EXCLUDED.revision) >= (sessions.opened_at, sessions.revision)
"""
DELETE = "DELETE FROM sessions WHERE project = %s AND session_id = %s"
NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")  # names may hold it, PostgreSQL's texts may not


def row(summary: Summary) -> dict[str, object]:
    return dict(summary) | {"total_tokens": summary.tokens.total, "summary": summary.model_dump_json()}


def name(key: bytes) -> list[str]:
    return [unquote(part).replace("\0", "\ufffd") for part in key.decode().split("/")]


async def consume(bootstrap_servers: str, topic: str, database_url: str, **settings: Any) -> None:
    """Without an end; whatever fails ends it, and whoever is started next begins where the group has committed.

    `settings` are further ones of the consumer, as for TLS.
    """
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap_servers,
        group_id="sessions-to-postgresql",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        **settings,
    )
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as database, consumer:
        await database.execute(TABLE)
        while True:
            fetched = await consumer.getmany(timeout_ms=1000, max_records=100)
            records = list(chain(*fetched.values()))
            last_erased = {record.key: at for at, record in enumerate(records) if record.value is None}
            left = [one for at, one in enumerate(records) if one.value and at > last_erased.get(one.key, -1)]
            rows = [row(summary) for summary in latest(NUL.sub(rb"\1\\ufffd", one.value) for one in left)]
            if records:
                async with database.transaction(), database.cursor() as cursor:
                    await cursor.executemany(DELETE, [name(key) for key in last_erased])
                    await cursor.executemany(UPSERT, rows)
                await consumer.commit()  # after the table has them


# docs: end
