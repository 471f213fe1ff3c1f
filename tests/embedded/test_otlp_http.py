"""The receiver answers as OTLP/HTTP says and hands bodies on byte for byte."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from aggregator.core.errors import BrokerUnavailable
from aggregator.embedded.otlp_http import MAX_BODY_BYTES, OtlpHttpReceiver

PROTOBUF = {"Content-Type": "application/x-protobuf"}
JSON = {"Content-Type": "application/json; charset=utf-8"}


def request_of_one_span() -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add(name="turn")
    span.trace_id, span.span_id = bytes(range(16)), bytes(range(8))
    return request


JSON_BODY = json.dumps(
    {
        "resourceSpans": [
            {
                "scopeSpans": [
                    {
                        "spans": [
                            {
                                "traceId": "5b8efff798038103d269b633813fc60c",
                                "spanId": "eee19b7ec3c1b174",
                                "startTimeUnixNano": "1544712660000000000",
                                "kind": 2,
                                "attributes": [{"key": "session.id", "value": {"stringValue": "s"}}],
                                "someFutureField": 1,
                            }
                        ]
                    }
                ]
            }
        ]
    }
).encode()


class Published(list[bytes]):
    """Stands for the broker; `down` makes it fail."""

    down = False

    async def __call__(self, body: bytes) -> None:
        if self.down:
            raise BrokerUnavailable("no leader")
        self.append(body)


@asynccontextmanager
async def receiver(published: Published) -> AsyncIterator[str]:
    async with OtlpHttpReceiver(published, port=0) as it:
        yield it.endpoint


async def post(url: str, body: bytes, headers: dict[str, str]) -> tuple[int, str, bytes]:
    async with aiohttp.ClientSession() as client, client.post(url, data=io.BytesIO(body), headers=headers) as answer:
        return answer.status, answer.content_type, await answer.read()


async def test_a_protobuf_body_is_published_unchanged() -> None:
    published = Published()
    body = request_of_one_span().SerializeToString()
    async with receiver(published) as url:
        status, content_type, answer = await post(url + "/v1/traces", body, PROTOBUF)
    assert (status, content_type) == (200, "application/x-protobuf")
    assert ExportTraceServiceResponse.FromString(answer) == ExportTraceServiceResponse()
    assert published == [body]


async def test_a_json_body_is_published_unchanged() -> None:
    published = Published()
    async with receiver(published) as url:
        status, content_type, answer = await post(url + "/v1/traces", JSON_BODY, JSON)
    assert (status, content_type, json.loads(answer)) == (200, "application/json", {})
    assert published == [JSON_BODY]


@pytest.mark.parametrize(
    ("body", "headers"), [(request_of_one_span().SerializeToString(), PROTOBUF), (JSON_BODY, JSON)]
)
async def test_gzip_is_unpacked(body: bytes, headers: dict[str, str]) -> None:
    published = Published()
    half = len(body) // 2
    async with receiver(published) as url:
        for packed in (gzip.compress(body), gzip.compress(body[:half]) + gzip.compress(body[half:])):
            status, _, _ = await post(url + "/v1/traces", packed, {**headers, "Content-Encoding": "gzip"})
            assert status == 200
    assert published == [body, body]


GZIP = {"Content-Encoding": "gzip"}


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"\xff\xff\xff", PROTOBUF, 400),
        (b'{"resourceSpans": [', JSON, 400),
        (b"[]", JSON, 400),
        (b'{"resourceSpans": 5}', JSON, 400),
        (b"\xff", JSON, 400),
        (b"[" * 100_000, JSON, 400),
        (b"no gzip", PROTOBUF | GZIP, 400),
        (gzip.compress(b"a" * 1000)[:-9], PROTOBUF | GZIP, 400),
        (b"\0" * (MAX_BODY_BYTES + 1), PROTOBUF, 413),
        (gzip.compress(b"\0" * (MAX_BODY_BYTES + 1)), PROTOBUF | GZIP, 413),
        (gzip.compress(b"\0" * MAX_BODY_BYTES) * 3, PROTOBUF | GZIP, 413),
        (JSON_BODY, {"Content-Type": "text/plain"}, 415),
        (JSON_BODY, JSON | {"Content-Encoding": "br"}, 415),
    ],
)
async def test_what_is_refused(body: bytes, headers: dict[str, str], status: int) -> None:
    published = Published()
    async with receiver(published) as url:
        got, content_type, answer = await post(url + "/v1/traces", body, headers)
    assert got == status
    message = status_of(content_type, answer)
    assert message.code != 0
    assert message.message
    assert published == []


def status_of(content_type: str, answer: bytes) -> Status:
    if content_type == "application/x-protobuf":
        return Status.FromString(answer)
    assert content_type == "application/json"
    return Status(**json.loads(answer))


async def test_an_error_is_told_in_the_encoding_of_the_request() -> None:
    async with receiver(Published()) as url:
        _, of_protobuf, _ = await post(url + "/v1/traces", b"\xff", PROTOBUF)
        _, of_json, _ = await post(url + "/v1/traces", b"\xff", JSON)
    assert (of_protobuf, of_json) == ("application/x-protobuf", "application/json")


async def test_other_paths_and_methods() -> None:
    async with receiver(Published()) as url:
        assert (await post(url + "/v1/metrics", b"", PROTOBUF))[0] == 404
        assert (await post(url + "/", b"", PROTOBUF))[0] == 404
        async with aiohttp.ClientSession() as client, client.get(url + "/v1/traces") as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, "POST")


async def test_a_broker_that_is_away_makes_exporters_try_again() -> None:
    published = Published()
    published.down = True
    async with (
        receiver(published) as url,
        aiohttp.ClientSession() as client,
        client.post(url + "/v1/traces", data=b"", headers=PROTOBUF) as answer,
    ):
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        assert Status.FromString(await answer.read()).code == 14


async def test_a_taken_port_is_replaced() -> None:
    async with OtlpHttpReceiver(Published(), port=0) as first, OtlpHttpReceiver(Published(), port=first.port) as second:
        assert second.port not in (0, first.port)
        assert (await post(second.endpoint + "/v1/traces", b"", PROTOBUF))[0] == 200


@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_the_official_exporter_is_understood(monkeypatch: pytest.MonkeyPatch, compression: str) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", compression)
    published = Published()
    async with receiver(published) as url:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))

        def work() -> None:
            with provider.get_tracer("test").start_as_current_span("turn"):
                pass
            provider.shutdown()

        await asyncio.to_thread(work)
    (body,) = published
    (resource_spans,) = ExportTraceServiceRequest.FromString(body).resource_spans
    assert resource_spans.scope_spans[0].spans[0].name == "turn"
