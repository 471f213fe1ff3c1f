"""Serves `/metrics`, `/livez` and `/readyz`, and nothing else.

Whoever reaches the port can hold up nobody: a request must come and its answer be taken within seconds, it has a
bounded size and no body, and of too many connections the oldest is closed, so that a probe still gets in.

A health answer is 200 with `ok`, or 503 with one reason a line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from aggregator.core.errors import ConfigurationError
from aggregator.settings import variable

Reasons = Callable[[], Sequence[str]]
"""Says what is wrong; empty when all is well."""

# A scrape takes milliseconds: a client that has not got its answer by then is not worth holding up the exit for.
_CLOSE_TIMEOUT_S: Final = 1.0
# Scrapers keep one connection each; idle ones go after a few scrape intervals.
_KEEP_ALIVE_S: Final = 75.0
_MAX_HEADER_BYTES: Final = 8_190
_MAX_HEADERS: Final = 64
_BACKLOG: Final = 64
# A request is one packet.
_REQUEST_WITHIN_S: Final = 5.0
# A scraper's own time-out is 10 s by default; the answer is some 100 kB.
_ANSWER_WITHIN_S: Final = 15.0
# Scrapers, probes and people: some ten.
_MOST_CONNECTIONS: Final = 100


class Limits(NamedTuple):
    """What a client may take: seconds to send a request, and to take its answer, and connections of all together."""

    request_within_s: float = _REQUEST_WITHIN_S
    answer_within_s: float = _ANSWER_WITHIN_S
    connections: int = _MOST_CONNECTIONS


USUAL: Final = Limits()


class _Connection(web.RequestHandler):
    """Answers what can't be parsed in one word (the library would log a traceback and tell its own version), and
    closes itself where the client takes longer than it may.
    """

    __slots__ = ("_deadline", "_limits")

    def __init__(self, manager: web.Server, limits: Limits) -> None:
        super().__init__(
            manager,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=_KEEP_ALIVE_S,
            max_line_size=_MAX_HEADER_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
            max_headers=_MAX_HEADERS,
            lingering_time=0,  # a body is not waited for
        )
        self._limits = limits
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._within(self._limits.request_within_s)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._within(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._deadline is None:  # it was idle; later parts of the same request give no more time
            self._within(self._limits.request_within_s)
        super().data_received(data)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the answer; a client that does not take it is cut off."""
        self._within(self._limits.answer_within_s)
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._within(None)

    def cut(self) -> None:
        """Close at once, whatever is still to be sent."""
        if self.transport is not None:
            self.transport.abort()

    def _within(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        loop = asyncio.get_running_loop()
        self._deadline = None if seconds is None else loop.call_later(seconds, self.cut)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        if status >= 500:  # ours, not the client's
            self.log_exception("Error handling request from %s", request.remote, exc_info=exc)
        response = _text(status, "internal error\n" if status >= 500 else "bad request\n")
        response.force_close()
        return response


class _Server(web.Server):
    def __init__(self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], limits: Limits) -> None:
        super().__init__(handler)
        self._limits = limits

    def __call__(self) -> _Connection:
        return _Connection(self, self._limits)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        if len(self.connections) > self._limits.connections:
            oldest = self.connections[0]  # in the order in which they came
            if isinstance(oldest, _Connection):
                oldest.cut()


class HttpServer:
    """A small HTTP server for scrapers and probes; `start` and `stop` may each be called once, `stop` more often."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        registry: CollectorRegistry,
        liveness: Reasons,
        readiness: Reasons,
        limits: Limits = USUAL,
    ) -> None:
        self._host = host
        self._port = port
        self._registry = registry
        self._liveness = liveness
        self._readiness = readiness
        self._limits = limits
        self._runner: web.ServerRunner | None = None
        self._site: web.TCPSite | None = None

    async def start(self) -> None:
        """Listen; raise `ConfigurationError` where the address can't be had."""
        self._runner = web.ServerRunner(_Server(self._answer, self._limits), shutdown_timeout=_CLOSE_TIMEOUT_S)
        await self._runner.setup()
        self._site = web.TCPSite(self._runner, self._host, self._port, backlog=_BACKLOG)
        try:
            await self._site.start()
        except OSError as error:
            await self.stop()
            host, port = variable("http", "host"), variable("http", "port")
            raise ConfigurationError(
                f"{port}: can't listen on {self._host} port {self._port}: {error.strerror or error}; "
                f"set it to a free port, or {host} to an address of this machine"
            ) from error

    async def stop(self) -> None:
        """Close the socket and all connections; harmless when it does not run."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that are really listened on, also when port 0 was asked for."""
        if self._runner is None or not self._runner.addresses:
            raise RuntimeError("the server does not run")
        host, port = self._runner.addresses[0][:2]
        return str(host), int(port)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method not in ("GET", "HEAD"):
            return _text(405, "method not allowed\n", {"Allow": "GET, HEAD"})
        match request.path:
            case "/metrics":
                return self._metrics(request)
            case "/livez":
                return _health(self._liveness())
            case "/readyz":
                return _health(self._readiness())
            case _:
                return _text(404, "not found\n")

    def _metrics(self, request: web.BaseRequest) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        # No `charset` argument: the content type carries it already.
        return _unnamed(web.Response(body=encode(self._registry), headers={"Content-Type": content_type}))


def _health(reasons: Sequence[str]) -> web.Response:
    return _text(503, "".join(f"{reason}\n" for reason in reasons)) if reasons else _text(200, "ok\n")


def _text(status: int, body: str, headers: dict[str, str] | None = None) -> web.Response:
    return _unnamed(web.Response(status=status, text=body, headers=headers))


def _unnamed(response: web.Response) -> web.Response:
    """Leave out which server and which version this is."""
    response.headers["Server"] = "session-aggregator"
    return response
