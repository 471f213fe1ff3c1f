"""Pydantic AI with its own spans: tools, a history, streaming, and an agent as a tool of another."""

from __future__ import annotations

import asyncio

from openai import AsyncOpenAI
from opentelemetry import baggage, context
from opentelemetry.processor.baggage import BaggageSpanProcessor
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from shop import did, finish, refused, set_up_tracing

provider = set_up_tracing()
provider.add_span_processor(BaggageSpanProcessor(lambda key: key == "user.id"))
Agent.instrument_all()
model = OpenAIChatModel("gpt-4o-mini", provider=OpenAIProvider(openai_client=AsyncOpenAI(max_retries=0)))
clerk = Agent(model, name="clerk")
helper = Agent(model, name="helper")
chief = Agent(model, name="chief")


@clerk.tool_plain
def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


@chief.tool_plain
async def ask_helper(question: str) -> str:
    """Ask the helper."""
    return (await helper.run(f"{question} [[s-grace]]")).output


# docs: begin pydantic-ai
async def take_turn(agent: Agent, session_id: str, user_id: str, question: str) -> None:
    token = context.attach(baggage.set_baggage("user.id", user_id))
    try:
        await agent.run(question, conversation_id=session_id)
    finally:
        context.detach(token)


# docs: end
async def main() -> None:
    await take_turn(clerk, "s-ada", "ada", "Which shoes? [[s-ada]]")
    async with clerk.run_stream("Which socks? [[s-ada]]", conversation_id="s-ada") as streamed:
        await streamed.get_output()
    did("s-ada", "ada", traces=2)
    with refused("s-ada", "ada"):
        await take_turn(clerk, "s-ada", "ada", "fail, please [[s-ada]]")
    await take_turn(chief, "s-grace", "grace", "Which shoes? [[s-grace]]")
    did("s-grace", "grace")
    await take_turn(Agent("anthropic:claude-sonnet-4-5"), "s-linus", "linus", "Which shoes? [[s-linus]]")
    await take_turn(Agent("google:gemini-2.5-flash"), "s-linus", "linus", "Which socks? [[s-linus]]")
    did("s-linus", "linus", traces=2)


asyncio.run(main())
finish(provider)
