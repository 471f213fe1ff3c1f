"""LangSmith's SDK in OpenTelemetry mode: its decorator and its wrapper of OpenAI's client."""

from __future__ import annotations

import os
from typing import Any

# docs: begin langsmith-setup
os.environ["LANGSMITH_TRACING"] = "true"
os.environ["LANGSMITH_OTEL_ENABLED"] = "true"
os.environ["LANGSMITH_OTEL_ONLY"] = "true"  # to the tracer provider, not to LangSmith
# docs: end
os.environ["LANGSMITH_API_KEY"] = "none"
os.environ["LANGSMITH_ENDPOINT"] = "http://127.0.0.1:9"

from langsmith import traceable
from langsmith.run_trees import get_cached_client
from langsmith.wrappers import wrap_openai
from openai import OpenAI
from shop import did, finish, refused, set_up_tracing

provider = set_up_tracing()
client = wrap_openai(OpenAI(max_retries=0))


def ask(question: str, **more: Any) -> Any:
    return client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": question}], **more)


# docs: begin langsmith
@traceable
def take_turn(question: str) -> None:
    ask(question)
    # docs: end
    for _ in ask(question, stream=True, stream_options={"include_usage": True}):
        pass


# docs: begin langsmith-call
take_turn("Which shoes? [[s-ada]]", langsmith_extra={"metadata": {"session_id": "s-ada", "user_id": "ada"}})
# docs: end
did("s-ada", "ada")
with refused("s-ada", "ada"):
    take_turn("fail, please [[s-ada]]", langsmith_extra={"metadata": {"session_id": "s-ada", "user_id": "ada"}})
take_turn("Which socks? [[s-grace]]", langsmith_extra={"metadata": {"thread_id": "s-grace", "user_id": "grace"}})
did("s-grace", "grace")
get_cached_client().flush()
finish(provider)
