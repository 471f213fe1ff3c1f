"""Strategies for decoded spans: small pools, so that coincidences and conflicts happen."""

from __future__ import annotations

from hypothesis import strategies as st

from aggregator.core.model import NO_CLAIM, NO_COST, Span

FIELDS = (
    "trace_id", "span_id", "parent_id", "name", "start_us", "end_us", "error", "span_class", "service", "scope",
    "project", "claim_row", "claim_session_id", "user_id", "model", "provider", "prompt_tokens", "completion_tokens",
    "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "embedding_tokens", "written_prompt_tokens",
    "written_completion_tokens", "cost_nano",
)  # fmt: skip

NOW_US = 1_700_000_000_000_000
TRACE = bytes(range(16))


def as_dict(span: Span) -> dict[str, object]:
    """Every field of a span, for comparison."""
    return {name: getattr(span, name) for name in FIELDS}


def span_ids() -> st.SearchStrategy[bytes]:
    """A few span ids."""
    return st.integers(1, 5).map(lambda n: n.to_bytes(8, "big"))


@st.composite
def spans(draw: st.DrawFn, trace_id: bytes = TRACE) -> Span:
    """One span of a trace, with any combination of what a span can carry."""
    big = st.one_of(st.just(0), st.integers(0, 300), st.integers(0, 10**12))
    times = st.one_of(st.just(0), st.integers(NOW_US - 5, NOW_US + 5), st.integers(1, 2**53))
    texts = st.sampled_from(["", "a", "b", "größe ☕", "x" * 256])
    claims = draw(st.booleans())
    prompt, completion = draw(big), draw(big)
    as_written = draw(st.booleans())
    return Span(
        trace_id=trace_id,
        span_id=draw(span_ids()),
        parent_id=draw(st.one_of(st.just(b""), span_ids())),
        name=draw(texts),
        start_us=draw(times),
        end_us=draw(times),
        error=draw(st.booleans()),
        span_class=draw(st.integers(0, 5)),
        service=draw(texts),
        scope=draw(texts),
        project=draw(st.sampled_from(["default", "p"])),
        claim_row=draw(st.integers(0, 20)) if claims else NO_CLAIM,
        claim_session_id=draw(st.sampled_from(["s-1", "s-2"])) if claims else "",
        user_id=draw(texts),
        model=draw(texts),
        provider=draw(texts),
        prompt_tokens=prompt,
        completion_tokens=completion,
        cache_read_tokens=draw(big),
        cache_write_tokens=draw(big),
        reasoning_tokens=draw(big),
        embedding_tokens=draw(big),
        written_prompt_tokens=prompt if as_written else draw(big),
        written_completion_tokens=completion if as_written else draw(big),
        cost_nano=draw(st.one_of(st.just(NO_COST), st.just(0), st.integers(0, 10**15))),
    )
