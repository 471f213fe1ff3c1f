"""Turns of simulated LLM applications, traced with OpenInference as real ones are.

Each scene is one trace in one shape that instrumentations produce: calls alone and nested, usage repeated by wrappers
and by frameworks, tools, retrieval with embeddings, a service that knows no session, retries and failures.
What a call costs is entered into the ledger where the call is simulated, not where it is traced.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, NamedTuple

from openinference.instrumentation import (
    Message,
    TokenCount,
    get_embedding_attributes,
    get_llm_attributes,
    get_llm_token_count_attributes,
    get_reranker_attributes,
    get_retriever_attributes,
    get_tool_attributes,
)
from openinference.semconv.trace import SpanAttributes
from opentelemetry.trace import Status, StatusCode

from aggregator.embedded.turn import Turn


class Model(NamedTuple):
    """One model; `usd_per_token` is set where the producer reports costs by itself."""

    name: str
    provider: str
    usd_per_token: float | None = None


MODELS: Final = (
    Model("gpt-4o", "openai"),
    Model("gpt-4o-mini", "openai"),
    Model("claude-sonnet-4-5", "anthropic"),
    Model("gemini-2.5-flash", "google"),
    Model("in-house-70b", "in-house", usd_per_token=0.0000009),
)
_EMBEDDING_MODEL: Final = "text-embedding-3-small"
_QUESTIONS: Final = (
    "Where is my order?",
    "How do I send the blue lamp back, and who pays for the parcel?",
    "Which of your desks fits under a window sill of 70 cm?",
    "Can you sum up the warranty terms for me in two sentences?",
    "The invoice shows the wrong VAT number, please correct it.",
)
_ANSWERS: Final = (
    "It left our warehouse this morning and should be with you by Thursday.",
    "You have 30 days. Print the label from your account, and the way back is on us.",
    "The Nordby is 68 cm high and comes in oak and in white.",
    "Everything electric has three years, everything else ten. Wear and tear is not covered.",
)
_TOOLS: Final = ("find_order", "check_stock", "issue_label", "update_invoice")
_ATTEMPTS: Final = 3


class RateLimitedError(Exception):
    """What a provider answers when too much is asked of it."""


class ToolFailedError(Exception):
    """A tool that did not work."""


Scene = Callable[[Turn], Awaitable[None]]


async def small_talk(turn: Turn) -> None:
    """One streamed call below a chain."""
    with turn.span("chat turn", "chain"):
        await call_model(turn, turn.dice.choice(MODELS), stream=True)


async def answer_from_documents(turn: Turn) -> None:
    """Retrieval with an embedding and a service, reranking, a call; the chain repeats the usage."""
    with turn.span("answer from documents", "chain") as root:
        with turn.span("retrieve", "retriever") as retriever:
            await _embed(turn)
            with turn.foreign_span("GET /search"):
                await turn.pause(0.03, 0.08)
            documents = [{"id": f"doc-{n}", "content": text, "score": 1 - n / 10} for n, text in enumerate(_ANSWERS)]
            retriever.set_attributes(get_retriever_attributes(documents=documents))  # type: ignore[arg-type]
        with turn.span("rerank", "reranker", get_reranker_attributes(model_name="rerank-1", top_k=2)):
            await turn.pause(0.02, 0.06)
        usage = await call_model(turn, turn.dice.choice(MODELS))
        root.set_attributes(get_llm_token_count_attributes(usage))


async def use_tools(turn: Turn) -> None:
    """An agent that calls model and tools in turn; it repeats the sum of its calls on its own span."""
    model = turn.dice.choice(MODELS)
    total = TokenCount(prompt=0, completion=0, total=0)
    with turn.span("support agent", "agent") as agent:
        for _ in range(turn.dice.randint(1, 3)):
            _add(total, await call_model(turn, model))
            with suppress(ToolFailedError):  # the model is told and tries something else
                await _use_tool(turn, turn.dice.choice(_TOOLS))
        _add(total, await call_model(turn, model, stream=True))
        agent.set_attributes(get_llm_token_count_attributes(total))


async def ask_through_framework(turn: Turn) -> None:
    """A framework and the provider's client both trace the same call, one inside the other."""
    model = turn.dice.choice(MODELS)
    with turn.span("query", "chain", tracer=turn.tracers.framework):
        outer = get_llm_attributes(model_name=model.name, provider=model.provider)
        with turn.span("OpenAI.chat", "llm", outer, tracer=turn.tracers.framework) as repeated:
            usage = await call_model(turn, model)
            repeated.set_attributes(get_llm_token_count_attributes(usage))


