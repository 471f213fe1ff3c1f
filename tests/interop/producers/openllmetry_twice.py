"""OpenLLMetry and Anthropic's SDK both writing spans of each call, side by side in one trace."""

from __future__ import annotations

from typing import Any

from anthropic import Anthropic
from opentelemetry.instrumentation.anthropic import AnthropicInstrumentor
from shop import did, finish, set_up_tracing

provider = set_up_tracing()
AnthropicInstrumentor().instrument(tracer_provider=provider)
tracer = provider.get_tracer("shop")
client = Anthropic(max_retries=0)


def ask(question: str, **more: Any) -> Any:
    return client.messages.create(
        model="claude-sonnet-4-5", max_tokens=100, messages=[{"role": "user", "content": question}], **more
    )


with tracer.start_as_current_span("turn", attributes={"session.id": "s-ada", "user.id": "ada"}):
    ask("Which shoes? [[s-ada]]")
    ask("Which socks? [[s-ada]]")
did("s-ada", "ada")
with tracer.start_as_current_span("turn", attributes={"session.id": "s-grace", "user.id": "grace"}):
    for _ in ask("Which shoes? [[s-grace]]", stream=True):
        pass
    for _ in ask("Which socks? [[s-grace]]", stream=True):
        pass
did("s-grace", "grace")
finish(provider)
