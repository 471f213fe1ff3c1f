"""Gemini's content generation, as far as an application can tell; every answer has thoughts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final

from aiohttp import web

from tests.interop.stubs.bill import Charge
from tests.interop.stubs.server import FAILS, Stub, arguments_for, send_events

_PATH: Final = r"/v1beta/models/{model:[\w.-]+}:{verb:generateContent|streamGenerateContent}"
_SCHEMAS: Final = ("parameters_json_schema", "parametersJsonSchema", "parameters")  # clients differ
_UNTOLD: Final = re.compile(r"untold: (\w+)")
"""A request with `untold: weather` in it says: its producer won't tell what the call of that tool cost."""


class GeminiStub(Stub):
    """Answers `generateContent` and `streamGenerateContent`.

    A request with tools is answered with a call of the first one, once; then with a transfer to an agent where that
    is offered; then in words.
    """

    def routes(self) -> Iterable[web.RouteDef]:
        return [web.post(_PATH, self._generate)]

    def environment(self) -> dict[str, str]:
        return {"GOOGLE_GEMINI_BASE_URL": self.url, "GOOGLE_API_KEY": "none"}

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        asked: dict[str, Any] = await request.json()
        session = self.session_of(request, asked)
        if FAILS in json.dumps(asked["contents"][-1]):
            self.bill.refuse(session)
            error = {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}
            return web.json_response({"error": error}, status=503)
        part = _part(asked, session)
        untold = _UNTOLD.search(json.dumps(asked["contents"]))
        told = untold is None or part.get("functionCall", {}).get("name") != untold[1]
        model = request.match_info["model"]
        answer = {
            "candidates": [{"content": {"role": "model", "parts": [part]}, "finishReason": "STOP", "index": 0}],
            "usageMetadata": _usage_of(self.bill.charge(session, model, told=told)),
            "modelVersion": model,
        }
        if request.match_info["verb"] == "streamGenerateContent":
            return await send_events(request, [f"data: {json.dumps(answer)}"])
        return web.json_response(answer)


def _part(asked: dict[str, Any], session: str) -> dict[str, Any]:
    """The one part of the answer."""
    functions = {one["name"]: one for tool in asked.get("tools", ()) for one in tool.get("functionDeclarations", ())}
    answered = re.findall(r'"functionResponse": {[^}]*"name": "(\w+)"', json.dumps(asked["contents"]))
    for name in sorted(functions, key="transfer_to_agent".__eq__):
        if name not in answered and (name == "transfer_to_agent" or not answered):
            schemas = [functions[name].get(key) for key in _SCHEMAS]
            schema: dict[str, Any] = next(filter(None, schemas), {})
            return {"functionCall": {"name": name, "args": arguments_for(_lower_types(schema))}}
    return {"text": f"Boots. [[{session}]]"}


def _lower_types(schema: dict[str, Any]) -> dict[str, Any]:
    """Gemini's own schemas write STRING where JSON Schema has string."""
    lowered: dict[str, Any] = json.loads(
        re.sub(r'"type": "([A-Z]+)"', lambda found: f'"type": "{found[1].lower()}"', json.dumps(schema))
    )
    return lowered


def _usage_of(charge: Charge) -> dict[str, int]:
    """A charge in Gemini's words: thoughts are beside the candidates, cached tokens in the prompt."""
    return {
        "promptTokenCount": charge.prompt,
        "candidatesTokenCount": charge.completion - charge.reasoning,
        "thoughtsTokenCount": charge.reasoning,
        "cachedContentTokenCount": charge.cache_read,
        "totalTokenCount": charge.prompt + charge.completion,
    }
