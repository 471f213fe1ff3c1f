"""What anybody can see of the aggregator from outside: sessions in Redis, summaries on Kafka.

The demo reads both as a user would, by the documented keys, fields and JSON, not through the worker's own code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from aiokafka import AIOKafkaConsumer
from redis.asyncio import Redis

from aggregator.core.model import SessionRef
from aggregator.embedded.ledger import Figures
from aggregator.embedded.process import stop_within

_SESSION_KEYS: Final = "agg:session:{*}"  # without those that go on behind the brace (:traces, :models)
_FIELDS: Final = (
    "project",
    "session_id",
    "status",
    "opened_at",
    "revision",
    "duration_ms",
    "cost_usd",
    "user_id",
    "trace_count",
    "span_count",
    "error_count",
    "prompt_tokens",
    "completion_tokens",
    "embedding_tokens",
)
_SCAN_COUNT: Final = 1000
_STOP_S: Final = 2.0


class Shown(NamedTuple):
    """A session as Redis or a summary shows it; `duration_ms` is None while no valid time is known."""

    ref: SessionRef
    status: str
    opened_at: str
    revision: int
    duration_ms: float | None
    cost_usd: Decimal
    user_id: str
    figures: Figures

    @classmethod
    def from_hash(cls, fields: Mapping[str, str]) -> Shown:
        """From the fields of `agg:session:{…}`."""
        return cls(
            ref=SessionRef(fields["project"], fields["session_id"]),
            status=fields["status"],
            opened_at=fields["opened_at"],
            revision=int(fields["revision"]),
            duration_ms=float(fields["duration_ms"]) if "duration_ms" in fields else None,
            cost_usd=Decimal(fields["cost_usd"]),
            user_id=fields.get("user_id", ""),
            figures=Figures(
                traces=int(fields["trace_count"]),
                spans=int(fields["span_count"]),
                errors=int(fields["error_count"]),
                prompt_tokens=int(fields["prompt_tokens"]),
                completion_tokens=int(fields["completion_tokens"]),
                embedding_tokens=int(fields["embedding_tokens"]),
            ),
        )

    @classmethod
    def from_summary(cls, value: bytes) -> Shown:
        """From a record's value on the topic of summaries."""
        summary: dict[str, Any] = json.loads(value)
        tokens = summary["tokens"]
        return cls(
            ref=SessionRef(summary["project"], summary["session_id"]),
            status="closed",
            opened_at=summary["opened_at"],
            revision=summary["revision"],
            duration_ms=summary["duration_ms"],
            cost_usd=Decimal(summary["cost_usd"]),
            user_id=summary["user_id"] or "",
            figures=Figures(
                traces=summary["trace_count"],
                spans=summary["span_count"],
                errors=summary["error_count"],
                prompt_tokens=tokens["prompt"],
                completion_tokens=tokens["completion"],
                embedding_tokens=tokens["embedding"],
            ),
        )


async def read_sessions(client: Redis) -> dict[SessionRef, Shown]:
    """Every session that Redis holds; the client must decode responses."""
    keys = [key async for key in client.scan_iter(match=_SESSION_KEYS, count=_SCAN_COUNT)]
    pipeline = client.pipeline(transaction=False)
    for key in keys:  # the documented fields alone: there may be others, which are nobody's business
        pipeline.hmget(key, _FIELDS)
    found = []
    for values in await pipeline.execute():
        fields = {name: value for name, value in zip(_FIELDS, values, strict=True) if value is not None}
        if fields:
            found.append(Shown.from_hash(fields))
    return {shown.ref: shown for shown in found}


class Summaries:
    """The topic of summaries from its beginning, from `async with` until its end.

    `latest` holds, for each session, the summary that consumers keep: the greatest (opened_at, revision).
    """

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        self.latest: dict[SessionRef, Shown] = {}
        self._consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap_servers, auto_offset_reset="earliest")

    async def __aenter__(self) -> Self:
        await self._consumer.start()
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await stop_within(_STOP_S, self._consumer.stop())

    async def poll(self) -> list[Shown]:
        """The summaries that came since the last call, without waiting (nor giving way to other tasks)."""
        batches = await self._consumer.getmany(timeout_ms=0)
        new = [Shown.from_summary(record.value) for records in batches.values() for record in records]
        for summary in new:
            known = self.latest.get(summary.ref)
            if known is None or (summary.opened_at, summary.revision) > (known.opened_at, known.revision):
                self.latest[summary.ref] = summary
        return new
