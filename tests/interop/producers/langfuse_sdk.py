"""Langfuse's SDK: its drop-in for OpenAI's client, its decorator, and usage and cost told by hand."""

from __future__ import annotations

import os
from typing import Any

# docs: begin langfuse-setup
from langfuse import Langfuse
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

# Its spans go to the Collector; to have them at Langfuse too, let the Collector send them on.
langfuse = Langfuse(public_key="pk-shop", secret_key="sk-shop", span_exporter=OTLPSpanExporter())  # noqa: S106 - a stub
# docs: end
import httpx2 as httpx
from langfuse import observe, propagate_attributes
from langfuse.openai import OpenAI
from openai.types.chat import ChatCompletion
from shop import did, finish, refused

client = OpenAI(max_retries=0)


def ask(question: str, **more: Any) -> Any:
    return client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": question}], **more)


# docs: begin langfuse
@observe()
def take_turn(session_id: str, user_id: str, question: str) -> None:
    with propagate_attributes(session_id=session_id, user_id=user_id):
        ask(question)


# docs: end
def ask_by_hand(question: str) -> None:
    """Without the drop-in: usage in Langfuse's own keys, which exclude one another, and a cost."""
    with langfuse.start_as_current_observation(name="by hand", as_type="generation", model="gpt-4o-mini") as generation:
        answer = ask_plainly(question)
        cached = answer.usage.prompt_tokens_details.cached_tokens
        reasoning = answer.usage.completion_tokens_details.reasoning_tokens
        generation.update(
            model=answer.model,
            usage_details={
                "input": answer.usage.prompt_tokens - cached,
                "input_cached_tokens": cached,
                "output": answer.usage.completion_tokens - reasoning,
                "output_reasoning_tokens": reasoning,
                "total": answer.usage.total_tokens,
            },
            cost_details={"input": 0.25, "output": 0.5, "total": 0.75},
        )


def ask_plainly(question: str) -> Any:
    """As with a client that nobody instruments."""
    answer = httpx.post(
        f"{os.environ['OPENAI_BASE_URL']}/chat/completions",
        json={"model": "gpt-4o-mini", "messages": [{"role": "user", "content": question}]},
    )
    return ChatCompletion.model_validate(answer.json())


take_turn("s-ada", "ada", "Which shoes? [[s-ada]]")
with propagate_attributes(session_id="s-ada", user_id="ada"):
    for _ in ask("Which socks? [[s-ada]]", stream=True, stream_options={"include_usage": True}):
        pass
    client.embeddings.create(model="text-embedding-3-small", input="boots [[s-ada]]")
did("s-ada", "ada", traces=3)
with refused("s-ada", "ada"):
    take_turn("s-ada", "ada", "fail, please [[s-ada]]")
with propagate_attributes(session_id="s-grace", user_id="grace"):
    ask_by_hand("Which shoes? [[s-grace]]")
    did("s-grace", "grace")
langfuse.flush()
finish()
