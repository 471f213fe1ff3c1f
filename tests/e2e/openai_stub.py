"""OpenAI's chat completions, as far as an application can tell; it keeps the bill."""

from __future__ import annotations

import json
from collections import Counter
from types import TracebackType
from typing import Any, Final, Self

from aiohttp import web

from aggregator.embedded.process import LOCALHOST

RELEASES: Final = {"gpt-4o": "gpt-4o-2024-08-06", "gpt-4o-mini": "gpt-4o-mini-2024-07-18"}
"""What answers, by what is asked for."""


class OpenAIStub:
    """Listens on a free port from `async with` until its end.

    Every answer costs other figures than those before.  `bill` has the sums by the model that answered: calls, and
    prompt, completion, cached and reasoning tokens.
    """

    def __init__(self) -> None:
        self.bill: dict[str, Counter[str]] = {}
        self.errors = 0
        self._answers = 0
        self._runner: web.AppRunner | None = None

    @property
    def base_url(self) -> str:
        """The value of `OPENAI_BASE_URL`."""
        assert self._runner is not None
        return f"http://{LOCALHOST}:{self._runner.addresses[0][1]}/v1"

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._complete)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, LOCALHOST, 0).start()
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        asked: dict[str, Any] = await request.json()
        if "fail" in asked["messages"][-1]["content"]:
            self.errors += 1
            return web.json_response({"error": {"message": "overloaded", "type": "server_error"}}, status=503)
        model = RELEASES[asked["model"]]
        usage = self._charge(model)
        common = {"id": f"chatcmpl-{self._answers}", "created": 1_700_000_000, "model": model}
        if not asked.get("stream"):
            message = {"role": "assistant", "content": "Boots."}
            choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
            return web.json_response({**common, "object": "chat.completion", "choices": choices, "usage": usage})
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        for chunk in _chunks(usage if asked.get("stream_options", {}).get("include_usage") else None):
            data = json.dumps({**common, "object": "chat.completion.chunk", **chunk})
            await stream.write(f"data: {data}\n\n".encode())
        await stream.write(b"data: [DONE]\n\n")
        return stream

    def _charge(self, model: str) -> dict[str, Any]:
        self._answers += 1
        n = self._answers
        prompt, completion, cached, reasoning = 1000 + 10**n, 100 + 7 * n, 64 * n, 16 + n
        figures = {"prompt": prompt, "completion": completion, "cache_read": cached, "reasoning": reasoning, "calls": 1}
        self.bill.setdefault(model, Counter()).update(figures)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached},
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        }


def _chunks(usage: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The pieces of a streamed answer; the usage comes last, in a piece without choices."""
    chunks: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "Skis"}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {"content": "."}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    ]
    return [*chunks, {"choices": [], "usage": usage}] if usage else chunks
