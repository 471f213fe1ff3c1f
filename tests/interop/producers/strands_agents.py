"""Strands Agents with its own spans; one agent takes several turns, so its span repeats more and more."""

from __future__ import annotations

from shop import did, finish, refused, set_up_tracing
from strands import Agent, tool
from strands.models.openai import OpenAIModel

provider = set_up_tracing()


@tool
def weather(city: str) -> str:
    """The weather in a city.

    Args:
        city: its name
    """
    return f"rain in {city}"


# docs: begin strands
def agent_of(session_id: str, user_id: str) -> Agent:
    model = OpenAIModel(model_id="gpt-4o-mini", client_args={"max_retries": 0})
    return Agent(
        model=model,
        tools=[weather],
        callback_handler=None,
        trace_attributes={"session.id": session_id, "user.id": user_id},
    )


# docs: end
ada = agent_of("s-ada", "ada")
ada("Which shoes? [[s-ada]]")
ada("Which socks? [[s-ada]]")
did("s-ada", "ada", traces=2)
with refused("s-ada", "ada"):
    ada("fail, please [[s-ada]]")
agent_of("s-grace", "grace")("Which laces? [[s-grace]]")
did("s-grace", "grace")
finish(provider)
