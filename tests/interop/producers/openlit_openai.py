"""OpenLIT's tracing of OpenAI's client; it has no session of its own, so a span around the turn has it."""

from __future__ import annotations

from typing import Any

import openlit
from openai import OpenAI
from shop import did, finish, refused, set_up_tracing

provider = set_up_tracing()
openlit.init(disable_metrics=True)  # takes the global tracer provider
tracer = provider.get_tracer("shop")
client = OpenAI(max_retries=0)


def ask(question: str, **more: Any) -> Any:
    return client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": question}], **more)


with tracer.start_as_current_span("turn", attributes={"session.id": "s-ada", "user.id": "ada"}):
    ask("Which shoes? [[s-ada]]")
    for _ in ask("Which socks? [[s-ada]]", stream=True, stream_options={"include_usage": True}):
        pass
    client.embeddings.create(model="text-embedding-3-small", input="boots [[s-ada]]")
did("s-ada", "ada")
with refused("s-ada", "ada"), tracer.start_as_current_span("turn", attributes={"session.id": "s-ada"}):
    ask("fail, please [[s-ada]]")
finish(provider)
