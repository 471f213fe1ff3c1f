"""Mistral's client, traced by OpenInference."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from shop import did, finish, refused, set_up_tracing

# docs: begin mistralai
from mistralai.client import Mistral
from openinference.instrumentation import using_attributes, using_session, using_user
from openinference.instrumentation.mistralai import MistralAIInstrumentor

provider = set_up_tracing()
MistralAIInstrumentor().instrument(tracer_provider=provider)
client = Mistral(api_key=os.environ["MISTRAL_API_KEY"], server_url=os.environ.get("MISTRAL_SERVER_URL"))

with using_attributes(session_id="s-ada", user_id="ada"):
    client.chat.complete(model="mistral-small-latest", messages=[{"role": "user", "content": "Which shoes? [[s-ada]]"}])
# docs: end
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@using_session("s-grace")
@using_user("grace")
def stream(question: str) -> str:
    chunks = client.chat.stream(model="mistral-small-latest", messages=[{"role": "user", "content": question}])
    return "".join(str(chunk.data.choices[0].delta.content or "") for chunk in chunks if chunk.data.choices)


@using_attributes(session_id="s-grace", user_id="grace")
def ask_with_tools(question: str) -> None:
    client.chat.complete(
        model="mistral-large-latest", messages=[{"role": "user", "content": question}], tools=[WEATHER]
    )


async def ask_asynchronously(question: str) -> None:
    with using_session("s-ada"), using_user("ada"):
        await client.chat.complete_async(model="mistral-small-latest", messages=[{"role": "user", "content": question}])


stream("Boots? [[s-grace]]")
ask_with_tools("Rain? [[s-grace]]")
asyncio.run(ask_asynchronously("And socks? [[s-ada]]"))
did("s-ada", "ada", traces=2)
did("s-grace", "grace", traces=2)
with refused("s-grace", "grace"), using_attributes(session_id="s-grace", user_id="grace"):
    client.chat.complete(
        model="mistral-small-latest", messages=[{"role": "user", "content": "fail, please [[s-grace]]"}]
    )
finish(provider)
