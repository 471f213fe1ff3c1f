"""Answers to requests that can't be served, as RFC 9457 has them for programs and as a page for people."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

MEDIA_TYPE: Final = "application/problem+json"
_PROGRAMS: Final = ("/api/", "/mcp")


class Problem(HTTPException):
    """A request that can't be served; `detail` says what to do."""


def problem_json(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """RFC 9457."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return JSONResponse(body, status_code=status, media_type=MEDIA_TYPE, headers=headers)


def is_api(request: Request) -> bool:
    """Whether a program asks."""
    return request.url.path.startswith(_PROGRAMS)
