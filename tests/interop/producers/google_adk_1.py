"""Google's ADK before version 2: the model's span stays open while its tools and a sub-agent run."""

from __future__ import annotations

import asyncio

from google.adk.agents import LlmAgent
from google.adk.runners import InMemoryRunner
from google.genai import types
from shop import did, finish, refused, set_up_tracing

provider = set_up_tracing()


def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


helper = LlmAgent(
    name="helper",
    model="gemini-2.5-flash",
    instruction="Help with shoes.",
    tools=[weather],
    disallow_transfer_to_parent=True,
    disallow_transfer_to_peers=True,
)
clerk = LlmAgent(name="clerk", model="gemini-2.5-flash", instruction="Sell.", tools=[weather], sub_agents=[helper])


async def take_turn(runner: InMemoryRunner, session_id: str, user_id: str, question: str) -> None:
    message = types.Content(role="user", parts=[types.Part(text=question)])
    async for _ in runner.run_async(session_id=session_id, user_id=user_id, new_message=message):
        pass


async def main() -> None:
    runner = InMemoryRunner(agent=clerk, app_name="shop")
    for session_id, user_id in (("s-ada", "ada"), ("s-grace", "grace")):
        await runner.session_service.create_session(app_name="shop", user_id=user_id, session_id=session_id)
        await take_turn(runner, session_id, user_id, f"Which shoes? [[{session_id}]]")
        did(session_id, user_id)
    with refused("s-ada", "ada"):
        await take_turn(runner, "s-ada", "ada", "fail, please [[s-ada]]")


asyncio.run(main())
finish(provider)
