"""The main job on real input: an instrumented application's conversations become live sessions, then summaries.

What must come out is what the API charged, not what somebody computed from spans.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Final

import pytest
from aiokafka.structs import ConsumerRecord

from aggregator.embedded.otlp_http import OtlpHttpReceiver
from tests.e2e.pipeline import Pipeline, pipeline
from tests.e2e.waiting import PATIENCE_S, until
from tests.interop.stubs.bill import Bill
from tests.interop.stubs.openai import RELEASES, OpenAIStub
from tests.kafka_servers import Broker
from tests.redis_servers import RedisServer, assert_every_key_lives_or_expires, redis_servers_available
from tests.summaries import check_summary

MODELS: Final = {"ada": RELEASES["gpt-4o"], "grace": RELEASES["gpt-4o-mini"]}
COUNTS: Final = {"ada": (3, 5, 1, 1), "grace": (1, 1, 0, 0)}
"""Traces, spans, errors and traces with errors of each user's session."""


class Application:
    """The process of `application.py`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def take_turn(self) -> None:
        """Let the conversations go on by one turn; returns once its spans are with the receiver."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        said = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE_S)
        assert said == b"done\n", "the application has ended; its error is above"


@asynccontextmanager
async def application(api: OpenAIStub, receiver: OtlpHttpReceiver) -> AsyncIterator[Application]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "OPENAI_"))}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.e2e.application"),
        cwd=Path(__file__).parents[2],
        env=inherited
        | {
            **api.environment(),
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "NO_PROXY": "127.0.0.1",
        },
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Application(process)
        assert process.stdin is not None
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def seen(deployment: Pipeline, user: str, *, traces: int, spans: int) -> dict[str, str]:
    """The session of that user, once it has so many traces and spans."""

    async def look() -> dict[str, str]:
        fields = deployment.hash(f"agg:session:{{shop/s-{user}}}")
        return fields if (fields.get("trace_count"), fields.get("span_count")) == (str(traces), str(spans)) else {}

    return await until(f"the session of {user} is seen with {traces} traces of {spans} spans", look)


def assert_is_live(fields: dict[str, str], user: str, api: OpenAIStub) -> None:
    charged = api.bill.sessions[f"s-{user}"].models[MODELS[user]]
    assert (fields["status"], fields["revision"], fields["user_id"]) == ("open", "0", user)
    assert int(fields["prompt_tokens"]) == charged["prompt"]
    assert int(fields["completion_tokens"]) == charged["completion"]
    assert int(fields["total_tokens"]) == charged["prompt"] + charged["completion"]


def assert_is_summary(record: ConsumerRecord, user: str, api: OpenAIStub) -> None:
    charged = api.bill.sessions[f"s-{user}"].models[MODELS[user]]
    check_summary(record.value)
    summary = json.loads(record.value)
    assert (summary["revision"], summary["close_reason"]) == (1, "idle")
    assert (summary["user_id"], summary["user_ids"], summary["services"]) == (user, [user], ["assistant"])
    assert summary["tokens"] == {
        **{name: charged[name] for name in ("prompt", "completion", "cache_read", "reasoning")},
        "total": charged["prompt"] + charged["completion"],
        "cache_write": 0,
        "embedding": 0,
    }
    assert {model: one["calls"] for model, one in summary["models"].items()} == {MODELS[user]: charged["calls"]}
    assert (summary["cost_source"], summary["unpriced_calls"]) == ("priced", 0)
    assert Decimal(summary["cost_usd"]) > 0
    counts = ("trace_count", "span_count", "error_count", "error_trace_count")
    assert tuple(summary[name] for name in counts) == COUNTS[user]
    assert not any(summary["flags"].values())


@pytest.mark.parametrize("redis_server", sorted(redis_servers_available())[:1], indirect=True)
async def test_a_traced_application_is_seen_live_and_then_summarised_with_what_it_was_charged(
    kafka_broker: Broker, redis_server: RedisServer, tmp_path: Path
) -> None:
    async with pipeline(kafka_broker, redis_server, tmp_path) as deployment:
        await deployment.workers(1, SESSION__IDLE_TIMEOUT_S="10", PRICING__ENABLED="true")
        async with (
            OpenAIStub(Bill()) as api,
            OtlpHttpReceiver(deployment.send_bytes, port=0) as receiver,
            application(api, receiver) as app,
        ):
            await app.take_turn()
            for user, spans in (("ada", 3), ("grace", 1)):
                assert_is_live(await seen(deployment, user, traces=1, spans=spans), user, api)
            await app.take_turn()
            ada = await seen(deployment, "ada", traces=3, spans=5)
            assert_is_live(ada, "ada", api)
            assert (ada["error_count"], api.bill.sessions["s-ada"].errors) == ("1", 1)
        await deployment.wait_closed()
        records = await deployment.read(deployment.summary_topic)
        assert sorted(record.key for record in records) == [b"shop/s-ada", b"shop/s-grace"]
        summaries = {record.key.decode(): record for record in records}
        for user in MODELS:
            assert_is_summary(summaries[f"shop/s-{user}"], user, api)
        assert_every_key_lives_or_expires(deployment.redis, indexed=True, settled=True)
