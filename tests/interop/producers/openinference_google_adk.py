"""Google's ADK, traced by OpenInference, which takes session and user from the runner."""

from __future__ import annotations

import asyncio

from google.adk.agents import LlmAgent
from google.adk.runners import InMemoryRunner
from google.genai import types
from shop import did, finish, refused, set_up_tracing

# docs: begin openinference-google-adk
from openinference.instrumentation.google_adk import GoogleADKInstrumentor

provider = set_up_tracing()
GoogleADKInstrumentor().instrument(tracer_provider=provider)
# docs: end


def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


clerk = LlmAgent(name="clerk", model="gemini-2.5-flash", instruction="Sell.", tools=[weather])
quiet_clerk = LlmAgent(name="clerk", model="gemini-2.5-flash", instruction="Sell.")


async def take_turn(runner: InMemoryRunner, session_id: str, user_id: str, question: str) -> None:
    message = types.Content(role="user", parts=[types.Part(text=question)])
    async for _ in runner.run_async(session_id=session_id, user_id=user_id, new_message=message):
        pass


async def main() -> None:
    quiet, with_tools = (InMemoryRunner(agent=agent, app_name="shop") for agent in (quiet_clerk, clerk))
    for runner, session_id, user_id in ((quiet, "s-ada", "ada"), (with_tools, "s-grace", "grace")):
        await runner.session_service.create_session(app_name="shop", user_id=user_id, session_id=session_id)
    await take_turn(quiet, "s-ada", "ada", "Which shoes? [[s-ada]]")
    await take_turn(quiet, "s-ada", "ada", "Which socks? [[s-ada]]")
    did("s-ada", "ada", traces=2)
    with refused("s-ada", "ada"):
        await take_turn(quiet, "s-ada", "ada", "fail, please [[s-ada]]")
    # Both calls of this turn are written to one span, so the second one's usage takes the place of the first one's.
    await take_turn(with_tools, "s-grace", "grace", "Which shoes for Oslo? [[s-grace]] untold: weather")
    did("s-grace", "grace")


asyncio.run(main())
finish(provider)
