"""The application: routes of pages and API behind one guard, on one client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from aggregator.client import Client
from aggregator.client.trace_links import TraceLinks
from aggregator.core.errors import AggregatorError, StoreUnavailable
from aggregator.settings import Settings, WebSettings
from aggregator.web.access import Access
from aggregator.web.api import Api
from aggregator.web.guard import Guard, Rates
from aggregator.web.pages import Pages
from aggregator.web.problems import is_api, problem_json

_STATIC: Final = Path(__file__).with_name("static")
_AWAY: Final = "Redis is away; this page works again when it is back."


def make_app(client: Client, settings: WebSettings) -> Starlette:
    """Raises `ConfigurationError` where a setting is wrong; the client is closed with the application."""
    access = Access(settings)
    pages = Pages(client, access, TraceLinks(settings.trace_url))

    def shown(request: Request, status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
        if is_api(request):
            return problem_json(status, detail, headers)
        return pages.problem(request, status, detail)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - what it is registered for
        return shown(request, error.status_code, error.detail, dict(error.headers or {}))

    async def failed(request: Request, error: Exception) -> Response:
        away = isinstance(error, StoreUnavailable)
        return shown(request, 503, _AWAY if away else str(error), {"retry-after": "2"})

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        await client.close()

    return Starlette(
        routes=[
            *pages.routes(),
            *Api(client).routes(),
            Route("/healthz", _healthz),
            Mount("/static", StaticFiles(directory=_STATIC)),
        ],
        middleware=[Middleware(Guard, access=access, rates=Rates(settings.requests_per_s))],
        exception_handlers={HTTPException: refused, AggregatorError: failed},
        lifespan=lifespan,
    )


def app_of(settings: Settings) -> Starlette:
    """The application as the settings have it."""
    return make_app(Client.from_settings(settings), settings.web)


async def _healthz(_request: Request) -> Response:
    """The process lives; whether Redis does is for the pages to say."""
    return PlainTextResponse("ok\n")
