"""Agno, traced by OpenInference: an agent with a tool, whole and streamed."""

from __future__ import annotations

from agno.agent import Agent
from agno.models.openai import OpenAIChat
from openinference.instrumentation.agno import AgnoInstrumentor
from shop import did, finish, refused, set_up_tracing

provider = set_up_tracing()
AgnoInstrumentor().instrument(tracer_provider=provider)


def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


agent = Agent(model=OpenAIChat(id="gpt-4o-mini", max_retries=0), tools=[weather], telemetry=False)
# docs: begin agno
agent.run("Which shoes? [[s-ada]]", session_id="s-ada", user_id="ada")
# docs: end
for _ in agent.run("Which socks? [[s-ada]]", session_id="s-ada", user_id="ada", stream=True):
    pass
did("s-ada", "ada", traces=2)
with refused("s-ada", "ada"):
    if agent.run("fail, please [[s-ada]]", session_id="s-ada", user_id="ada").status == "ERROR":
        raise RuntimeError("Agno tells an error as the status of a run")
agent.run("Which laces? [[s-grace]]", session_id="s-grace", user_id="grace")
did("s-grace", "grace")
finish(provider)
