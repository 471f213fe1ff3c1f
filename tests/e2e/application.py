"""An application as its developers write it: OpenAI's client, traced by OpenInference, exported over OTLP/HTTP.

It runs as a process of its own and knows nothing of sessions but `using_attributes` (and the marks for the stub).  It
takes one turn of its conversations for each line on its standard input, and answers `done` once that turn's spans are
exported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from openai import OpenAI, OpenAIError
from openinference.instrumentation import using_attributes
from openinference.instrumentation.openai import OpenAIInstrumentor
from openinference.semconv.resource import ResourceAttributes
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

client = OpenAI(max_retries=0, timeout=20)  # where and with which key: from the environment
tracer = trace.get_tracer("shop")


def ask(question: str, *, model: str = "gpt-4o") -> str:
    answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": question}])
    return answer.choices[0].message.content or ""


def ask_streaming(question: str) -> str:
    chunks = client.chat.completions.create(
        model="gpt-4o",
        messages=[{"role": "user", "content": question}],
        stream=True,
        stream_options={"include_usage": True},
    )
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def plan_and_answer() -> None:
    """Two calls in one trace."""
    with tracer.start_as_current_span("turn", attributes={"openinference.span.kind": "CHAIN"}):
        plan = ask("Which shoes go with a rainy day? [[s-ada]]")
        ask_streaming(f"Answer at length: {plan}")


def fail() -> None:
    """A trace of one span, which is an error."""
    try:
        ask("fail, please [[s-ada]]")
    except OpenAIError:
        return
    raise RuntimeError("the API should have refused")


TURNS: list[list[tuple[str, str, Callable[[], object]]]] = [
    [("s-ada", "ada", plan_and_answer), ("s-grace", "grace", lambda: ask("Hello? [[s-grace]]", model="gpt-4o-mini"))],
    [("s-ada", "ada", fail), ("s-ada", "ada", lambda: ask_streaming("And in snow? [[s-ada]]"))],
]


def take(conversation: tuple[str, str, Callable[[], object]]) -> None:
    session_id, user_id, turn = conversation
    with using_attributes(session_id=session_id, user_id=user_id):
        turn()


def main() -> None:
    provider = TracerProvider(
        resource=Resource({"service.name": "assistant", ResourceAttributes.PROJECT_NAME: "shop"}),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    OpenAIInstrumentor().instrument(tracer_provider=provider)
    with ThreadPoolExecutor() as pool:  # conversations go on side by side
        for turn, _ in zip(TURNS, sys.stdin, strict=False):
            list(pool.map(take, turn))
            provider.force_flush()
            print("done", flush=True)
    provider.shutdown()


if __name__ == "__main__":
    main()
