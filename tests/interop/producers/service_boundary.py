"""A web tier that sets the session, before a service that does not: the trace crosses over, the helpers don't."""

from __future__ import annotations

from openai import OpenAI
from openinference.instrumentation.openai import OpenAIInstrumentor

from front import Backend
from shop import did, finish, set_up_tracing

provider = set_up_tracing()
OpenAIInstrumentor().instrument(tracer_provider=provider)
tracer = provider.get_tracer("web")
client = OpenAI(max_retries=0)
backend = Backend()

# docs: begin own-span
with tracer.start_as_current_span("POST /chat", attributes={"session.id": "s-ada", "user.id": "ada"}):
    backend.ask("Which shoes? [[s-ada]]")  # another service, which gets `traceparent` and no session
# docs: end
did("s-ada", "ada")

# docs: begin own-span-helpers
from openinference.instrumentation import get_attributes_from_context, using_attributes

with using_attributes(session_id="s-grace", user_id="grace"):
    with tracer.start_as_current_span("POST /chat", attributes=dict(get_attributes_from_context())):
        backend.ask("Which boots? [[s-grace]]")
# docs: end
did("s-grace", "grace")

with using_attributes(session_id="s-linus", user_id="linus"), tracer.start_as_current_span("POST /chat"):
    # The plain span gets no session, but the trace has one from the call that OpenInference traces here.
    client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Boots? [[s-linus]]"}])
    backend.ask("Which skis? [[s-linus]]")
did("s-linus", "linus")

backend.stop()
finish(provider)
