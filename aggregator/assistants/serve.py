"""Serving the tools: to the program that started us, or over HTTP."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

from mcp.server.stdio import stdio_server
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from aggregator.assistants.server import EVERYTHING, make_server
from aggregator.client import Client
from aggregator.client.trace_links import TraceLinks
from aggregator.core.errors import ConfigurationError
from aggregator.settings import Settings, WebSettings
from aggregator.web.access import Access
from aggregator.web.guard import Guard, Rates
from aggregator.web.serve import serve_app

PATH: Final = "/mcp"
_FOR_PEOPLE: Final = "An assistant starts this command and talks to it; docs/assistants.md says how.  Ctrl-C ends it."
_LARGEST_REQUEST_BYTES: Final = 200_000  # ten sessions with ids of the greatest length
_LOCAL: Final = ("127.0.0.1:*", "localhost:*", "[::1]:*")


async def serve_stdio(settings: Settings) -> int:
    """Answer on standard input and output until the input ends."""
    if sys.stdin.isatty():
        print(_FOR_PEOPLE, file=sys.stderr)
    server = make_server(Client.from_settings(settings), TraceLinks(settings.web.trace_url), EVERYTHING)
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())
    return 0


async def serve_http(settings: Settings, address: str, say: Callable[[str], None]) -> int:
    """Serve `HOST:PORT` until SIGTERM or Ctrl-C; raises `ConfigurationError` where that can't be served."""
    host, port = host_and_port(address)
    web = settings.web.model_copy(update={"host": host, "port": port})
    app = make_app(Client.from_settings(settings), web)
    return await serve_app(app, host, port, lambda at: say(f"Assistants are served at {at.rstrip('/')}{PATH}"))


def make_app(client: Client, settings: WebSettings) -> Starlette:
    """Streamable HTTP without sessions of its own, behind the guard of the web view."""
    access = Access(settings, host_from="--http")
    server = make_server(client, TraceLinks(settings.trace_url))
    app = server.streamable_http_app(
        streamable_http_path=PATH,
        json_response=True,
        stateless_http=True,
        max_request_body_size=_LARGEST_REQUEST_BYTES,
        # Without tokens any page in a browser of this machine could ask.
        transport_security=TransportSecuritySettings(
            enable_dns_rebinding_protection=access.open,
            allowed_hosts=list(_LOCAL),
            allowed_origins=[f"http://{name}" for name in _LOCAL],
        ),
        custom_starlette_routes=[Route("/healthz", _healthz)],
    )
    app.add_middleware(Guard, access=access, rates=Rates(settings.requests_per_s))
    return app


def host_and_port(address: str) -> tuple[str, int]:
    """Of `HOST:PORT`; an IPv6 address is in brackets."""
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ConfigurationError(f"--http: {address} is not HOST:PORT, as in 127.0.0.1:8322")
    return host.removeprefix("[").removesuffix("]"), int(port)


async def _healthz(_request: Request) -> Response:
    """The process lives."""
    return PlainTextResponse("ok\n")
