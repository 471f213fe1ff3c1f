"""LiteLLM's own OpenTelemetry callback; a span around the turn has the session."""

from __future__ import annotations

import os
from typing import Any

import litellm
from shop import did, finish, refused, set_up_tracing

provider = set_up_tracing()
# docs: begin litellm-callback
os.environ["USE_OTEL_LITELLM_REQUEST_SPAN"] = "true"  # or it writes onto your span, which may have ended by then
litellm.callbacks = ["otel"]

tracer = provider.get_tracer("shop")
with tracer.start_as_current_span("turn", attributes={"session.id": "s-ada", "user.id": "ada"}):
    litellm.completion(model="openai/gpt-4o-mini", messages=[{"role": "user", "content": "Which shoes? [[s-ada]]"}])
# docs: end


def ask(question: str, **more: Any) -> Any:
    return litellm.completion(model="openai/gpt-4o-mini", messages=[{"role": "user", "content": question}], **more)


did("s-ada", "ada")
# What was streamed is logged by a thread that knows nothing of the turn, so it becomes a trace without a session.
with tracer.start_as_current_span("turn", attributes={"session.id": "s-grace", "user.id": "grace"}):
    for _ in ask("Which socks? [[s-grace]]", stream=True, stream_options={"include_usage": True}):
        pass
did("s-grace", "grace")
with refused("s-ada", "ada"):
    with tracer.start_as_current_span("turn", attributes={"session.id": "s-ada", "user.id": "ada"}):
        ask("fail, please [[s-ada]]", max_retries=0)
finish(provider)
