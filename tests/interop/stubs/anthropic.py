"""Anthropic's messages, as far as an application can tell; every answer has read from the cache and written to it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from aiohttp import web

from tests.interop.stubs.server import FAILS, Stub, arguments_for, send_events

_OVERLOADED = 529
_TOLD_AT_THE_START = 1
"""Output tokens in a stream's first event, as the real API has it; the last one tells them all, these included."""


class AnthropicStub(Stub):
    """Answers `/v1/messages`, whole or streamed.

    A request with tools is answered with a call of the first one, once; then in words.
    """

    def routes(self) -> Iterable[web.RouteDef]:
        return [web.post("/v1/messages", self._answer)]

    def environment(self) -> dict[str, str]:
        return {"ANTHROPIC_BASE_URL": self.url, "ANTHROPIC_API_KEY": "sk-none"}

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        asked: dict[str, Any] = await request.json()
        session = self.session_of(request, asked)
        if FAILS in json.dumps(asked["messages"][-1]):
            self.bill.refuse(session)
            error = {"type": "overloaded_error", "message": "Overloaded"}
            return web.json_response({"type": "error", "error": error}, status=_OVERLOADED)
        charge = self.bill.charge(session, asked["model"], cache_write=True, reasoning=False)
        usage = {  # input_tokens is what was neither read from the cache nor written to it
            "input_tokens": charge.prompt - charge.cache_read - charge.cache_write,
            "cache_read_input_tokens": charge.cache_read,
            "cache_creation_input_tokens": charge.cache_write,
            "output_tokens": charge.completion,
        }
        common = {"id": f"msg_{charge.prompt}", "type": "message", "role": "assistant", "model": asked["model"]}
        block, reason = _content(asked, session)
        if asked.get("stream"):
            return await send_events(request, _events(common, block, reason, usage))
        return web.json_response(
            {**common, "content": [block], "stop_reason": reason, "stop_sequence": None, "usage": usage}
        )


def _content(asked: dict[str, Any], session: str) -> tuple[dict[str, Any], str]:
    """The one block of the answer, and why it ends there."""
    if asked.get("tools") and "tool_result" not in json.dumps(asked["messages"]):
        tool = asked["tools"][0]
        arguments = arguments_for(tool["input_schema"])
        return {"type": "tool_use", "id": "toolu_1", "name": tool["name"], "input": arguments}, "tool_use"
    return {"type": "text", "text": f"Boots. [[{session}]]"}, "end_turn"


def _events(common: dict[str, Any], block: dict[str, Any], reason: str, usage: dict[str, int]) -> Iterator[str]:
    """A streamed answer: the input's tokens come first, the output's last."""
    message = {**common, "content": [], "stop_reason": None, "stop_sequence": None}
    empty: dict[str, Any] = {"type": "text", "text": ""}
    delta: dict[str, Any] = {"type": "text_delta", "text": block.get("text")}
    if block["type"] == "tool_use":
        empty = {**block, "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**message, "usage": {**usage, "output_tokens": _TOLD_AT_THE_START}}},
        {"type": "content_block_start", "index": 0, "content_block": empty},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": None},
            "usage": usage,
        },
        {"type": "message_stop"},
    ]
    for event in events:
        yield f"event: {event['type']}\ndata: {json.dumps(event)}"
