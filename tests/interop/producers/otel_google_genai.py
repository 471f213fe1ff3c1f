"""OpenTelemetry's own instrumentation of Google's client: whole, streamed, and with tools that the client calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from google import genai
from google.genai import types
from opentelemetry import baggage, context
from opentelemetry.instrumentation.google_genai import GoogleGenAiSdkInstrumentor
from opentelemetry.processor.baggage import BaggageSpanProcessor
from shop import did, finish, refused, set_up_tracing

provider = set_up_tracing()
provider.add_span_processor(BaggageSpanProcessor(lambda key: key in ("session.id", "user.id")))
GoogleGenAiSdkInstrumentor().instrument(tracer_provider=provider)
client = genai.Client()  # kept, since it closes its connections when it goes
models = client.models
MODEL = "gemini-2.5-flash"


@contextmanager
def session(session_id: str, user_id: str) -> Iterator[None]:
    token = context.attach(baggage.set_baggage("user.id", user_id, baggage.set_baggage("session.id", session_id)))
    try:
        yield
    finally:
        context.detach(token)


def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


with session("s-ada", "ada"):
    models.generate_content(model=MODEL, contents="Which shoes? [[s-ada]]")
    for _ in models.generate_content_stream(model=MODEL, contents="Which socks? [[s-ada]]"):
        pass
    did("s-ada", "ada", traces=2)
    with refused("s-ada", "ada"):
        models.generate_content(model=MODEL, contents="fail, please [[s-ada]]")
with session("s-grace", "grace"):  # the client calls the tool by itself: one span for two calls of the model
    models.generate_content(
        model=MODEL,
        contents="Which shoes for Oslo? [[s-grace]] untold: weather",
        config=types.GenerateContentConfig(tools=[weather]),
    )
    did("s-grace", "grace")
finish(provider)
