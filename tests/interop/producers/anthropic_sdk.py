"""Anthropic's SDK, which writes spans of its own as soon as there is a tracer provider."""

from __future__ import annotations

from typing import Any

from anthropic import Anthropic
from shop import did, finish, refused, set_up_tracing

provider = set_up_tracing()
client = Anthropic(max_retries=0)
MODEL = "claude-sonnet-4-5"


def messages(question: str) -> Any:
    return [{"role": "user", "content": question}]


# docs: begin anthropic-sdk
def of_session(session_id: str) -> Anthropic:
    return client.with_options(open_telemetry={**client.open_telemetry, "conversation_id": session_id})


# docs: end
ada = of_session("s-ada")
ada.messages.create(model=MODEL, max_tokens=100, messages=messages("Which shoes? [[s-ada]]"))
with ada.messages.stream(model=MODEL, max_tokens=100, messages=messages("Which socks? [[s-ada]]")) as stream:
    stream.until_done()
for _ in ada.messages.create(model=MODEL, max_tokens=100, messages=messages("Laces? [[s-ada]]"), stream=True):
    pass
did("s-ada", None, traces=3)
with refused("s-ada", None):
    ada.messages.create(model=MODEL, max_tokens=100, messages=messages("fail, please [[s-ada]]"))
grace = of_session("s-grace")
with provider.get_tracer("shop").start_as_current_span("turn"):
    grace.messages.create(model=MODEL, max_tokens=100, messages=messages("Which shoes? [[s-grace]]"))
    grace.messages.create(model=MODEL, max_tokens=100, messages=messages("Which socks? [[s-grace]]"))
did("s-grace", None)
finish(provider)
