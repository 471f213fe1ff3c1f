"""OpenTelemetry's own instrumentation of OpenAI's client: the session by baggage or by a span of the application."""

from __future__ import annotations

from typing import Any

from openai import OpenAI
from shop import did, finish, refused, set_up_tracing

# docs: begin baggage-setup
from opentelemetry import baggage, context
from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor
from opentelemetry.processor.baggage import BaggageSpanProcessor

provider = set_up_tracing()
provider.add_span_processor(BaggageSpanProcessor(lambda key: key in ("session.id", "user.id")))
OpenAIInstrumentor().instrument(tracer_provider=provider)
# docs: end
tracer = provider.get_tracer("shop")
client = OpenAI(max_retries=0)


def ask(question: str, **more: Any) -> Any:
    return client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": question}], **more)


def ada() -> None:
    """By baggage."""
    # docs: begin baggage
    of_session = baggage.set_baggage("user.id", "ada", baggage.set_baggage("session.id", "s-ada"))
    token = context.attach(of_session)
    try:
        ask("Which shoes? [[s-ada]]")
    finally:
        context.detach(token)
    # docs: end
    token = context.attach(of_session)
    try:
        for _ in ask("Which socks? [[s-ada]]", stream=True, stream_options={"include_usage": True}):
            pass
        client.embeddings.create(model="text-embedding-3-small", input="boots [[s-ada]]")
        did("s-ada", "ada", traces=3)
        with refused("s-ada", "ada"):
            ask("fail, please [[s-ada]]")
    finally:
        context.detach(token)


def grace() -> None:
    """By a span around the calls."""
    # docs: begin own-span
    with tracer.start_as_current_span("turn", attributes={"session.id": "s-grace", "user.id": "grace"}):
        ask("Which shoes? [[s-grace]]")
        ask("Which socks? [[s-grace]]")
    # docs: end
    did("s-grace", "grace")


def linus() -> None:
    """By the conventions' own name for it."""
    with tracer.start_as_current_span("turn", attributes={"gen_ai.conversation.id": "s-linus", "enduser.id": "linus"}):
        ask("Which shoes? [[s-linus]]")
    did("s-linus", "linus")


ada()
grace()
linus()
finish(provider)
