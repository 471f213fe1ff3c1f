"""LangChain, traced by OpenInference: chains, streaming, and an agent with tools."""

from __future__ import annotations

from langchain.agents import create_agent
from langchain_core.tools import tool
from shop import did, finish, refused, set_up_tracing

# docs: begin langchain
from langchain_openai import ChatOpenAI
from openinference.instrumentation import using_attributes, using_session, using_user
from openinference.instrumentation.langchain import LangChainInstrumentor

provider = set_up_tracing()
LangChainInstrumentor().instrument(tracer_provider=provider)
model = ChatOpenAI(model="gpt-4o", max_retries=0)

with using_attributes(session_id="s-ada", user_id="ada"):
    model.invoke("Which shoes? [[s-ada]]")
# docs: end


@tool
def weather(city: str) -> str:
    """Say what the weather is like."""
    return f"rain in {city}"


@using_session("s-grace")
@using_user("grace")
def ask_agent(question: str) -> None:
    agent = create_agent(model, [weather])
    agent.invoke({"messages": [{"role": "user", "content": question}]})


@using_attributes(session_id="s-grace", user_id="grace")
def stream(question: str) -> str:
    # docs: begin langchain-stream
    streaming = ChatOpenAI(model="gpt-4o-mini", stream_usage=True)
    # docs: end
    return "".join(str(chunk.content) for chunk in streaming.stream(question))


ask_agent("Shoes for Oslo? [[s-grace]]")
stream("And socks? [[s-grace]]")
did("s-grace", "grace", traces=2)

# docs: begin langchain-metadata
model.invoke("Socks? [[s-ada]]", config={"metadata": {"session_id": "s-ada"}})
# docs: end
did("s-ada", "ada", traces=2)

with using_session("s-linus"), using_user("linus"):
    for _ in ChatOpenAI(model="gpt-4o-mini", stream_usage=False).stream("Skis? [[s-linus]]"):
        pass
    model.invoke("Boots? [[s-linus]]")
did("s-linus", "linus", traces=2)

with refused("s-ada", "ada"), using_attributes(session_id="s-ada", user_id="ada"):
    model.invoke("fail, please [[s-ada]]")
finish(provider)
