"""Assistants: the SDK's own client, on the command as a process of its own."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, TextContent

from tests.web.shop import environ_of, served


class Assistant:
    """Calls tools and looks at what comes back."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def __call__(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """The structured answer, which the SDK has held against the tool's schema."""
        result = await self.result(tool, **arguments)
        assert not result.is_error, text_of(result)
        assert isinstance(result.structured_content, dict)
        return result.structured_content

    async def text(self, tool: str, **arguments: Any) -> str:
        """The answer as text."""
        result = await self.result(tool, **arguments)
        assert not result.is_error, text_of(result)
        return text_of(result)

    async def refusal(self, tool: str, **arguments: Any) -> str:
        """What is said in place of an answer."""
        result = await self.result(tool, **arguments)
        assert result.is_error
        assert result.structured_content is None
        return text_of(result)

    async def result(self, tool: str, **arguments: Any) -> CallToolResult:
        """As it came."""
        return await self.client.call_tool(tool, arguments)


def text_of(result: CallToolResult) -> str:
    """Its only content."""
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


@asynccontextmanager
async def assistant(redis_url: str, transport: str = "stdio", era: str = "auto") -> AsyncIterator[Assistant]:
    """One that may see everything."""
    if transport == "http":
        with mcp_over_http(redis_url) as address:
            async with over_http(address, era=era) as made:
                yield made
        return
    process = StdioServerParameters(command=sys.executable, args=["-m", "aggregator", "mcp"], env=environ_of(redis_url))
    async with Client(process, mode=era) as client:
        yield Assistant(client)


@contextmanager
def mcp_over_http(redis_url: str, address: str = "127.0.0.1:0", **settings: str) -> Iterator[str]:
    """`session-aggregator mcp --http`; gives the address."""
    environ = environ_of(redis_url, WEB__REQUESTS_PER_S="10000", **settings)
    with served(["mcp", "--http", address], environ) as at:
        yield at


@asynccontextmanager
async def over_http(address: str, token: str | None = None, *, era: str = "auto") -> AsyncIterator[Assistant]:
    """One that sends this token."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=30) as http,
        Client(streamable_http_client(address, http_client=http), mode=era) as client,
    ):
        yield Assistant(client)
