"""The session travels as baggage, and every service copies it onto its spans."""

from __future__ import annotations

from openai import OpenAI
from openinference.instrumentation.openai import OpenAIInstrumentor

from front import Backend
from shop import did, finish, set_up_tracing

from opentelemetry import baggage, context
from opentelemetry.processor.baggage import BaggageSpanProcessor

provider = set_up_tracing()
provider.add_span_processor(BaggageSpanProcessor(lambda key: key in ("session.id", "user.id")))  # in every service
OpenAIInstrumentor().instrument(tracer_provider=provider)
client = OpenAI(max_retries=0)
backend = Backend("--baggage")

here = baggage.set_baggage("session.id", "s-ada")
here = baggage.set_baggage("user.id", "ada", here)
token = context.attach(here)
backend.ask("Which shoes? [[s-ada]]")  # without a span here: the trace is the other service's alone
context.detach(token)
did("s-ada", "ada")

token = context.attach(baggage.set_baggage("session.id", "s-grace", baggage.set_baggage("user.id", "grace")))
with provider.get_tracer("web").start_as_current_span("POST /chat"):
    client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Boots? [[s-grace]]"}])
    backend.ask("Which skis? [[s-grace]]")
context.detach(token)
did("s-grace", "grace")

backend.stop()
finish(provider)
