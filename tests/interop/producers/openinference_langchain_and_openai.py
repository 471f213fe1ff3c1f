"""LangChain's and OpenAI's instrumentations both on: each call is in two traces of its session."""

from __future__ import annotations

from langchain_openai import ChatOpenAI
from openinference.instrumentation import using_attributes
from openinference.instrumentation.langchain import LangChainInstrumentor
from openinference.instrumentation.openai import OpenAIInstrumentor
from shop import did, finish, set_up_tracing

provider = set_up_tracing()
LangChainInstrumentor().instrument(tracer_provider=provider)
OpenAIInstrumentor().instrument(tracer_provider=provider)
model = ChatOpenAI(model="gpt-4o", max_retries=0)

with using_attributes(session_id="s-ada", user_id="ada"):
    model.invoke("Which shoes? [[s-ada]]")
    model.invoke("Which socks? [[s-ada]]")
did("s-ada", "ada", traces=2)

with provider.get_tracer("shop").start_as_current_span("turn"), using_attributes(session_id="s-grace", user_id="grace"):
    model.invoke("Which boots? [[s-grace]]")
did("s-grace", "grace")
finish(provider)
