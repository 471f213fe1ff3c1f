"""OpenAI's chat completions and embeddings, as far as an application can tell."""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import Iterable, Iterator
from typing import Any, Final

from aiohttp import web

from tests.interop.stubs.bill import Charge
from tests.interop.stubs.openai_responses import events_of, response_of
from tests.interop.stubs.server import FAILS, Stub, arguments_for, send_events

RELEASES: Final = {"gpt-4o": "gpt-4o-2024-08-06", "gpt-4o-mini": "gpt-4o-mini-2024-07-18"}
"""What answers, by what is asked for; other models answer themselves."""

_DSPY_FIELD: Final = re.compile(r"\[\[ ## (\w+) ## \]\]")
_DIMENSIONS: Final = 8


class OpenAIStub(Stub):
    """Answers `/v1/chat/completions` and `/v1/responses`, whole or streamed, and `/v1/embeddings`.

    A request with tools is answered with a call of the first one, once; then in words, or with a call of
    `final_answer` where that is a tool.
    """

    details = True  # whether cached and reasoning tokens are told
    always_tells = False  # whether the usage of a streamed answer is told without being asked for

    def routes(self) -> Iterable[web.RouteDef]:
        return [
            web.post("/v1/chat/completions", self._complete),
            web.post("/v1/embeddings", self._embed),
            web.post("/v1/responses", self._respond),
        ]

    def environment(self) -> dict[str, str]:
        base_url = f"{self.url}/v1"
        # OPENAI_API_BASE is what LiteLLM and older clients read.
        return {"OPENAI_BASE_URL": base_url, "OPENAI_API_BASE": base_url, "OPENAI_API_KEY": "sk-none"}

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        asked: dict[str, Any] = await request.json()
        session = self.session_of(request, asked)
        if FAILS in json.dumps(asked["messages"][-1]):
            self.bill.refuse(session)
            return web.json_response({"error": {"message": "overloaded", "type": "server_error"}}, status=503)
        model = RELEASES.get(asked["model"], asked["model"])
        streamed = bool(asked.get("stream"))
        asked_for = bool((asked.get("stream_options") or {}).get("include_usage"))
        told = not streamed or asked_for or self.always_tells
        usage = usage_of(self.bill.charge(session, model, cache_read=self.details, reasoning=self.details, told=told))
        message = _answer(asked, session)
        common = {"id": f"chatcmpl-{usage['total_tokens']}", "created": 1_700_000_000, "model": model}
        if streamed:
            return await send_events(request, _chunks(common, message, usage if told else None))
        reason = "tool_calls" if "tool_calls" in message else "stop"
        choices = [{"index": 0, "message": message, "finish_reason": reason}]
        return web.json_response({**common, "object": "chat.completion", "choices": choices, "usage": usage})

    async def _respond(self, request: web.Request) -> web.StreamResponse:
        asked: dict[str, Any] = await request.json()
        session = self.session_of(request, asked)
        if FAILS in json.dumps(asked["input"]):
            self.bill.refuse(session)
            return web.json_response({"error": {"message": "overloaded", "type": "server_error"}}, status=503)
        model = RELEASES.get(asked["model"], asked["model"])
        response = response_of(asked, session, model, self.bill.charge(session, model))
        return await send_events(request, events_of(response)) if asked.get("stream") else web.json_response(response)

    async def _embed(self, request: web.Request) -> web.Response:
        asked: dict[str, Any] = await request.json()
        session = self.session_of(request, asked)
        tokens = self.bill.charge_embedding(session, asked["model"]).embedding
        texts = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]
        vectors = [[1.0, *[float(len(str(text)) % 7)] * (_DIMENSIONS - 1)] for text in texts]
        encode = _base64_of if asked.get("encoding_format") == "base64" else list
        data = [{"object": "embedding", "index": index, "embedding": encode(one)} for index, one in enumerate(vectors)]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return web.json_response({"object": "list", "model": asked["model"], "data": data, "usage": usage})


def usage_of(charge: Charge) -> dict[str, Any]:
    """A charge in the words of chat completions."""
    usage: dict[str, Any] = {
        "prompt_tokens": charge.prompt,
        "completion_tokens": charge.completion,
        "total_tokens": charge.prompt + charge.completion,
    }
    if charge.cache_read:
        usage["prompt_tokens_details"] = {"cached_tokens": charge.cache_read}
    if charge.reasoning:
        usage["completion_tokens_details"] = {"reasoning_tokens": charge.reasoning}
    return usage


def _base64_of(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _answer(asked: dict[str, Any], session: str) -> dict[str, Any]:
    """The assistant's message; it names the session again, since some frameworks send on only what was answered."""
    messages: list[dict[str, Any]] = asked["messages"]
    functions = {tool["function"]["name"]: tool["function"] for tool in asked.get("tools", ())}
    answered = any(message["role"] == "tool" or "Observation:" in str(message.get("content")) for message in messages)
    name = "final_answer" if answered else next(iter(functions), "")
    if name in functions:
        function = functions[name]
        arguments = json.dumps(arguments_for(function.get("parameters", {})))
        call = {"id": "call_1", "type": "function", "function": {"name": function["name"], "arguments": arguments}}
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    words = f"Boots. [[{session}]]"
    # DSPy asks for fields under headings of its own.
    fields = dict.fromkeys(_DSPY_FIELD.findall(json.dumps(messages[-1]).partition("Respond with")[2]))
    content = "\n".join(f"[[ ## {name} ## ]]\n{words}\n" for name in fields) or words
    return {"role": "assistant", "content": content}


def _chunks(common: dict[str, Any], message: dict[str, Any], usage: dict[str, Any] | None) -> Iterator[str]:
    """The pieces of a streamed answer; the usage comes last, in a piece without choices."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    for index, call in enumerate(message.get("tool_calls", ())):
        deltas.append({"tool_calls": [{"index": index, **call}]})
    deltas += [{"content": word} for word in re.findall(r"\S+\s*", message["content"] or "")]
    reason = "tool_calls" if "tool_calls" in message else "stop"
    pieces: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
    ]
    pieces.append({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    if usage:
        pieces.append({"choices": [], "usage": usage})
    for piece in pieces:
        yield f"data: {json.dumps({**common, 'object': 'chat.completion.chunk', **piece})}"
    yield "data: [DONE]"
