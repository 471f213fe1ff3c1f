"""Asking for sessions from Python: which are long, expensive or broken, and what happened in one.

    from aggregator.client import Client, Query, Sort

    async with Client("redis://localhost:6379/0") as client:
        page = await client.list(Query(project="default", sort=Sort.COST), limit=10)
        for session in page.sessions:
            print(session.session_id, session.cost_usd)

It only reads, by commands that a Redis user with `+@read` may send; the worker's settings are not needed, but where
its key prefix or its number of closing shards are not the defaults, the client must be told.
"""

from __future__ import annotations

from aggregator.client.client import Client
from aggregator.client.models import (
    Bucket,
    Changes,
    Medians,
    ModelTotals,
    Page,
    Percentiles,
    Session,
    SessionDetail,
    TimeBucket,
    Tokens,
    Totals,
    Trace,
)
from aggregator.client.query import BadCursor, Query, Sort, StatusFilter
from aggregator.core.errors import AggregatorError, ConfigurationError, StoreRefused, StoreUnavailable

__all__ = [
    "AggregatorError",
    "BadCursor",
    "Bucket",
    "Changes",
    "Client",
    "ConfigurationError",
    "Medians",
    "ModelTotals",
    "Page",
    "Percentiles",
    "Query",
    "Session",
    "SessionDetail",
    "Sort",
    "StatusFilter",
    "StoreRefused",
    "StoreUnavailable",
    "TimeBucket",
    "Tokens",
    "Totals",
    "Trace",
]
