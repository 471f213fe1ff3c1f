"""MLflow's tracing of OpenAI's client, exported over OTLP."""

from __future__ import annotations

import os
from typing import Any

# docs: begin mlflow-setup
# MLflow exports where the first points to, and over gRPC unless the second says otherwise.
os.environ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] + "/v1/traces"
os.environ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] = "http/protobuf"

import mlflow

mlflow.openai.autolog()
# docs: end
from openai import OpenAI
from shop import did, finish, refused

client = OpenAI(max_retries=0)


def ask(question: str, **more: Any) -> Any:
    return client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": question}], **more)


# docs: begin mlflow
@mlflow.trace
def take_turn(session_id: str, user_id: str, question: str) -> None:
    span = mlflow.get_current_active_span()
    span.set_attributes({"session.id": session_id, "user.id": user_id})  # update_current_trace alone stays in MLflow
    ask(question)
    # docs: end
    for _ in ask(question, stream=True, stream_options={"include_usage": True}):
        pass


@mlflow.trace
def embed(session_id: str, user_id: str, text: str) -> None:
    span = mlflow.get_current_active_span()
    span.set_attributes({"session.id": session_id, "user.id": user_id})
    ask(text)
    client.embeddings.create(model="text-embedding-3-small", input=text)


take_turn("s-ada", "ada", "Which shoes? [[s-ada]]")
did("s-ada", "ada")
with refused("s-ada", "ada"):
    take_turn("s-ada", "ada", "fail, please [[s-ada]]")
embed("s-grace", "grace", "boots [[s-grace]]")
did("s-grace", "grace")
finish()
