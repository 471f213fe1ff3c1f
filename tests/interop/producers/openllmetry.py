"""OpenLLMetry by Traceloop's SDK: association properties, OpenAI's and Anthropic's clients, streaming, embeddings."""

from __future__ import annotations

from typing import Any

# docs: begin openllmetry-setup
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from traceloop.sdk import Instruments, Traceloop
from traceloop.sdk.decorators import workflow

Traceloop.init(
    app_name="shop",
    exporter=OTLPSpanExporter(),
    instruments={Instruments.OPENAI, Instruments.ANTHROPIC},
    telemetry_enabled=False,
)
# docs: end
from anthropic import Anthropic
from openai import OpenAI
from opentelemetry import trace
from shop import did, finish, refused

openai = OpenAI(max_retries=0)
anthropic = Anthropic(max_retries=0)


def ask(question: str, **more: Any) -> Any:
    return openai.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": question}], **more)


def ask_claude(question: str, **more: Any) -> Any:
    return anthropic.messages.create(
        model="claude-sonnet-4-5", max_tokens=100, messages=[{"role": "user", "content": question}], **more
    )


# docs: begin openllmetry
@workflow(name="turn")
def take_turn(session_id: str, user_id: str, question: str) -> None:
    Traceloop.set_association_properties({"session_id": session_id, "user_id": user_id})
    ask(question)
    # docs: end
    openai.embeddings.create(model="text-embedding-3-small", input=question)
    ask_claude(question)


@workflow(name="turn")
def stream(session_id: str, user_id: str, question: str) -> None:
    Traceloop.set_association_properties({"session_id": session_id, "user_id": user_id})
    for _ in ask(question, stream=True, stream_options={"include_usage": True}):
        pass


@workflow(name="turn")
def with_claude(session_id: str, user_id: str, question: str) -> None:
    Traceloop.set_association_properties({"session_id": session_id, "user_id": user_id})
    for _ in ask_claude(question, stream=True):
        pass


@workflow(name="turn")
def fail(session_id: str, user_id: str, question: str) -> None:
    Traceloop.set_association_properties({"session_id": session_id, "user_id": user_id})
    ask_claude(question)


take_turn("s-ada", "ada", "Which shoes? [[s-ada]]")
did("s-ada", "ada")
stream("s-grace", "grace", "Which socks? [[s-grace]]")
did("s-grace", "grace")
with refused("s-ada", "ada"):
    fail("s-ada", "ada", "fail, please [[s-ada]]")
with_claude("s-linus", "linus", "Which laces? [[s-linus]]")
did("s-linus", "linus")
finish(trace.get_tracer_provider())
