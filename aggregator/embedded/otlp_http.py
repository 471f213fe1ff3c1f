"""A receiver of OTLP over HTTP, as small as the demo needs it.

It takes `POST /v1/traces` with protobuf or JSON bodies, plain or gzip, and hands each body on unchanged: an
ExportTraceServiceRequest has the wire form of the TracesData that the worker reads.
In production this is the job of the OpenTelemetry Collector with its Kafka exporter, which also authenticates,
batches, limits its memory and keeps a queue.
"""

from __future__ import annotations

import errno
import json
import zlib
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, NamedTuple, Self

from aiohttp import web
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from aggregator.core.errors import TransientError
from aggregator.embedded.process import LOCALHOST

DEFAULT_PORT: Final = 4318
TRACES_PATH: Final = "/v1/traces"
MAX_BODY_BYTES: Final = 8 * 1024 * 1024
"""The largest body taken, compressed and unpacked alike; the broker must take records of that size."""

_PROTOBUF: Final = "application/x-protobuf"
_JSON: Final = "application/json"

# What google.rpc.Code calls the HTTP statuses used here.
_RPC_CODES: Final = {400: 3, 404: 5, 405: 12, 413: 8, 415: 3, 503: 14}
_RPC_INTERNAL: Final = 13

Publish = Callable[[bytes], Awaitable[object]]


class _Refusal(Exception):  # noqa: N818 - an answer, not an error of ours
    """An answer other than 200."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers


class _Encoding(NamedTuple):
    """One of OTLP/HTTP's two encodings: how bodies are judged and answers are written."""

    content_type: str
    check: Callable[[bytes], None]
    write: Callable[[Message], bytes]


class OtlpHttpReceiver:
    """Listens on 127.0.0.1 from `async with` until its end, on a free port where the wanted one is taken.

    `publish` gets each accepted body and returns once it is safe; a `TransientError` of it is answered with 503,
    which exporters retry.
    """

    def __init__(self, publish: Publish, *, port: int = DEFAULT_PORT) -> None:
        self._publish = publish
        self._wanted_port = port
        self._runner: web.AppRunner | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """Where it listens, which is not the wanted port if that was taken; 0 before it is entered."""
        return self._port

    @property
    def endpoint(self) -> str:
        """The value of `OTEL_EXPORTER_OTLP_ENDPOINT` for whoever wants to send here."""
        return f"http://{LOCALHOST}:{self._port}"

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_route("*", "/{path:.*}", self._handle)
        # aiohttp would unpack gzip without telling how far; `_unpacked` stops at the limit.
        self._runner = web.AppRunner(app, auto_decompress=False, access_log=None, shutdown_timeout=2.0)
        await self._runner.setup()
        try:
            await self._listen(self._wanted_port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                await self._runner.cleanup()
                raise
            await self._listen(0)
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _listen(self, port: int) -> None:
        assert self._runner is not None  # noqa: S101 - narrows the type
        await web.TCPSite(self._runner, LOCALHOST, port).start()

    async def _handle(self, request: web.Request) -> web.Response:
        encoding = _ENCODINGS.get(request.content_type, _ENCODINGS[_JSON])
        try:
            await self._take(request)
        except _Refusal as refusal:
            code = _RPC_CODES.get(refusal.status, _RPC_INTERNAL)
            body = encoding.write(Status(code=code, message=refusal.message))
            return web.Response(
                status=refusal.status, body=body, content_type=encoding.content_type, headers=refusal.headers
            )
        return web.Response(body=encoding.write(ExportTraceServiceResponse()), content_type=encoding.content_type)

    async def _take(self, request: web.Request) -> None:
        """Check one request and publish its body; raises `_Refusal` where that can't be."""
        if request.path != TRACES_PATH:
            raise _Refusal(404, f"there is only {TRACES_PATH} here: this receiver takes traces alone")
        if request.method != "POST":
            raise _Refusal(405, f"{TRACES_PATH} takes POST", Allow="POST")
        encoding = _ENCODINGS.get(request.content_type)
        if encoding is None:
            raise _Refusal(415, f"the content type must be {_PROTOBUF} or {_JSON}")
        try:
            packed = await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            raise _Refusal(413, _TOO_LARGE) from error
        body = _unpacked(packed, request.headers.get("Content-Encoding", "identity").strip().lower())
        encoding.check(body)
        try:
            await self._publish(body)
        except TransientError as error:
            raise _Refusal(503, f"the broker does not take it now: {error}", **{"Retry-After": "1"}) from error


_TOO_LARGE: Final = f"a request may have {MAX_BODY_BYTES} bytes at most, also unpacked; send smaller batches"


def _unpacked(packed: bytes, content_encoding: str) -> bytes:
    """The body without its content encoding, never more than `MAX_BODY_BYTES` of it."""
    if content_encoding in ("", "identity"):
        return packed
    if content_encoding != "gzip":
        raise _Refusal(415, f"the content encoding must be gzip or identity, not {content_encoding[:40]}")
    body, rest = b"", packed
    try:
        while rest:  # a gzip file may have several members
            member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
            body += member.decompress(rest, MAX_BODY_BYTES + 1 - len(body))
            if len(body) > MAX_BODY_BYTES:
                raise _Refusal(413, _TOO_LARGE)
            if not member.eof:
                raise _Refusal(400, "the gzip body is cut off")
            rest = member.unused_data
    except zlib.error as error:
        raise _Refusal(400, f"the body is no gzip: {error}") from error
    return body


def _check_protobuf(body: bytes) -> None:
    try:
        ExportTraceServiceRequest.FromString(body)
    except DecodeError as error:
        raise _Refusal(400, "the body is no ExportTraceServiceRequest in protobuf") from error


def _check_json(body: bytes) -> None:
    """Ids are hex in OTLP's JSON; protobuf's mapping reads them as base64, which makes wrong ids but no errors."""
    try:
        document = json.loads(body)
        if not isinstance(document, dict):
            raise _Refusal(400, "the body is no JSON object")
        json_format.ParseDict(document, ExportTraceServiceRequest(), ignore_unknown_fields=True)
    except (ValueError, RecursionError, json_format.ParseError) as error:
        raise _Refusal(400, f"the body is no ExportTraceServiceRequest in JSON: {error}"[:500]) from error


def _write_json(message: Message) -> bytes:
    return json_format.MessageToJson(message, indent=None).encode()


_ENCODINGS: Final = {
    _PROTOBUF: _Encoding(_PROTOBUF, _check_protobuf, lambda message: message.SerializeToString()),
    _JSON: _Encoding(_JSON, _check_json, _write_json),
}
