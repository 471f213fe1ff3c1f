"""Batches that are traced reach a receiver of OTLP, and do not come back as anybody's spans."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from aggregator.adapters.self_tracing import SEND_TIMEOUT_S, OtlpSelfTracing
from aggregator.core.conventions import Conventions
from aggregator.core.decode import decode
from aggregator.core.model import Partition
from aggregator.embedded.otlp_http import OtlpHttpReceiver
from aggregator.embedded.process import free_port
from tests.builders import BASE_MS, record, span, to_protobuf
from tests.paths.test_laws import fresh_world
from tests.paths.worlds import IDLE_MS, TOPIC, Life, World, live

PLACE = Partition(TOPIC, 0)
CONTENT = "what was said"


async def traced(world: World, endpoint: str) -> None:
    """One session, from its only record to its summary, by a worker that traces itself."""
    tracing = OtlpSelfTracing(endpoint, world.clock)
    world.tracing = tracing
    world.log.append(PLACE, to_protobuf(record([span(1, {"session.id": "s", "input.value": CONTENT})])), BASE_MS)
    everything = Life(assigned=[[0]], plans=[{}], crash=False)
    await live(world, everything)
    world.clock.time_ms += 10 * IDLE_MS
    await live(world, everything)
    await tracing.close()


async def test_a_batch_is_a_span_with_its_stages_below_it() -> None:
    bodies: list[bytes] = []

    async def keep(body: bytes) -> None:
        bodies.append(body)

    world = fresh_world()
    async with OtlpHttpReceiver(keep, port=0) as receiver:
        await traced(world, f"http://127.0.0.1:{receiver.port}/v1/traces")
    assert len(world.log.summaries) == 1
    requests = [ExportTraceServiceRequest.FromString(body) for body in bodies]
    groups = [group for request in requests for group in request.resource_spans]
    resources = {one.key: one.value for group in groups for one in group.resource.attributes}
    assert resources["service.name"].string_value == "session-aggregator"
    spans = [one for group in groups for scope in group.scope_spans for one in scope.spans]
    roots = {one.name: one for one in spans if not one.parent_span_id}
    assert roots.keys() == {"ingest", "close", "index"}
    below = {name: [one.name for one in spans if one.parent_span_id == root.span_id] for name, root in roots.items()}
    assert below == {
        "ingest": ["decode", "fold", "store", "commit"],
        "close": ["claim", "publish", "settle"],
        "index": ["index"],
    }
    for one in spans:
        assert BASE_MS * 10**6 <= one.start_time_unix_nano <= one.end_time_unix_nano <= (BASE_MS + 60_000) * 10**6
    counts = {one.key: one.value.int_value for one in roots["ingest"].attributes}
    assert counts == {f"session_aggregator.{name}": n for name, n in (("records", 1), ("partitions", 1), ("lost", 0))}
    said: Any = [MessageToDict(request) for request in requests]
    assert CONTENT not in repr(said)
    for body in bodies:  # should a Collector write them to the input topic
        decoded = decode(body, log_ms=BASE_MS, conventions=Conventions())
        assert decoded.spans == []
        assert set(decoded.ignored) == {("span", "own")}


async def test_a_receiver_that_is_away_or_hangs_holds_nothing_up() -> None:
    world = fresh_world()
    await traced(world, f"http://127.0.0.1:{free_port()}/v1/traces")
    assert len(world.log.summaries) == 1

    released = asyncio.Event()

    async def hang(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await released.wait()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    world, started_s = fresh_world(), time.monotonic()
    await traced(world, f"http://127.0.0.1:{port}/v1/traces")
    assert len(world.log.summaries) == 1
    assert time.monotonic() - started_s < SEND_TIMEOUT_S + 5
    released.set()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("module", ["aggregator.app", "aggregator.cli"])
def test_a_worker_that_is_not_traced_loads_nothing_for_it(module: str) -> None:
    # The SDK alone says nothing: redis-py imports it where it is installed.
    code = f"import sys, {module}; sys.exit(any(name.startswith('opentelemetry.exporter') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
