"""The OpenAPI document of `/api/v1`, made of the models that read the parameters and write the answers."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from aggregator.client import Changes, Page, SessionDetail, Totals
from aggregator.telemetry import package_version
from aggregator.web.parameters import (
    ChangeParameters,
    ListParameters,
    NoParameters,
    ProjectParameters,
    SessionParameters,
)
from aggregator.web.problems import MEDIA_TYPE

_SCHEMAS: Final = "#/components/schemas/"
_ALWAYS: Final = (400, 401, 403, 414, 429, 503)
_PROBLEMS: Final = {
    400: "A parameter is wrong; the detail says which and why",
    401: "There was no token, or an unknown one",
    403: "The token may not see this project, or the server is asked by a name that is not its own",
    404: "There is no such session, or no page behind this cursor",
    414: "The address is too long",
    429: "Too many requests",
    503: "Redis is away",
}


def _operation(
    summary: str, parameters: type[BaseModel], answer: dict[str, Any], *, more: tuple[int, ...] = (), etag: bool = True
) -> dict[str, Any]:
    responses: dict[str, Any] = {"200": {"description": summary, "content": answer}}
    if etag:
        responses["200"]["headers"] = {"ETag": {"schema": {"type": "string"}}}
        responses["304"] = {"description": "What If-None-Match names is still so"}
    for status in sorted({*_ALWAYS, *more}):
        responses[str(status)] = {
            "description": _PROBLEMS[status],
            "content": {MEDIA_TYPE: {"schema": {"$ref": f"{_SCHEMAS}Problem"}}},
        }
    return {"get": {"summary": summary, "parameters": _parameters(parameters), "responses": responses}}


def _parameters(kind: type[BaseModel]) -> list[dict[str, Any]]:
    schema = kind.model_json_schema(ref_template=f"{_SCHEMAS}{{model}}")
    found = []
    for name, field in schema.get("properties", {}).items():
        shown = next((one for one in field.get("anyOf", ()) if one.get("type") != "null"), field)
        shown = {key: value for key, value in shown.items() if key not in ("title", "default") or value is not None}
        found.append(
            {
                "name": name,
                "in": "query",
                "required": name in schema.get("required", ()),
                "description": field.get("description", shown.get("description", "")),
                "schema": shown,
            }
        )
    return found


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"{_SCHEMAS}{name}"}}}


@cache
def document() -> dict[str, Any]:
    """OpenAPI 3.1."""
    _, made = models_json_schema(
        [(model, "serialization") for model in (Page, SessionDetail, Totals, Changes)]
        + [(model, "validation") for model in (ListParameters, ChangeParameters)],
        ref_template=f"{_SCHEMAS}{{model}}",
    )
    schemas = made["$defs"]
    schemas["Problem"] = {
        "type": "object",
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
        },
        "required": ["type", "title", "status", "detail"],
    }
    schemas["Projects"] = {
        "type": "object",
        "properties": {"projects": {"type": "array", "items": {"type": "string"}}},
        "required": ["projects"],
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "session-aggregator", "version": package_version(), "license": {"name": "Apache-2.0"}},
        "security": [{"token": []}, {}],
        "paths": {
            "/api/v1/projects": _operation("The projects that have sessions", NoParameters, _json("Projects")),
            "/api/v1/totals": _operation("What the sessions of a project come to", ProjectParameters, _json("Totals")),
            "/api/v1/sessions": _operation("A page of sessions", ListParameters, _json("Page"), more=(404,)),
            "/api/v1/session": _operation(
                "One session with its traces", SessionParameters, _json("SessionDetail"), more=(404,)
            ),
            "/api/v1/changes": _operation(
                "Changed sessions, as server-sent events whose data is `Changes`",
                ChangeParameters,
                {"text/event-stream": {"schema": {"type": "string"}}},
                etag=False,
            ),
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }
