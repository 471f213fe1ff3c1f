"""Traces for the tests of the counting rule: spans by number, a price list, and random trees."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from hypothesis import strategies as st

from aggregator.core.model import (
    AGENT,
    CHAIN,
    CLASS_NAMES,
    EMBEDDING,
    LLM,
    NO_COST,
    OTHER,
    TOOL,
    ModelUsage,
    Span,
    TraceRollup,
)
from aggregator.core.pricing import Pricer
from aggregator.core.repeated_calls import scopes_mark
from aggregator.core.usage import rollup
from tests.oracle_spans import SpanRead, Usage
from tests.oracle_traces import flat_price

START_US = 1_795_000_000_000_000
TRACE_ID = b"t" * 16


def span_id(number: int) -> bytes:
    return number.to_bytes(8, "big")


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """The usage of a span; for an embedding only `embedding` is set."""

    prompt: int = 0
    completion: int = 0
    cache_read: int = 0
    cache_write: int = 0
    reasoning: int = 0
    embedding: int = 0


NONE = Tokens()


def span(
    number: int,
    parent: int | bytes | None = None,
    *,
    kind: int = OTHER,
    tokens: Tokens = NONE,
    at: int | None = None,
    lasts: int | None = 1_000_000,
    cost: int = NO_COST,
    model: str = "",
    scope: str = "a",
    name: str = "",
    service: str = "",
    user: str = "",
    error: bool = False,
) -> Span:
    """Make a span; it starts `at` (default: its number) microseconds after `START_US`, -1 being an unknown start.

    `lasts` None is an unknown end.
    """
    after = number if at is None else at
    start_us = 0 if after < 0 else START_US + after
    return Span(
        trace_id=TRACE_ID,
        span_id=span_id(number),
        parent_id=parent if isinstance(parent, bytes) else b"" if parent is None else span_id(parent),
        name=name or f"span {number}",
        start_us=start_us,
        end_us=0 if lasts is None else (start_us or START_US) + lasts,
        error=error,
        span_class=kind,
        service=service,
        scope=scope,
        user_id=user,
        model=model,
        provider="",
        prompt_tokens=tokens.prompt,
        completion_tokens=tokens.completion,
        cache_read_tokens=tokens.cache_read,
        cache_write_tokens=tokens.cache_write,
        reasoning_tokens=tokens.reasoning,
        embedding_tokens=tokens.embedding,
        written_prompt_tokens=tokens.prompt + 1 if tokens.prompt else 0,
        written_completion_tokens=tokens.completion,
        cost_nano=cost,
    )


def llm(number: int, parent: int | None = None, prompt: int = 0, completion: int = 0, **more: object) -> Span:
    """Make a span of class `llm`; `more` goes to `span`, details of the usage aside."""
    return _with_usage(LLM, number, parent, prompt, completion, more)


def agent(number: int, parent: int | None = None, prompt: int = 0, completion: int = 0, **more: object) -> Span:
    return _with_usage(AGENT, number, parent, prompt, completion, more)


def chain(number: int, parent: int | None = None, prompt: int = 0, completion: int = 0, **more: object) -> Span:
    return _with_usage(CHAIN, number, parent, prompt, completion, more)


def tool(number: int, parent: int | None = None, prompt: int = 0, completion: int = 0, **more: object) -> Span:
    return _with_usage(TOOL, number, parent, prompt, completion, more)


def embedding(number: int, parent: int | None = None, tokens: int = 0, **more: object) -> Span:
    return span(number, parent, kind=EMBEDDING, tokens=Tokens(embedding=tokens), **more)  # type: ignore[arg-type]


def _with_usage(
    kind: int, number: int, parent: int | None, prompt: int, completion: int, more: dict[str, object]
) -> Span:
    details = {name: more.pop(name) for name in ("cache_read", "cache_write", "reasoning") if name in more}
    tokens = Tokens(prompt=prompt, completion=completion, **details)  # type: ignore[arg-type]
    return span(number, parent, kind=kind, tokens=tokens, **more)  # type: ignore[arg-type]


class FlatPricer(Pricer):
    """Prices models whose name begins with "priced", by every figure."""

    def price_nano(
        self,
        model: str,
        provider: str,
        start_us: int,
        prompt_tokens: int,
        completion_tokens: int,
        cache_read_tokens: int,
        cache_write_tokens: int,
        reasoning_tokens: int,
        embedding_tokens: int,
    ) -> int:
        return flat_price(
            model,
            provider,
            start_us,
            prompt_tokens,
            completion_tokens,
            cache_read_tokens,
            cache_write_tokens,
            reasoning_tokens,
            embedding_tokens,
        )


def figures_of(spans: Iterable[Span]) -> TraceRollup:
    """The rollup of a trace under `FlatPricer`."""
    return rollup(list(spans), FlatPricer())


def tokens_of(trace: TraceRollup) -> Tokens:
    return Tokens(
        prompt=trace.prompt_tokens,
        completion=trace.completion_tokens,
        cache_read=trace.cache_read_tokens,
        cache_write=trace.cache_write_tokens,
        reasoning=trace.reasoning_tokens,
        embedding=trace.embedding_tokens,
    )


def model_entry(entry: ModelUsage) -> dict[str, int]:
    return {
        "calls": entry.calls,
        "prompt": entry.prompt_tokens,
        "completion": entry.completion_tokens,
        "embedding": entry.embedding_tokens,
        "cost_nano": entry.cost_nano,
        "reported_costs": entry.reported_costs,
        "priced_costs": entry.priced_costs,
    }


PLAIN_FIGURES = (
    "name",
    "started_us",
    "ended_us",
    "span_count",
    "llm_span_count",
    "error_count",
    "prompt_tokens",
    "completion_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "embedding_tokens",
    "llm_span_prompt_tokens",
    "llm_span_completion_tokens",
    "cost_nano",
    "reported_costs",
    "priced_costs",
    "unpriced_calls",
    "users",
    "services",
    "wrapper_usage",
    "nested_llm",
    "missing_root",
)
"""The fields that `TraceRollup` and the oracle's figures have in common; models aside, which are compared by entry."""


