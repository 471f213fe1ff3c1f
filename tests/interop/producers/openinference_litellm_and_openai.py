"""LiteLLM's and OpenAI's instrumentations both on: two LLM spans, one within the other, for one call."""

from __future__ import annotations

from shop import did, finish, refused, set_up_tracing

# docs: begin litellm
import litellm
from openinference.instrumentation import using_attributes, using_session, using_user
from openinference.instrumentation.litellm import LiteLLMInstrumentor
from openinference.instrumentation.openai import OpenAIInstrumentor

provider = set_up_tracing()
LiteLLMInstrumentor().instrument(tracer_provider=provider)
OpenAIInstrumentor().instrument(tracer_provider=provider)

with using_attributes(session_id="s-ada", user_id="ada"):
    litellm.completion(model="openai/gpt-4o", messages=[{"role": "user", "content": "Which shoes? [[s-ada]]"}])
# docs: end


def ask(question: str, **more: object) -> object:
    return litellm.completion(
        model="openai/gpt-4o-mini", messages=[{"role": "user", "content": question}], num_retries=0, **more
    )


@using_session("s-grace")
@using_user("grace")
def stream(question: str) -> None:
    for _ in ask(question, stream=True, stream_options={"include_usage": True}):  # type: ignore[attr-defined]
        pass


@using_attributes(session_id="s-grace", user_id="grace")
def two_in_one_turn() -> None:
    with provider.get_tracer("shop").start_as_current_span("turn"):
        ask("Boots? [[s-grace]]")
        ask("Skis? [[s-grace]]")


stream("Socks? [[s-grace]]")
two_in_one_turn()
did("s-grace", "grace", traces=2)
with using_session("s-ada"), using_user("ada"):
    litellm.embedding(model="openai/text-embedding-3-small", input=["boots [[s-ada]]"])
did("s-ada", "ada", traces=2)
with refused("s-ada", "ada"), using_attributes(session_id="s-ada", user_id="ada"):
    ask("fail, please [[s-ada]]")
finish(provider)
