"""DSPy's instrumentation without LiteLLM's: nothing tells the usage."""

from __future__ import annotations

import dspy
from openinference.instrumentation import using_attributes
from openinference.instrumentation.dspy import DSPyInstrumentor
from shop import did, finish, set_up_tracing

provider = set_up_tracing()
DSPyInstrumentor().instrument(tracer_provider=provider)
dspy.configure(lm=dspy.LM("openai/gpt-4o", cache=False, num_retries=0))

with using_attributes(session_id="s-ada", user_id="ada"):
    dspy.ChainOfThought("question -> answer")(question="Which shoes? [[s-ada]]")
did("s-ada", "ada")
finish(provider)