def all_figures(trace: object) -> dict[str, object]:
    """Everything a `TraceRollup` or the oracle says of a trace, for comparing."""
    models: dict[str, object] = {
        name: model_entry(entry) if isinstance(entry, ModelUsage) else asdict(entry)
        for name, entry in trace.models.items()  # type: ignore[attr-defined]
    }
    scopes = trace.scopes  # type: ignore[attr-defined]
    mark = scopes_mark(list(scopes)) if isinstance(scopes, set) else scopes
    return {name: getattr(trace, name) for name in PLAIN_FIGURES} | {"models": models, "scopes": mark}


def as_read(one: Span) -> SpanRead:
    """The same span as the oracle takes it."""
    return SpanRead(
        trace_id=one.trace_id,
        span_id=one.span_id,
        parent_id=one.parent_id if len(one.parent_id) == 8 and any(one.parent_id) else b"",
        name=one.name,
        start_us=one.start_us,
        end_us=one.end_us,
        error=one.error,
        span_class=CLASS_NAMES[one.span_class],
        service=one.service,
        scope=one.scope,
        project=one.project,
        claim=None,
        user_id=one.user_id,
        model=one.model,
        usage=Usage(
            prompt=one.prompt_tokens,
            completion=one.completion_tokens,
            cache_read=one.cache_read_tokens,
            cache_write=one.cache_write_tokens,
            reasoning=one.reasoning_tokens,
            embedding=one.embedding_tokens,
            written_prompt=one.written_prompt_tokens,
            written_completion=one.written_completion_tokens,
        ),
        cost_nano=None if one.cost_nano == NO_COST else one.cost_nano,
        encoding=b"",
    )


@st.composite
def traces(draw: st.DrawFn, *, most: int = 12) -> list[Span]:
    """Random traces in which everything that the rule compares is often equal.

    Parents are drawn freely, so that there are missing ones, cycles and parents that start later; small figures make
    repeats, sums and twins common.
    """
    size = draw(st.integers(1, most))
    few = st.sampled_from
    spans: list[Span] = []
    for number in range(1, size + 1):
        kind = draw(few((LLM, LLM, LLM, EMBEDDING, AGENT, TOOL, CHAIN, OTHER)))
        spans.append(
            span(
                number,
                draw(few((None, number - 1 or None, number - 1 or None, *range(size + 2), b"", b"bad", bytes(8)))),
                kind=kind,
                tokens=_tokens(draw, kind),
                at=draw(few((-1, 0, 1, 2, 10, 60_000))),
                lasts=draw(few((None, -5, 0, 50_000, 50_001, 100_000))),
                cost=draw(few((NO_COST, NO_COST, NO_COST, 0, 7, 1_000_000_000))),
                model=draw(few(("", "priced", "priced-2", "other"))),
                scope=draw(few(("a", "b", "c"))),
                service=draw(few(("", "chat", "search"))),
                user=draw(few(("", "u1", "u2"))),
                error=draw(st.booleans()),
            )
        )
    return draw(st.permutations(spans))


def _tokens(draw: st.DrawFn, kind: int) -> Tokens:
    """Usage as decoding normalises it: details never exceed what includes them."""
    if kind == EMBEDDING:
        return Tokens(embedding=draw(st.sampled_from((0, 1, 2, 3))))
    prompt = draw(st.sampled_from((0, 0, 1, 2, 3)))
    completion = draw(st.sampled_from((0, 1, 2, 3)))
    cache_read = draw(st.integers(0, prompt))
    return Tokens(
        prompt=prompt,
        completion=completion,
        cache_read=cache_read,
        cache_write=draw(st.integers(0, prompt - cache_read)),
        reasoning=draw(st.integers(0, completion)),
    )
