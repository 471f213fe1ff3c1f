"""Smolagents, traced by OpenInference: the agent's span repeats what its steps used."""

from __future__ import annotations

from openinference.instrumentation import using_attributes
from openinference.instrumentation.smolagents import SmolagentsInstrumentor
from shop import did, finish, refused, set_up_tracing
from smolagents import OpenAIServerModel, ToolCallingAgent, tool

provider = set_up_tracing()
SmolagentsInstrumentor().instrument(tracer_provider=provider)


@tool
def weather(city: str) -> str:
    """The weather in a city.

    Args:
        city: its name
    """
    return f"rain in {city}"


model = OpenAIServerModel(model_id="gpt-4o-mini", client_kwargs={"max_retries": 0})
agent = ToolCallingAgent(model=model, tools=[weather], max_steps=4, verbosity_level=0)
# docs: begin smolagents
with using_attributes(session_id="s-ada", user_id="ada"):
    agent.run("Which shoes? [[s-ada]]")
# docs: end
with using_attributes(session_id="s-ada", user_id="ada"):
    agent.run("Which socks? [[s-ada]]")
    did("s-ada", "ada", traces=2)
    with refused("s-ada", "ada"):
        agent.run("fail, please [[s-ada]]")
with using_attributes(session_id="s-grace", user_id="grace"):
    agent.run("Which laces? [[s-grace]]")
    did("s-grace", "grace")
finish(provider)
