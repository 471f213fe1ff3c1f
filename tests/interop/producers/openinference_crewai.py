"""CrewAI, traced by OpenInference; usage is on the spans of OpenAI's client, which CrewAI calls."""

from __future__ import annotations

import os

os.environ["CREWAI_DISABLE_TELEMETRY"] = "true"
os.environ["CREWAI_TRACING_ENABLED"] = "false"
os.environ["OTEL_SDK_DISABLED"] = "false"

from crewai import LLM, Agent, Crew, Task
from openinference.instrumentation import using_attributes
from openinference.instrumentation.crewai import CrewAIInstrumentor
from openinference.instrumentation.openai import OpenAIInstrumentor
from shop import did, finish, refused, set_up_tracing

provider = set_up_tracing()
CrewAIInstrumentor().instrument(tracer_provider=provider)
OpenAIInstrumentor().instrument(tracer_provider=provider)


def crew_for(question: str) -> Crew:
    llm = LLM(model="openai/gpt-4o-mini", max_retries=0)
    clerk = Agent(role="clerk", goal="sell", backstory="a clerk", llm=llm, max_retry_limit=0)
    task = Task(description=question, expected_output="a word", agent=clerk)
    return Crew(agents=[clerk], tasks=[task])


# docs: begin crewai
with using_attributes(session_id="s-ada", user_id="ada"):
    crew_for("Which shoes? [[s-ada]]").kickoff()
# docs: end
did("s-ada", "ada")
with refused("s-ada", "ada"), using_attributes(session_id="s-ada", user_id="ada"):
    crew_for("fail, please [[s-ada]]").kickoff()
with using_attributes(session_id="s-grace", user_id="grace"):
    crew_for("Which socks? [[s-grace]]").kickoff()
did("s-grace", "grace")
finish(provider)
