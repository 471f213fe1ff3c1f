"""The tools as a server of the Model Context Protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from mcp.server import Server, ServerRequestContext
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    ToolAnnotations,
)
from mcp_types import Tool as ToolDocument
from starlette.requests import Request

from aggregator.assistants.texts import text_of
from aggregator.assistants.tools import INSTRUCTIONS, NOT_YOURS, Refused, Tool, Tools
from aggregator.client import Client
from aggregator.client.trace_links import TraceLinks
from aggregator.client.wording import harmless
from aggregator.core.errors import AggregatorError, CorruptState, StoreUnavailable
from aggregator.telemetry import package_version
from aggregator.web.access import Viewer
from aggregator.web.api import viewer_of
from aggregator.web.parameters import checked
from aggregator.web.problems import Problem

NAME: Final = "session-aggregator"
EVERYTHING: Final = Viewer("local", None)
_AWAY: Final = (
    "Redis is away, so nothing can be read now. Try again in some seconds; if it stays away, have the operator run "
    "`session-aggregator check`."
)
_CORRUPT: Final = (
    "What Redis holds of a session can't be read. Other sessions can: narrow the filter, or name another one. "
    "The operator finds it by the metric aggregator_corrupt_keys_total."
)


def make_server(client: Client, links: TraceLinks, viewer: Viewer | None = None) -> Server[None]:
    """The server; the client is closed with it.

    `viewer` is who asks, whoever it is; without it each HTTP request must say so, having passed the guard.
    """
    tools = {tool.name: tool for tool in Tools(client, links).all()}
    documents = [_document(tool) for tool in tools.values()]

    async def list_tools(_context: ServerRequestContext[None], _: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=documents)

    async def call_tool(context: ServerRequestContext[None], asked: CallToolRequestParams) -> CallToolResult:
        tool = tools.get(asked.name)
        if tool is None:
            return _refusal(f"There is no such tool; there are {', '.join(tools)}.")
        return await _call(tool, asked.arguments or {}, viewer or _viewer_of(context.request))

    @asynccontextmanager
    async def lifespan(_server: Server[None]) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await client.close()

    return Server(
        NAME,
        version=package_version(),
        title="Sessions of LLM applications",
        instructions=INSTRUCTIONS,
        lifespan=lifespan,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def _viewer_of(request: object) -> Viewer:
    if not isinstance(request, Request):
        raise TypeError("this server is for HTTP, and was asked otherwise")
    return viewer_of(request)


def _document(tool: Tool) -> ToolDocument:
    return ToolDocument(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=tool.takes.model_json_schema(),
        output_schema=tool.gives.model_json_schema(mode="serialization"),
        annotations=ToolAnnotations(
            title=tool.title, read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
        ),
    )


async def _call(tool: Tool, arguments: dict[str, Any], viewer: Viewer) -> CallToolResult:
    given = {name: value for name, value in arguments.items() if value not in (None, "")}  # how some say "without"
    try:
        answer = await tool.call(checked(tool.takes, given, viewer), viewer)
    except Problem as error:
        return _refusal(NOT_YOURS if error.status_code == 403 else f"{harmless(error.detail)}. Mend it and call again.")
    except Refused as error:
        return _refusal(str(error))
    except StoreUnavailable:
        return _refusal(_AWAY)
    except CorruptState:
        return _refusal(_CORRUPT)
    except AggregatorError as error:
        return _refusal(harmless(str(error)))
    return CallToolResult(
        content=[TextContent(type="text", text=text_of(answer))], structured_content=answer.model_dump(mode="json")
    )


def _refusal(text: str) -> CallToolResult:
    """What the assistant can do something about, so no error of the protocol."""
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)
