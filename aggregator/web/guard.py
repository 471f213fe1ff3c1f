"""What every request passes: headers that keep browsers strict, who it is, and how often."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aggregator.web.access import Access
from aggregator.web.problems import is_api, problem_json

HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_OPEN_PATHS: Final = ("/static/", "/login", "/healthz")
_BURST_S: Final = 4.0  # so much of a second's share may be taken at once: a page asks for a handful of files
_MOST_CLIENTS: Final = 10_000
_LONGEST_PATH: Final = 40_000  # the longest values there may be, percent-encoded


class Rates:
    """A token bucket for each client; those that were quiet longest are forgotten first."""

    def __init__(self, per_s: float, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._monotonic_s = monotonic_s
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> float:
        """Takes one; 0.0 if there was one, else for how many seconds to wait."""
        now_s = self._monotonic_s()
        most = self._per_s * _BURST_S
        left, since_s = self._left.pop(client, (most, now_s))
        left = min(most, left + (now_s - since_s) * self._per_s)
        self._left[client] = (left - 1 if left >= 1 else left, now_s)
        if len(self._left) > _MOST_CLIENTS:
            self._left.popitem(last=False)
        return 0.0 if left >= 1 else (1 - left) / self._per_s


class Guard:
    """The middleware of all routes."""

    def __init__(self, app: ASGIApp, access: Access, rates: Rates) -> None:
        self._app = app
        self._access = access
        self._rates = rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let it through, or answer in its place."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        began_s = time.process_time()

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["server-timing"] = f"cpu;dur={(time.process_time() - began_s) * 1000:.1f}"
                for name, value in HEADERS.items():
                    headers[name] = value
                if not scope["path"].startswith("/static/"):
                    headers.setdefault("cache-control", "no-store")
            await send(message)

        request = Request(scope)
        answer = self._refusal(request)
        await (answer or self._app)(scope, receive, send_with_headers)

    def _refusal(self, request: Request) -> Response | None:
        wait_s = self._rates.take(request.client.host if request.client else "")
        if wait_s:
            headers = {"retry-after": str(round(wait_s) + 1)}
            return problem_json(429, "too many requests; wait as long as Retry-After says", headers)
        if len(request.url.path) + len(request.url.query) > _LONGEST_PATH:
            return problem_json(414, "the address is too long; leave out parameters")
        viewer = self._access.viewer(request)
        request.state.viewer = viewer
        if viewer is not None or request.url.path.startswith(_OPEN_PATHS):
            return None
        if self._access.open:
            return problem_json(403, "ask for this server as localhost or 127.0.0.1")
        if is_api(request) or not self._access.takes_tokens:
            return problem_json(401, "send a token: Authorization: Bearer ...", {"www-authenticate": "Bearer"})
        return RedirectResponse("/login", status_code=303)
