"""Following the topic of summaries."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from decimal import Decimal
from typing import Any

from aiokafka import AIOKafkaConsumer

from aggregator.adapters.kafka.access import Access
from aggregator.adapters.kafka.security import Security
from aggregator.client.wording import counted, dollars, duration, harmless


async def summaries(
    bootstrap_servers: str, topic: str, security: Security, *, from_beginning: bool
) -> AsyncIterator[bytes]:
    """The documents on the topic as they come, without an end."""
    access = Access(bootstrap_servers, security)
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap_servers,
        auto_offset_reset="earliest" if from_beginning else "latest",
        **security.client_arguments(),
    )
    try:
        security.renew_password(consumer._client)  # noqa: SLF001
        async with access.connecting(f"following {topic} at {bootstrap_servers}", "Read"):
            await consumer.start()
        async for record in consumer:
            if record.value is not None:
                yield record.value
    finally:
        await consumer.stop()


def summary_line(document: Mapping[str, Any]) -> str:
    """One line about a closed session."""
    name = harmless(f"{document['project']}/{document['session_id']}")
    user = f", user {harmless(document['user_id'])}" if document["user_id"] else ""
    again = f" (revision {document['revision']})" if document["revision"] > 1 else ""
    parts = (
        duration(document["duration_ms"]),
        counted(document["trace_count"], "trace"),
        counted(document["tokens"]["total"], "token"),
        dollars(Decimal(document["cost_usd"])),
        counted(document["error_count"], "error"),
    )
    return f"closed  {name}{again}: {', '.join(parts)}{user}"


def parsed(value: bytes) -> dict[str, Any] | None:
    """The document, or None for what is no summary."""
    try:
        document = json.loads(value)
    except ValueError:
        return None
    known = isinstance(document, dict) and str(document.get("schema", "")).startswith("session-summary/")
    return document if known else None
