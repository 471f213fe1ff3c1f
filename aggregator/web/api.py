"""`/api/v1`: the client's verbs over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from hashlib import blake2b
from typing import Final

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from aggregator.client import BadCursor, Client, Query
from aggregator.client.wording import ascii_json
from aggregator.web.access import Viewer
from aggregator.web.openapi import document
from aggregator.web.parameters import (
    ChangeParameters,
    ListParameters,
    NoParameters,
    ProjectParameters,
    SessionParameters,
    query_of,
    read,
)
from aggregator.web.problems import Problem

_MOST_STREAMS: Final = 200
_STREAM_S: Final = 3600.0  # then the client connects again, as EventSource does by itself
_KEEP_ALIVE_S: Final = 15.0


class Api:
    """The routes, on one client."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._streams = 0

    def routes(self) -> list[Route]:
        """All of `/api/v1`."""
        return [
            Route("/api/v1/openapi.json", self.openapi),
            Route("/api/v1/projects", self.projects),
            Route("/api/v1/totals", self.totals),
            Route("/api/v1/sessions", self.sessions),
            Route("/api/v1/session", self.session),
            Route("/api/v1/changes", self.changes),
        ]

    async def openapi(self, request: Request) -> Response:
        """The document that describes the others."""
        read(NoParameters, request.query_params, viewer_of(request))
        return _answer(request, json.dumps(document()).encode())

    async def projects(self, request: Request) -> Response:
        """The projects that have sessions."""
        viewer = viewer_of(request)
        read(NoParameters, request.query_params, viewer)
        projects = [project for project in await self._client.projects() if viewer.may_see(project)]
        return _answer(request, json.dumps({"projects": projects}).encode())

    async def totals(self, request: Request) -> Response:
        """What the sessions of a project come to."""
        wanted = read(ProjectParameters, request.query_params, viewer_of(request))
        return _model(request, await self._client.totals(wanted.project, since=wanted.since, until=wanted.until))

    async def sessions(self, request: Request) -> Response:
        """A page of sessions."""
        viewer = viewer_of(request)
        wanted = read(ListParameters, request.query_params, viewer)
        try:
            page = await self._client.list(wanted.query(viewer), cursor=wanted.cursor, limit=wanted.limit)
        except BadCursor as error:
            raise Problem(404, f"cursor: {error}") from error
        return _model(request, page)

    async def session(self, request: Request) -> Response:
        """One session with its traces."""
        wanted = read(SessionParameters, request.query_params, viewer_of(request))
        session = await self._client.get(wanted.project, wanted.id)
        if session is None:
            raise Problem(404, "there is no such session: it never was, or it closed longer ago than it is kept")
        return _model(request, session)

    async def changes(self, request: Request) -> Response:
        """Changed sessions as server-sent events; `Last-Event-ID` goes on where a stream broke off."""
        viewer = viewer_of(request)
        wanted = read(ChangeParameters, request.query_params, viewer)
        position = wanted.position
        if position is None and (last := request.headers.get("last-event-id", "")).isascii() and last.isdigit():
            position = min(int(last[:20]), 2**53)
        if self._streams >= _MOST_STREAMS:
            raise Problem(503, "too many streams are open; close one, or try again later")
        query = query_of(wanted, viewer)
        return StreamingResponse(self._events(query, position), media_type="text/event-stream")

    async def _events(self, query: Query, position: int | None) -> AsyncIterator[bytes]:
        self._streams += 1
        loop = asyncio.get_running_loop()
        began_s = said_s = loop.time()
        try:
            yield b"retry: 2000\n\n"
            async for changes in self._client.follow(query, position=position):
                if changes.sessions or position is None:
                    position = changes.position
                    said_s = loop.time()
                    yield f"id: {changes.position}\nevent: changes\ndata: {ascii_json(changes)}\n\n".encode()
                elif loop.time() - said_s > _KEEP_ALIVE_S:
                    said_s = loop.time()
                    yield b": still here\n\n"
                if loop.time() - began_s > _STREAM_S:
                    return
        finally:
            self._streams -= 1


def viewer_of(request: Request) -> Viewer:
    """Who asks; the guard has seen to it that it is somebody."""
    viewer = request.state.viewer
    if not isinstance(viewer, Viewer):
        raise Problem(401, "send a token")
    return viewer


def _model(request: Request, model: BaseModel) -> Response:
    return _answer(request, ascii_json(model).encode())


def _answer(request: Request, body: bytes) -> Response:
    """JSON with an ETag; 304 where the client has just that."""
    etag = f'"{blake2b(body, digest_size=12).hexdigest()}"'
    headers = {"etag": etag, "cache-control": "private, no-cache"}
    known = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
    if etag in known or known == ["*"]:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)
