"""Bedrock through boto3, traced by OpenInference: Converse, ConverseStream and InvokeModel."""

from __future__ import annotations

import json
from typing import Any

from botocore.config import Config
from shop import did, finish, refused, set_up_tracing

# docs: begin bedrock
import boto3
from openinference.instrumentation import using_attributes, using_session, using_user
from openinference.instrumentation.bedrock import BedrockInstrumentor

provider = set_up_tracing()
BedrockInstrumentor().instrument(tracer_provider=provider)  # before the client is made
client = boto3.client("bedrock-runtime", config=Config(retries={"total_max_attempts": 1}))
MODEL = "anthropic.claude-3-5-sonnet-20240620-v1:0"

with using_attributes(session_id="s-ada", user_id="ada"):
    client.converse(modelId=MODEL, messages=[{"role": "user", "content": [{"text": "Which shoes? [[s-ada]]"}]}])
# docs: end


def messages(text: str) -> list[Any]:
    return [{"role": "user", "content": [{"text": text}]}]


@using_session("s-grace")
@using_user("grace")
def invoke(question: str) -> None:
    body = {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": question}],
    }
    answer = client.invoke_model(modelId=MODEL, body=json.dumps(body))
    answer["body"].read()


@using_attributes(session_id="s-grace", user_id="grace")
def stream(question: str) -> None:
    for _ in client.converse_stream(modelId="amazon.nova-pro-v1:0", messages=messages(question))["stream"]:
        pass


invoke("Boots? [[s-grace]]")
stream("Skis? [[s-grace]]")
did("s-grace", "grace", traces=2)
with using_session("s-ada"), using_user("ada"):
    client.converse(modelId="amazon.nova-lite-v1:0", messages=messages("And socks? [[s-ada]]"))
did("s-ada", "ada", traces=2)
with refused("s-ada", "ada"), using_attributes(session_id="s-ada", user_id="ada"):
    client.converse(modelId=MODEL, messages=messages("fail, please [[s-ada]]"))
finish(provider)
