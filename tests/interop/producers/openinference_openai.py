"""OpenAI's client, traced by OpenInference: every helper that sets session and user, streaming, tools and errors."""

from __future__ import annotations

import asyncio
from typing import Any

from openai import AsyncOpenAI, OpenAI
from shop import did, finish, refused, set_up_tracing

# docs: begin openinference-setup
from openinference.instrumentation import using_attributes, using_session, using_user
from openinference.instrumentation.openai import OpenAIInstrumentor

provider = set_up_tracing()
OpenAIInstrumentor().instrument(tracer_provider=provider)
# docs: end
tracer = provider.get_tracer("shop")
client = OpenAI(max_retries=0)
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def ask(question: str, **more: Any) -> Any:
    return client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": question}], **more)


def stream(question: str, **more: Any) -> str:
    chunks = ask(question, stream=True, **more)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def ask_with_tools(question: str) -> None:
    messages: list[Any] = [{"role": "user", "content": question}]
    answer = client.chat.completions.create(model="gpt-4o", messages=messages, tools=[WEATHER]).choices[0].message
    call = (answer.tool_calls or [])[0]
    messages += [answer, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    client.chat.completions.create(model="gpt-4o", messages=messages, tools=[WEATHER])


def ada() -> None:
    """Each helper as context manager."""
    # docs: begin using-attributes
    with using_attributes(session_id="s-ada", user_id="ada"):
        ask("Which shoes for rain? [[s-ada]]")
    # docs: end
    # docs: begin using-session
    with using_session("s-ada"), using_user("ada"):
        ask_with_tools("And in Oslo? [[s-ada]]")
    # docs: end
    did("s-ada", "ada", traces=3)  # asked, asked for a tool, told what the tool said


# docs: begin decorators
@using_session("s-grace")
@using_user("grace")
def grace(question: str) -> None:
    with tracer.start_as_current_span("turn", attributes={"openinference.span.kind": "CHAIN"}):
        ask(question)
        ask("Anything cheaper? [[s-grace]]")


@using_attributes(session_id="s-grace", user_id="grace")
def grace_streams(question: str) -> None:
    stream(question, stream_options={"include_usage": True})


# docs: end
def linus() -> None:
    """Streams, and is not told the usage."""
    with using_attributes(session_id="s-linus", user_id="linus"):
        ask("Which shoes? [[s-linus]]")
        stream("Which socks? [[s-linus]]")
    did("s-linus", "linus", traces=2)


@using_attributes(session_id="s-edsger", user_id="edsger")
async def edsger(question: str) -> None:
    """The asynchronous client, and embeddings."""
    async with AsyncOpenAI(max_retries=0) as asynchronous:
        await asynchronous.embeddings.create(model="text-embedding-3-small", input="boots [[s-edsger]]")
        await asynchronous.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": question}])
    did("s-edsger", "edsger", traces=2)


def barbara() -> None:
    """The Responses API, which always tells the usage."""
    with using_session("s-barbara"), using_user("barbara"):
        client.responses.create(model="gpt-4o", input="Boots? [[s-barbara]]")
        for _ in client.responses.create(model="gpt-4o", input="Skis? [[s-barbara]]", stream=True):
            pass
    did("s-barbara", "barbara", traces=2)


ada()
grace("Boots? [[s-grace]]")
grace_streams("Skis? [[s-grace]]")
did("s-grace", "grace", traces=2)
linus()
asyncio.run(edsger("Boots? [[s-edsger]]"))
barbara()
with refused("s-ada", "ada"), using_attributes(session_id="s-ada", user_id="ada"):
    ask("fail, please [[s-ada]]")
finish(provider)