async def give_up(turn: Turn) -> None:
    """Every attempt is refused, and the turn ends in an error."""
    with turn.span("chat turn", "chain"):
        await call_model(turn, MODELS[0], refusals=_ATTEMPTS)


SCENES: Final[tuple[tuple[Scene, int], ...]] = (
    (small_talk, 4),
    (answer_from_documents, 4),
    (use_tools, 4),
    (ask_through_framework, 2),
    (give_up, 1),
)
"""Each scene with its weight."""


async def call_model(turn: Turn, model: Model, *, stream: bool = False, refusals: int | None = None) -> TokenCount:
    """One answer of a model, tried again when the provider refuses; returns its usage.

    The first `refusals` attempts fail; None lets the dice say.  Raises the last refusal if none succeeds.
    """
    left = int(turn.dice.random() < 0.12) if refusals is None else refusals  # now and then one refusal
    for attempt in range(_ATTEMPTS):
        try:
            return await _attempt(turn, model, stream=stream, refused=attempt < left)
        except RateLimitedError:
            if attempt == _ATTEMPTS - 1:
                raise
            await turn.pause(0.05, 0.15)
    raise AssertionError("the last attempt returns or raises")


async def _attempt(turn: Turn, model: Model, *, stream: bool, refused: bool) -> TokenCount:
    question, answer = turn.dice.choice(_QUESTIONS), turn.dice.choice(_ANSWERS)
    asked = get_llm_attributes(
        model_name=model.name,
        provider=model.provider,
        invocation_parameters={"temperature": 0.2, "stream": stream},
        input_messages=[
            Message(role="system", content="You help customers of a shop."),
            Message(role="user", content=question),
        ],
    )
    with turn.span("ChatCompletion", "llm", asked) as span:
        await turn.pause(0.05, 0.15)
        if refused:
            raise RateLimitedError("429: too many requests")
        if stream:
            span.add_event("First Token Stream Event")
            await turn.pause(0.1, 0.3)
        usage, reasoning = _usage(turn.dice)
        turn.bill(prompt=usage["prompt"], completion=usage["completion"])
        span.set_attributes(
            get_llm_attributes(output_messages=[Message(role="assistant", content=answer)], token_count=usage)
        )
        if reasoning:
            span.set_attribute(SpanAttributes.LLM_TOKEN_COUNT_COMPLETION_DETAILS_REASONING, reasoning)
        if model.usd_per_token is not None:
            span.set_attribute(SpanAttributes.LLM_COST_TOTAL, usage["total"] * model.usd_per_token)
        span.set_status(Status(StatusCode.OK))
    return usage


def _usage(dice: random.Random) -> tuple[TokenCount, int]:
    """Usage of one call, cached tokens within the prompt, and how much of the completion was reasoning."""
    prompt, completion = dice.randint(150, 2500), dice.randint(20, 400)
    usage = TokenCount(prompt=prompt, completion=completion, total=prompt + completion)
    if dice.random() < 0.4:
        usage["prompt_details"] = {"cache_read": dice.randint(1, prompt)}
    return usage, dice.randint(1, completion) if dice.random() < 0.2 else 0


def _add(total: TokenCount, usage: TokenCount) -> None:
    for key in ("prompt", "completion", "total"):
        total[key] += usage[key]


async def _embed(turn: Turn) -> None:
    question = turn.dice.choice(_QUESTIONS)
    tokens = turn.dice.randint(5, 40)
    attributes = get_embedding_attributes(model_name=_EMBEDDING_MODEL, embeddings=[{"text": question}])
    with turn.span("CreateEmbeddings", "embedding", attributes) as span:
        await turn.pause(0.02, 0.06)
        turn.bill(embedding=tokens)
        span.set_attributes(get_llm_token_count_attributes(TokenCount(prompt=tokens, total=tokens)))


async def _use_tool(turn: Turn, name: str) -> None:
    attributes = get_tool_attributes(name=name, parameters={"order": turn.dice.randint(1000, 9999)})
    with turn.span(name, "tool", attributes):
        await turn.pause(0.03, 0.12)
        if turn.dice.random() < 0.1:
            raise ToolFailedError(f"{name} did not answer")
