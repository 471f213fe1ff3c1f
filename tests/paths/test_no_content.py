"""What was said to a model or by it is kept nowhere: not in Redis, nor in summaries, logs, metrics or headers.

Only the dead-letter topic has it, in records that could not be used, which are there as they were.
"""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
import structlog
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from aggregator.adapters.redis.connections import connect
from aggregator.core.model import Partition
from aggregator.telemetry import configure_logging
from tests.builders import BASE_MS, record, span, to_protobuf
from tests.paths.test_laws import fresh_world
from tests.paths.test_laws_on_servers import stores_on
from tests.paths.worlds import IDLE_MS, TOPIC, Worker, World
from tests.redis_servers import RedisServer

CANARY = "my password is hunter2"
CONTENT = (
    "input.value",
    "output.value",
    "llm.input_messages.0.message.content",
    "llm.prompt_template.variables",
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.prompt.0.content",
    "gen_ai.completion.0.content",
    "gen_ai.tool.call.arguments",
    "traceloop.entity.input",
    "ai.prompt.messages",
    "ai.response.text",
    "langfuse.observation.input",
    "mlflow.spanInputs",
    "exception.message",
    "http.url",
)
PLACE = Partition(TOPIC, 0)


def talk() -> TracesData:
    """A call with everything that a producer may tell of it."""
    attributes: dict[str, Any] = {"session.id": "s", "user.id": "ada", "llm.model_name": "gpt-4o"}
    attributes |= {"openinference.span.kind": "LLM", "llm.token_count.prompt": 7, "llm.token_count.completion": 3}
    message = record([span(1, attributes | dict.fromkeys(CONTENT, CANARY))])
    resource = message.resource_spans[0]
    resource.resource.attributes.add(key="process.command_line").value.string_value = CANARY
    told = resource.scope_spans[0].spans[0]
    told.status.message = CANARY
    told.trace_state = CANARY
    told.events.add(name=CANARY).attributes.add(key="exception.message").value.string_value = CANARY
    told.links.add(trace_id=b"1" * 16, span_id=b"2" * 8).attributes.add(key="x").value.string_value = CANARY
    return message


def broken() -> list[bytes]:
    """Records that can't be used, or not whole, with content at the very place that is wrong."""
    document = MessageToDict(talk())
    spans = document["resourceSpans"][0]["scopeSpans"][0]["spans"]
    spans[0] |= {"traceId": "01" * 16, "spanId": "02" * 8}
    found = []
    for wrong in (CANARY, [CANARY], {"stringValue": [CANARY]}):
        spans[0]["attributes"] = [{"key": "session.id", "value": wrong}]
        found.append(json.dumps(document).encode())
    for member in ("startTimeUnixNano", "status", "attributes", "name"):
        wrong_span = spans[0] | {member: [CANARY]}
        found += [json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [wrong_span]}]}]}).encode()]
    found += [b'{"resourceSpans": "' + CANARY.encode(), b'"' + CANARY.encode() + b'"', CANARY.encode()]
    found.append(to_protobuf(talk())[:-5])
    bad_id = talk()
    bad_id.resource_spans[0].scope_spans[0].spans[0].trace_id = CANARY.encode()
    too_long = record([span(3, {"session.id": CANARY * 40, "input.value": CANARY}, trace=3)])
    return [*found, to_protobuf(bad_id), to_protobuf(too_long)]


async def test_nobody_can_read_what_was_said(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = io.StringIO()
    configure_logging("debug", "json", lines)
    connections = connect(redis_server.url)
    client: Any = redis_server.client()
    world = World(stores=stores_on(connections, client.flushall))
    values = [to_protobuf(talk()), *broken()]
    for value in values:
        world.log.append(PLACE, value, BASE_MS)
    worker = Worker(world, [PLACE], {}, crash=False)
    await worker.run()
    world.clock.time_ms += 10 * IDLE_MS
    worker = Worker(world, [PLACE], {}, crash=False)
    await worker.run()
    structlog.reset_defaults()

    ((_, summary),) = world.log.summaries
    assert json.loads(summary)["tokens"]["total"] == 10
    kept = [dump for key in client.scan_iter() for dump in (key, everything(client, key))]
    assert len(kept) > 10
    said = CANARY.encode()
    assert [one for one in kept if said in one] == []
    assert said not in summary
    assert lines.getvalue().count("record_rejected") >= 4
    assert CANARY not in lines.getvalue()
    assert said not in generate_latest(worker.metrics.registry)
    letters = {letter[0].offset: letter for letter in world.log.dead_letters}
    assert letters.keys() == set(range(1, len(values)))
    for offset, letter in letters.items():
        assert letter[0].value == values[offset]
        assert CANARY not in repr(letter[1:]), offset
    await connections.close()
    client.close()


async def test_no_name_that_a_span_brings_is_in_a_metric() -> None:
    """Whoever sends spans chooses ids and models: they would be label values without bound, and lines of their own."""
    session, user, model, agent, project, service = names = (
        's"} 1 up{job="x',
        "u\\",
        "m\r\n# TYPE a gauge",
        "\x1b[31mred",
        "p{0}",
        "svc\u2028",
    )
    attributes = {"session.id": session, "user.id": user, "llm.model_name": model, "gen_ai.agent.name": agent}
    attributes |= {"openinference.span.kind": "LLM"}
    message = record([span(1, attributes | {"llm.token_count.prompt": 7})])
    for name, value in (("openinference.project.name", project), ("service.name", service)):
        message.resource_spans[0].resource.attributes.add(key=name).value.string_value = value
    world = fresh_world()
    world.log.append(PLACE, to_protobuf(message), BASE_MS)
    shown = ""
    for _ in range(2):  # one applies it, one closes it
        worker = Worker(world, [PLACE], {}, crash=False)
        await worker.run()
        world.clock.time_ms += 10 * IDLE_MS
        shown += generate_latest(worker.metrics.registry).decode()
    assert json.loads(world.log.summaries[-1][1])["session_id"] == session
    families = text_string_to_metric_families(shown)
    values = {value for family in families for sample in family.samples for value in sample.labels.values()}
    assert TOPIC in values
    assert not any(name in value for name in names for value in values)
    assert not any(name in shown for name in names)


def everything(client: Any, key: bytes) -> bytes:
    """All that a key holds, in no order."""
    match client.type(key):
        case b"hash":
            return repr(client.hgetall(key)).encode()
        case b"zset":
            return repr(client.zrange(key, 0, -1)).encode()
        case _:
            return bytes(client.get(key))
