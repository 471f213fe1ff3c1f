"""OpenLLMetry's LangChain instrumentation: an agent with a tool, a streamed chain, and OpenAI's beside it."""

from __future__ import annotations

from langchain.agents import create_agent
from langchain_openai import ChatOpenAI
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from shop import did, finish, refused
from traceloop.sdk import Instruments, Traceloop
from traceloop.sdk.decorators import workflow

Traceloop.init(
    app_name="shop", exporter=OTLPSpanExporter(), instruments={Instruments.LANGCHAIN}, telemetry_enabled=False
)
model = ChatOpenAI(model="gpt-4o-mini", max_retries=0)


def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


agent = create_agent(model, tools=[weather])


def run_agent(session_id: str, user_id: str, question: str) -> None:
    Traceloop.set_association_properties({"session_id": session_id, "user_id": user_id})
    agent.invoke({"messages": [{"role": "user", "content": question}]})


run_turn = workflow(name="turn")(run_agent)
run_turn("s-ada", "ada", "Which shoes? [[s-ada]]")
did("s-ada", "ada")
with refused("s-ada", "ada"):
    run_turn("s-ada", "ada", "fail, please [[s-ada]]")
run_turn("s-grace", "grace", "Which socks? [[s-grace]]")
did("s-grace", "grace")
finish(trace.get_tracer_provider())
