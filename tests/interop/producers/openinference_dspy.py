"""DSPy, traced by OpenInference; its model calls go through LiteLLM, whose instrumentation tells the usage."""

from __future__ import annotations

from shop import did, finish, refused, set_up_tracing

# docs: begin dspy
import dspy
from openinference.instrumentation import using_attributes, using_session, using_user
from openinference.instrumentation.dspy import DSPyInstrumentor
from openinference.instrumentation.litellm import LiteLLMInstrumentor

provider = set_up_tracing()
DSPyInstrumentor().instrument(tracer_provider=provider)
LiteLLMInstrumentor().instrument(tracer_provider=provider)  # DSPy's own spans have no tokens

dspy.configure(lm=dspy.LM("openai/gpt-4o", cache=False, num_retries=0))
answer = dspy.ChainOfThought("question -> answer")

with using_attributes(session_id="s-ada", user_id="ada"):
    answer(question="Which shoes? [[s-ada]]")
# docs: end


@using_session("s-grace")
@using_user("grace")
def ask(question: str) -> None:
    dspy.Predict("question -> answer")(question=question)


@using_attributes(session_id="s-grace", user_id="grace")
def ask_twice(question: str) -> None:
    with provider.get_tracer("shop").start_as_current_span("turn"):
        answer(question=question)
        answer(question=question)


ask("Boots? [[s-grace]]")
ask_twice("Skis? [[s-grace]]")
did("s-grace", "grace", traces=2)
with using_session("s-ada"), using_user("ada"):
    answer(question="And socks? [[s-ada]]")
did("s-ada", "ada", traces=2)
with refused("s-ada", "ada"), using_attributes(session_id="s-ada", user_id="ada"):
    answer(question="fail, please [[s-ada]]")
finish(provider)
