"""Anthropic's SDK, traced by OpenInference, with the SDK's own spans off and, in one session, on."""

from __future__ import annotations

from typing import Any

from anthropic import Anthropic
from shop import did, finish, refused, set_up_tracing

# docs: begin openinference-anthropic
from openinference.instrumentation import using_attributes
from openinference.instrumentation.anthropic import AnthropicInstrumentor

provider = set_up_tracing()
AnthropicInstrumentor().instrument(tracer_provider=provider)
client = Anthropic(max_retries=0, open_telemetry={"traces": False})
# docs: end
MODEL = "claude-sonnet-4-5"


def messages(question: str) -> Any:
    return [{"role": "user", "content": question}]


with using_attributes(session_id="s-ada", user_id="ada"):
    client.messages.create(model=MODEL, max_tokens=100, messages=messages("Which shoes? [[s-ada]]"))
    with client.messages.stream(model=MODEL, max_tokens=100, messages=messages("Socks? [[s-ada]]")) as stream:
        stream.until_done()
    for _ in client.messages.create(model=MODEL, max_tokens=100, messages=messages("Laces? [[s-ada]]"), stream=True):
        pass
    did("s-ada", "ada", traces=3)
    with refused("s-ada", "ada"):
        client.messages.create(model=MODEL, max_tokens=100, messages=messages("fail, please [[s-ada]]"))
# The SDK's own spans beside OpenInference's: below them where the call is not streamed, in one turn where it is.
both = Anthropic(max_retries=0)
with using_attributes(session_id="s-grace", user_id="grace"):
    both.messages.create(model=MODEL, max_tokens=100, messages=messages("Which shoes? [[s-grace]]"))
    with provider.get_tracer("shop").start_as_current_span("turn"):
        with both.messages.stream(model=MODEL, max_tokens=100, messages=messages("Socks? [[s-grace]]")) as stream:
            stream.until_done()
    did("s-grace", "grace", traces=2)
# And in a trace of their own, which names the session as well.
both_name_it = both.with_options(open_telemetry={"conversation_id": "s-linus"})
with using_attributes(session_id="s-linus", user_id="linus"):
    with both_name_it.messages.stream(model=MODEL, max_tokens=100, messages=messages("Socks? [[s-linus]]")) as stream:
        stream.until_done()
    did("s-linus", "linus")
finish(provider)
