"""OpenLIT's tracing of OpenAI's and Anthropic's clients, with attributes for all spans within."""

from __future__ import annotations

from typing import Any

import openlit
from anthropic import Anthropic
from openai import OpenAI
from shop import did, finish, refused, set_up_tracing

provider = set_up_tracing()
openlit.init(disable_metrics=True)  # takes the global tracer provider
client = OpenAI(max_retries=0)


def ask(question: str, **more: Any) -> Any:
    return client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": question}], **more)


# docs: begin openlit
with openlit.using_attributes({"session.id": "s-ada", "user.id": "ada"}):
    ask("Which shoes? [[s-ada]]")
# docs: end
with openlit.using_attributes({"session.id": "s-ada", "user.id": "ada"}):
    for _ in ask("Which socks? [[s-ada]]", stream=True, stream_options={"include_usage": True}):
        pass
    client.embeddings.create(model="text-embedding-3-small", input="boots [[s-ada]]")
    did("s-ada", "ada", traces=3)
    with refused("s-ada", "ada"):
        ask("fail, please [[s-ada]]")
claude = Anthropic(max_retries=0)
messages: Any = [{"role": "user", "content": "Which shoes? [[s-linus]]"}]
with openlit.using_attributes({"session.id": "s-linus", "user.id": "linus"}):
    claude.messages.create(model="claude-sonnet-4-5", max_tokens=100, messages=messages)
    for _ in claude.messages.create(model="claude-sonnet-4-5", max_tokens=100, messages=messages, stream=True):
        pass
    did("s-linus", "linus", traces=2)
finish(provider)
