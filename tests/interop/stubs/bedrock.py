"""Bedrock's runtime: `Converse` and `ConverseStream` of any model, `InvokeModel` of Anthropic's."""

from __future__ import annotations

import json
from binascii import crc32
from collections.abc import Iterable
from typing import Any

from aiohttp import web

from tests.interop.stubs.bill import Charge
from tests.interop.stubs.server import FAILS, Stub, arguments_for

_STRING_HEADER = 7


class BedrockStub(Stub):
    """Tells input tokens without those that were read from or written to the cache, as Bedrock does."""

    def routes(self) -> Iterable[web.RouteDef]:
        return [
            web.post("/model/{model}/converse", self._converse),
            web.post("/model/{model}/converse-stream", self._converse_stream),
            web.post("/model/{model}/invoke", self._invoke),
        ]

    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": self.url,
            "AWS_ACCESS_KEY_ID": "none",
            "AWS_SECRET_ACCESS_KEY": "none",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    async def _converse(self, request: web.Request) -> web.Response:
        asked = await request.json()
        charged = self._charged(request, asked)
        if isinstance(charged, web.Response):
            return charged
        message, reason = _answer(asked)
        return web.json_response(
            {
                "output": {"message": message},
                "stopReason": reason,
                "usage": _converse_usage(charged),
                "metrics": {"latencyMs": 1},
            }
        )

    async def _converse_stream(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        charged = self._charged(request, asked)
        if isinstance(charged, web.Response):
            return charged
        stream = web.StreamResponse(headers={"Content-Type": "application/vnd.amazon.eventstream"})
        await stream.prepare(request)
        events: list[tuple[str, dict[str, Any]]] = [
            ("messageStart", {"role": "assistant"}),
            ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Boots."}}),
            ("contentBlockStop", {"contentBlockIndex": 0}),
            ("messageStop", {"stopReason": "end_turn"}),
            ("metadata", {"usage": _converse_usage(charged), "metrics": {"latencyMs": 1}}),
        ]
        for kind, payload in events:
            await stream.write(_event(kind, payload))
        await stream.write_eof()
        return stream

    async def _invoke(self, request: web.Request) -> web.Response:
        asked = await request.json()
        charged = self._charged(request, asked)
        if isinstance(charged, web.Response):
            return charged
        usage = {
            "input_tokens": charged.prompt - charged.cache_read - charged.cache_write,
            "output_tokens": charged.completion,
            "cache_read_input_tokens": charged.cache_read,
            "cache_creation_input_tokens": charged.cache_write,
        }
        return web.json_response(
            {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "model": request.match_info["model"],
                "content": [{"type": "text", "text": "Boots."}],
                "stop_reason": "end_turn",
                "usage": usage,
            }
        )

    def _charged(self, request: web.Request, asked: dict[str, Any]) -> Charge | web.Response:
        """What the answer costs, or a refusal."""
        session = self.session_of(request, asked)
        if FAILS in json.dumps(asked["messages"][-1]):
            self.bill.refuse(session)
            headers = {"x-amzn-ErrorType": "ThrottlingException"}
            return web.json_response({"message": "Too many requests"}, status=429, headers=headers)
        return self.bill.charge(session, request.match_info["model"], cache_write=True, reasoning=False)


def _converse_usage(charge: Charge) -> dict[str, int]:
    return {
        "inputTokens": charge.prompt - charge.cache_read - charge.cache_write,
        "outputTokens": charge.completion,
        "totalTokens": charge.prompt + charge.completion,
        "cacheReadInputTokens": charge.cache_read,
        "cacheWriteInputTokens": charge.cache_write,
    }


def _answer(asked: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The message and why it stops: with tools it calls the first one, once."""
    told = any("toolResult" in block for message in asked["messages"] for block in message["content"])
    if asked.get("toolConfig") and not told:
        tool = asked["toolConfig"]["tools"][0]["toolSpec"]
        use = {"toolUseId": "t-1", "name": tool["name"], "input": arguments_for(tool["inputSchema"]["json"])}
        return {"role": "assistant", "content": [{"toolUse": use}]}, "tool_use"
    return {"role": "assistant", "content": [{"text": "Boots."}]}, "end_turn"


def _event(kind: str, payload: dict[str, Any]) -> bytes:
    """One message of `application/vnd.amazon.eventstream`."""
    fields = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    headers = b"".join(
        bytes([len(name)]) + name.encode() + bytes([_STRING_HEADER]) + len(value).to_bytes(2, "big") + value.encode()
        for name, value in fields.items()
    )
    body = json.dumps(payload).encode()
    prelude = (16 + len(headers) + len(body)).to_bytes(4, "big") + len(headers).to_bytes(4, "big")
    message = prelude + crc32(prelude).to_bytes(4, "big") + headers + body
    return message + crc32(message).to_bytes(4, "big")
