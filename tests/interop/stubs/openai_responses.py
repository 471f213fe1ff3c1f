"""OpenAI's Responses, whole or streamed; what `OpenAIStub` answers under `/v1/responses`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tests.interop.stubs.bill import Charge
from tests.interop.stubs.server import arguments_for


def response_of(asked: dict[str, Any], session: str, model: str, charge: Charge) -> dict[str, Any]:
    """The answer: a call of the first tool, if there are tools and none has answered yet; else words."""
    return {
        "id": f"resp_{charge.prompt}",
        "object": "response",
        "created_at": 1_700_000_000,
        "status": "completed",
        "model": model,
        "output": [_item(asked, session)],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": asked.get("tools", []),
        "metadata": {},
        **dict.fromkeys(("error", "incomplete_details", "instructions", "temperature", "top_p")),
        "usage": {
            "input_tokens": charge.prompt,
            "input_tokens_details": {"cached_tokens": charge.cache_read},
            "output_tokens": charge.completion,
            "output_tokens_details": {"reasoning_tokens": charge.reasoning},
            "total_tokens": charge.prompt + charge.completion,
        },
    }


def _item(asked: dict[str, Any], session: str) -> dict[str, Any]:
    answered = "function_call_output" in json.dumps(asked["input"])
    if asked.get("tools") and not answered:
        tool = asked["tools"][0]
        arguments = json.dumps(arguments_for(tool.get("parameters", {})))
        call = {"call_id": "call_1", "name": tool["name"], "arguments": arguments, "status": "completed"}
        return {"type": "function_call", "id": "fc_1", **call}
    part = {"type": "output_text", "text": f"Boots. [[{session}]]", "annotations": []}
    return {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [part]}


def events_of(response: dict[str, Any]) -> Iterator[str]:
    """The pieces of that answer as a stream; only the last one has the usage."""
    (item,) = response["output"]
    place = {"item_id": item["id"], "output_index": 0}
    begun = {**response, "status": "in_progress", "output": [], "usage": None}
    events: list[dict[str, Any]] = [{"type": "response.created", "response": begun}]
    if item["type"] == "function_call":
        empty, arguments = {**item, "arguments": "", "status": "in_progress"}, item["arguments"]
        events += [
            {"type": "response.output_item.added", "output_index": 0, "item": empty},
            {"type": "response.function_call_arguments.delta", **place, "delta": arguments},
            {"type": "response.function_call_arguments.done", **place, "arguments": arguments},
        ]
    else:
        empty, (part,) = {**item, "content": [], "status": "in_progress"}, item["content"]
        place["content_index"] = 0
        events += [
            {"type": "response.output_item.added", "output_index": 0, "item": empty},
            {"type": "response.content_part.added", **place, "part": {**part, "text": ""}},
        ]
        for word in re.findall(r"\S+\s*", part["text"]):
            events.append({"type": "response.output_text.delta", **place, "delta": word, "logprobs": []})
        events += [
            {"type": "response.output_text.done", **place, "text": part["text"], "logprobs": []},
            {"type": "response.content_part.done", **place, "part": part},
        ]
    events += [
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": response},
    ]
    for number, event in enumerate(events):
        yield f"event: {event['type']}\ndata: {json.dumps({**event, 'sequence_number': number})}"
