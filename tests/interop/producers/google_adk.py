"""Google's ADK with its own spans: tools, a transfer to a sub-agent, and the user by baggage."""

from __future__ import annotations

import asyncio

from google.adk.agents import LlmAgent
from google.adk.runners import InMemoryRunner
from google.genai import types
from shop import did, finish, refused, set_up_tracing

# docs: begin google-adk-setup
from opentelemetry import baggage, context
from opentelemetry.processor.baggage import BaggageSpanProcessor

provider = set_up_tracing()
provider.add_span_processor(BaggageSpanProcessor(lambda key: key == "user.id"))
# docs: end


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


# docs: begin google-adk
async def take_turn(runner: InMemoryRunner, session_id: str, user_id: str, question: str) -> None:
    message = types.Content(role="user", parts=[types.Part(text=question)])
    token = context.attach(baggage.set_baggage("user.id", user_id))  # ADK writes the session, but no user
    try:
        async for _ in runner.run_async(session_id=session_id, user_id=user_id, new_message=message):
            pass
    finally:
        context.detach(token)


# docs: end
async def main() -> None:
    runner = InMemoryRunner(agent=clerk, app_name="shop")
    for session_id, user_id in (("s-ada", "ada"), ("s-grace", "grace")):
        await runner.session_service.create_session(app_name="shop", user_id=user_id, session_id=session_id)
        await take_turn(runner, session_id, user_id, f"Which shoes? [[{session_id}]]")
        did(session_id, user_id)
    await take_turn(runner, "s-ada", "ada", "And which socks? [[s-ada]]")
    did("s-ada", "ada")
    with refused("s-ada", "ada"):
        await take_turn(runner, "s-ada", "ada", "fail, please [[s-ada]]")


asyncio.run(main())
finish(provider)
