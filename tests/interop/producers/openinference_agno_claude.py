"""Agno with Claude, traced by OpenInference, which leaves cached tokens out of the prompt here."""

from __future__ import annotations

from agno.agent import Agent
from agno.models.anthropic import Claude
from openinference.instrumentation.agno import AgnoInstrumentor
from shop import did, finish, set_up_tracing

provider = set_up_tracing()
AgnoInstrumentor().instrument(tracer_provider=provider)
agent = Agent(model=Claude(id="claude-sonnet-4-5"), telemetry=False)
agent.run("Which shoes? [[s-ada]]", session_id="s-ada", user_id="ada")
did("s-ada", "ada")
for _ in agent.run("Which socks? [[s-grace]]", session_id="s-grace", user_id="grace", stream=True):
    pass
did("s-grace", "grace")
finish(provider)
