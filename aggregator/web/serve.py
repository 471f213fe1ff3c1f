"""Serving the application."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from aggregator.settings import Settings
from aggregator.web.app import app_of

_STREAMS_END_S = 3


async def serve(settings: Settings, say: Callable[[str], None]) -> int:
    """Serve the web view and the API."""
    return await serve_app(app_of(settings), settings.web.host, settings.web.port, say)


async def serve_app(app: ASGIApp, host: str, port: int, say: Callable[[str], None]) -> int:
    """Serve until SIGTERM or Ctrl-C; says where once it listens."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_STREAMS_END_S,
        limit_concurrency=1000,
        proxy_headers=False,
    )
    server = _Server(config, say)
    await server.serve()
    return 0 if server.started else 1


class _Server(uvicorn.Server):
    """Says where it listens."""

    def __init__(self, config: uvicorn.Config, say: Callable[[str], None]) -> None:
        super().__init__(config)
        self._say = say

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End in order and with the exit code of success; uvicorn would raise the signal again."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT)
        for number in numbers:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        await super().startup(sockets)  # type: ignore[arg-type]
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self._say(f"http://{f'[{host}]' if ':' in host else host}:{port}/")
