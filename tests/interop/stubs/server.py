"""What the stubs of all APIs share: a loopback HTTP server that charges one bill."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from aggregator.embedded.process import LOCALHOST
from tests.interop.stubs.bill import Bill

FAILS = "fail, please"
"""A request with these words in it is answered with an error."""


class Stub(ABC):
    """Listens on a free port from `async with` until its end.

    A new API is a subclass with `routes` and `environment`, entered in `tests.interop.stubs.APIS`.
    """

    def __init__(self, bill: Bill) -> None:
        self.bill = bill
        self._runner: web.AppRunner | None = None

    @abstractmethod
    def routes(self) -> Iterable[web.RouteDef]:
        """What it answers."""

    @abstractmethod
    def environment(self) -> dict[str, str]:
        """The variables by which the API's own client finds it."""

    @property
    def url(self) -> str:
        """Where it listens, without a slash at the end."""
        assert self._runner is not None
        return f"http://{LOCALHOST}:{self._runner.addresses[0][1]}"

    def session_of(self, request: web.Request, body: object) -> str:
        """Whose request it is."""
        return self.bill.session_of(json.dumps(body), " ".join(request.headers.values()))

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=32 * 1024 * 1024)
        app.router.add_routes(self.routes())
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, LOCALHOST, 0).start()
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()


async def send_events(request: web.Request, events: Iterable[str]) -> web.StreamResponse:
    """Answer with server-sent events, each one given whole but for the blank line at its end."""
    stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await stream.prepare(request)
    for event in events:
        await stream.write(f"{event}\n\n".encode())
    await stream.write_eof()
    return stream


def arguments_for(schema: dict[str, Any]) -> dict[str, Any]:
    """Arguments that satisfy the JSON Schema of a tool's parameters, as far as tools of tests go."""
    samples: dict[str, Any] = {
        "string": "Oslo",
        "integer": 1,
        "number": 1.5,
        "boolean": True,
        "array": [],
        "object": {},
    }
    properties: dict[str, dict[str, Any]] = schema.get("properties", {})
    return {
        name: of.get("enum", [samples.get(of.get("type", "string"))])[0]
        for name, of in properties.items()
        if name in schema.get("required", properties)
    }
