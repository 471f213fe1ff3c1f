"""The shapes of random traces: trees, times and figures, before attributes are written (see `tests.workloads`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from hypothesis import strategies as st

from tests.workload_attributes import Tokens

FUTURE_MS = 175 * 365 * 24 * 3600 * 1000
"""So far after `BASE_MS` that no log time of a test comes near."""

SCOPES = (
    "",
    "openinference.instrumentation.openai",
    "langchain",
    "mlflow.tracing",
    "opentelemetry.instrumentation.bedrock",
    "openlit.otel.tracing",
    "opentelemetry.instrumentation.vertexai",
    "opentelemetry.instrumentation.google_generativeai",
    "openinference.instrumentation.vertexai",
    "openinference.instrumentation.agno",
)
MODELS = ("priced-a", "priced-b", "unheard-of", "m" * 300)
STARTS = (0.0, 0.0, 1.0, 10.0, 10.0009, 50.0, 100.0)
DURATIONS = (0.0, 0.0011, 10.0, 50.0, 90.0, 100.0, 150.0, 1000.0)


@dataclass(kw_only=True)
class Sketch:
    """A span before its attributes are written out."""

    number: int
    parent: int | bytes | None = None
    start: float | None = 0.0
    end: float | None = 100.0
    span_class: str = "other"
    tokens: Tokens = field(default_factory=Tokens)
    scope: str = ""
    model: str = MODELS[0]


def one_in(n: int) -> st.SearchStrategy[bool]:
    """True once in `n` draws; False is the simpler one."""
    return st.sampled_from([False] * (n - 1) + [True])


@st.composite
def fresh_sketches(draw: st.DrawFn, number: int, others: Sequence[Sketch]) -> Sketch:
    """A span somewhere in the tree, with usage of its own if any."""
    start, end = draw(times())
    return Sketch(
        number=number,
        parent=draw(parents(number, others)),
        start=start,
        end=end,
        span_class=draw(classes()),
        tokens=draw(token_figures()),
        scope=draw(st.sampled_from(SCOPES)),
        model=draw(st.sampled_from(MODELS)),
    )


@st.composite
def echoes(draw: st.DrawFn, number: int, others: Sequence[Sketch]) -> Sketch:
    """A span that says again what an earlier one said, with or without details; it is put above, beside or below it.

    Seldom it has the sum of two, which are then put below it.
    """
    other = draw(st.sampled_from(others))
    sketch = Sketch(
        number=number,
        start=other.start,
        end=other.end,
        span_class=draw(classes()) if draw(one_in(3)) else other.span_class,
        tokens=draw(echoed_tokens(other.tokens)),
        scope=draw(st.sampled_from(SCOPES)),
        model=draw(st.sampled_from((other.model, other.model, *MODELS))),
    )
    if other.start is not None and other.end is not None:
        sketch.start = other.start + draw(st.sampled_from((0.0, -1.0, 1.0)))
        sketch.end = other.end + draw(st.sampled_from((0.0, -1.0, 1.0, 49.0, 50.0, 51.0)))
    place = draw(st.sampled_from(("above", "above", "above of two", "above of two", "beside", "below")))
    second = draw(st.sampled_from([one for one in others if one is not other] or others))
    if place == "above of two" and second is not other:
        for one in (other, second):
            one.tokens = Tokens(prompt=one.tokens.prompt or 20, completion=one.tokens.completion or 7)
        sketch.tokens = Tokens(
            prompt=other.tokens.prompt + second.tokens.prompt,
            completion=other.tokens.completion + second.tokens.completion,
        )
        second.parent = number
        second.span_class = sketch.span_class = other.span_class
    if place.startswith("above"):
        sketch.parent, other.parent = other.parent, number
    else:
        sketch.parent = other.parent if place == "beside" else other.number
    return sketch


@st.composite
def calls_within(draw: st.DrawFn, number: int, others: Sequence[Sketch]) -> list[Sketch]:
    """A call that an earlier span is open for: made by a tool, an agent, or behind a span that says nothing."""
    outer = draw(st.sampled_from([one for one in others if one.span_class == "llm"] or others))
    between = Sketch(
        number=number,
        parent=outer.number,
        start=outer.start,
        end=outer.end,
        span_class=draw(st.sampled_from(("tool", "agent", "chain", "other"))),
        scope=outer.scope,
    )
    call = Sketch(
        number=number + 1,
        parent=number,
        start=outer.start,
        end=outer.end,
        span_class="llm",
        tokens=draw(st.sampled_from((outer.tokens, Tokens(prompt=50, completion=3), Tokens(prompt=11, completion=9)))),
        scope=draw(st.sampled_from(SCOPES)),
        model=draw(st.sampled_from(MODELS)),
    )
    return [between, call]


def echoed_tokens(tokens: Tokens) -> st.SearchStrategy[Tokens]:
    """The same prompt and completion: as they are, without details, or with details that are included in them.

    Seldom the completion is off by one, as where a stream's start is counted twice.
    """
    included = Tokens(
        prompt=tokens.prompt,
        completion=tokens.completion,
        cache_read=min(4, tokens.prompt),
        reasoning=min(3, tokens.completion),
        total=tokens.prompt + tokens.completion,
    )
    bare = replace(tokens, cache_read=0, cache_write=0, reasoning=0)
    if tokens.total_only:
        return st.sampled_from([tokens, bare])
    return st.sampled_from([tokens, bare, included, replace(tokens, completion=tokens.completion + 1)])


def parents(number: int, others: Sequence[Sketch]) -> st.SearchStrategy[int | bytes | None]:
    """Mostly one of the earlier spans; also none, a missing one, a later one, itself, or no id at all."""
    known: list[int | bytes | None] = [one.number for one in others] or [None]
    odd: list[int | bytes | None] = [number, number + 1, 9_999, 9_999, 9_998, b"\1\2\3", bytes(8)]
    many = [*known[-1:] * 4, *known * (12 // len(known))]
    return st.sampled_from([None, None, *many, *odd])


@st.composite
def times(draw: st.DrawFn) -> tuple[float | None, float | None]:
    """Start and end in ms after `BASE_MS`; seldom unknown, in the future or the wrong way round."""
    start = draw(st.sampled_from(STARTS))
    end = start + draw(st.sampled_from(DURATIONS))
    if not draw(one_in(8)):
        return start, end
    odd: list[tuple[float | None, float | None]] = [
        (None, end),
        (start, None),
        (None, None),
        (FUTURE_MS, FUTURE_MS + 1),
        (start, FUTURE_MS),
        (start, start - 0.5),
    ]
    return draw(st.sampled_from(odd))


def classes() -> st.SearchStrategy[str]:
    weights = {"llm": 6, "embedding": 2, "agent": 2, "tool": 1, "chain": 2, "other": 1}
    return st.sampled_from([name for name, weight in weights.items() for _ in range(weight)])


@st.composite
def token_figures(draw: st.DrawFn) -> Tokens:
    """Prompt, completion, seldom details and a total that tells whether they are included."""
    how = draw(st.sampled_from(("none", "plain", "plain", "plain", "details", "details", "total only")))
    if how == "none":
        return Tokens()
    if how == "total only":
        return Tokens(total=draw(st.sampled_from((10, 30))), total_only=True)
    prompt, completion = draw(st.sampled_from((0, 10, 10, 20, 30))), draw(st.sampled_from((0, 5, 5, 7, 12)))
    if how == "plain" or prompt + completion == 0:
        return Tokens(prompt=prompt, completion=completion)
    cache_read, cache_write = draw(st.sampled_from((4, 0, 4, 40))), draw(st.sampled_from((0, 2)))
    reasoning = draw(st.sampled_from((0, 3, 9)))
    sums = (0, cache_read + cache_write, reasoning, cache_read + cache_write + reasoning, 1)
    total = draw(st.sampled_from([None, *(prompt + completion + more for more in sums)]))
    return Tokens(
        prompt=prompt,
        completion=completion,
        cache_read=cache_read,
        cache_write=cache_write,
        reasoning=reasoning,
        total=total,
    )
