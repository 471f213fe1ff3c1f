"""Bad input is counted by reason, the rest of its span counts, and no input takes more than its size in time."""

from __future__ import annotations

import gc
import json
import random
from collections.abc import Callable
from time import process_time

import pytest

from aggregator.core.conventions import Conventions
from aggregator.core.decode import decode, decode_reference
from aggregator.core.figures import cost_nano, tokens
from aggregator.core.model import NO_CLAIM, Decoded, Span
from aggregator.core.pricing import Pricer
from aggregator.core.usage import rollup
from tests.builders import BASE_MS, Value, joined, record, span, to_json, to_protobuf
from tests.core.trees import agent, chain, figures_of, llm

CONVENTIONS = Conventions()
MEGABYTE = 1_000_000


def read(attributes: dict[str, Value], resource: dict[str, Value] | None = None) -> Decoded:
    """Decode one span in protobuf and JSON, which must agree."""
    message = record([span(1, attributes)], resource=resource or {})
    found = [
        decoder(data, log_ms=BASE_MS, conventions=CONVENTIONS)
        for decoder, data in (
            (decode, to_protobuf(message)),
            (decode_reference, to_protobuf(message)),
            (decode, to_json(message)),
        )
    ]
    first, *others = found
    for other in others:
        assert (other.ignored, other.partial_reason) == (first.ignored, first.partial_reason)
        assert [one.prompt_tokens for one in other.spans] == [one.prompt_tokens for one in first.spans]
    return first


def grows_linearly(work: Callable[[int], Callable[[], object]], size: int, factor: int = 8) -> bool:
    """Whether `factor` times the input takes no more than `factor` times the work, with as much again three times over.

    `work(size)` prepares an input and gives what is to be timed.  Quadratic work would take `factor` squared.
    """

    def cpu_s(n: int) -> float:
        run = work(n)
        best = float("inf")
        gc.disable()  # a collection would cost what the whole test session has made
        try:
            for _ in range(3):
                began = process_time()
                run()
                best = min(best, process_time() - began)
        finally:
            gc.enable()
        return best

    return cpu_s(size * factor) < 4 * factor * max(cpu_s(size), 1e-4)


# --- figures --------------------------------------------------------------------------------------------------------

HOSTILE: tuple[tuple[Value, str], ...] = (
    (-1, "negative"),
    (-0.5, "negative"),
    ("-7", "negative"),
    (1.5, "fractional"),
    (float("nan"), "not_finite"),
    (float("inf"), "not_finite"),
    (float("-inf"), "not_finite"),
    ("many", "invalid"),
    ("1.0", "invalid"),
    ("", "invalid"),
    (True, "invalid"),
    ([1], "invalid"),
    (10**12 + 1, "too_large"),
    (1e13, "too_large"),
    ("9" * 5000, "too_large"),
    ("9" * MEGABYTE, "too_large"),
    ("0" * MEGABYTE + "x", "invalid"),
)
PLAIN = (
    ("llm.token_count.prompt", "llm.token_count.completion"),
    ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"),
    ("gen_ai.usage.prompt_tokens", "gen_ai.usage.completion_tokens"),
    ("ai.usage.inputTokens", "ai.usage.outputTokens"),
)


@pytest.mark.parametrize(("prompt", "completion"), PLAIN)
@pytest.mark.parametrize(("value", "reason"), HOSTILE, ids=lambda value: str(value)[:12])
def test_a_bad_figure_is_counted_and_the_rest_of_its_span_is_kept(
    prompt: str, completion: str, value: Value, reason: str
) -> None:
    good: dict[str, Value] = {"session.id": "s", "user.id": "u", "llm.model_name": "m", "llm.cost.total": 0.5}
    decoded = read({**good, prompt: value, completion: 7})
    (found,) = decoded.spans
    assert (found.prompt_tokens, found.completion_tokens) == (0, 7)
    assert (found.claim_session_id, found.user_id, found.model, found.cost_nano) == ("s", "u", "m", 500_000_000)
    assert decoded.ignored == [("usage", reason)]


@pytest.mark.parametrize("attribute", ["langfuse.observation.usage_details", "mlflow.chat.tokenUsage"])
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "invalid"),
        ('{"input": 1', "invalid"),
        ('{"input": NaN}', "invalid"),
        ("[1]", "invalid"),
        ("7", "invalid"),
        ("", "invalid"),
        ("[" * 60_000, "invalid"),
        ('{"a":' * 10_000, "invalid"),
        ('{"input": 1, "x": "' + "x" * MEGABYTE + '"}', "too_large"),
        ('{"input": 1, "x": "' + "é" * 40_000 + '"}', "too_large"),
    ],
    ids=lambda text: text[:12],
)
def test_broken_and_endless_json_is_counted_and_another_family_is_read(attribute: str, text: str, reason: str) -> None:
    decoded = read({attribute: text, "session.id": "s"})
    assert (decoded.spans[0].prompt_tokens, decoded.spans[0].claim_session_id) == (0, "s")
    assert decoded.ignored == [("usage", reason)]
    other = "mlflow.chat.tokenUsage"
    if attribute != other:
        decoded = read({attribute: text, other: json.dumps({"input_tokens": 9})})
        assert decoded.spans[0].prompt_tokens == 9


def test_bad_figures_inside_json_are_counted_one_by_one() -> None:
    document = {"input": -1, "output": 5, "total": 1.5, "input_cached_tokens": "x", "output_reasoning": None}
    decoded = read({"langfuse.observation.usage_details": json.dumps(document)})
    assert decoded.spans[0].completion_tokens == 5
    assert sorted(decoded.ignored) == [("usage", "fractional"), ("usage", "invalid"), ("usage", "negative")]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("1e99999999999999999999", "invalid"),
        ("-1e99999999999999999999", "invalid"),
        ("1e-99999999999999999999", "invalid"),
        ("1e999999", "too_large"),
        ("-1e999999", "negative"),
        ("9" * MEGABYTE, "too_large"),
        ("9" * MEGABYTE + "x", "invalid"),
        (float("nan"), "not_finite"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_cost_beyond_all_numbers_is_counted_and_stops_nothing(value: Value, reason: str) -> None:
    decoded = read({"llm.cost.total": value, "gen_ai.usage.cost": "0.25"})
    assert decoded.spans[0].cost_nano == 250_000_000
    assert decoded.ignored == [("cost", reason)]
    details = "langfuse.observation.cost_details"
    if isinstance(value, str) and len(value) < 100:
        assert read({details: json.dumps({"total": value})}).ignored == [("cost", reason)]


@pytest.mark.parametrize("reads", [tokens, cost_nano])
@pytest.mark.parametrize("text", ["0", "9", " ", "0.", "1e"])
@pytest.mark.parametrize("tail", ["x", "0"])
def test_a_number_as_text_takes_time_by_its_length(
    reads: Callable[[object, list[tuple[str, str]]], int], text: str, tail: str
) -> None:
    def prepared(size: int) -> Callable[[], object]:
        return lambda: reads(text * size + tail, [])

    assert grows_linearly(prepared, 4_000)


# --- ids ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("session_id", "reason"),
    [
        ("x" * 10 * MEGABYTE, "too_long"),
        ("é" * 257, "too_long"),
        ("\0" * 10 * MEGABYTE, "too_long"),
        ("\0", "control_characters"),
        ("\x1b[2J", "control_characters"),
        ("two\nlines", "control_characters"),
        ("chat\x7f", "control_characters"),
        ("c1\x9bcode", "control_characters"),
    ],
    ids=lambda value: repr(value[:12]),
)
def test_a_bad_session_or_user_id_is_counted_and_the_span_is_kept(session_id: str, reason: str) -> None:
    usage: dict[str, Value] = {"llm.token_count.prompt": 5}
    decoded = read({"session.id": session_id, **usage})
    assert (decoded.spans[0].claim_row, decoded.spans[0].prompt_tokens) == (NO_CLAIM, 5)
    assert decoded.ignored == [("session_id", reason)]
    assert decoded.partial_reason == f"session_id_{reason}"
    assert len(decoded.partial_detail) < 200
    decoded = read({"session.id": session_id, "gen_ai.conversation.id": "c"})
    assert (decoded.spans[0].claim_session_id, decoded.partial_reason) == ("c", "")
    decoded = read(usage, {"session.id": session_id})
    assert (decoded.ignored, decoded.partial_reason) == ([("session_id", reason)], f"session_id_{reason}")
    decoded = read({"user.id": session_id, "enduser.id": "u", **usage})
    assert (decoded.spans[0].user_id, decoded.ignored, decoded.partial_reason) == ("u", [("user_id", reason)], "")


@pytest.mark.parametrize("session_id", ["ünïcödé ☕", "a b", "\u3000x\u00a0y", "\u200bzero width", "x" * 512, "﷽"])
def test_what_is_unusual_but_no_control_character_is_an_id(session_id: str) -> None:
    decoded = read({"session.id": session_id})
    assert (decoded.spans[0].claim_session_id, decoded.ignored) == (session_id.strip(), [])


def test_a_good_id_before_does_not_make_a_bad_one_good() -> None:
    ids = ("good", "bad\0", "good", "bad\0", "x" * 513)
    message = joined([record([span(n + 1, {"session.id": one})]) for n, one in enumerate(ids)])
    decoded = decode(to_protobuf(message), log_ms=BASE_MS, conventions=CONVENTIONS)
    assert [one.claim_session_id for one in decoded.spans] == ["good", "", "good", "", ""]


@pytest.mark.parametrize(
    "attribute", ["session.id", "user.id", "llm.model_name", "llm.token_count.prompt", "mlflow.chat.tokenUsage"]
)
@pytest.mark.parametrize("text", ["x", "0", '"', "\\u0000", "\0", "{"])
def test_a_record_takes_time_by_its_size(attribute: str, text: str) -> None:
    def prepared(size: int) -> Callable[[], object]:
        data = to_protobuf(record([span(1, {attribute: f'"{text * size}"'})], scope="mlflow"))
        return lambda: decode(data, log_ms=BASE_MS, conventions=CONVENTIONS)

    assert grows_linearly(prepared, 50_000)


# --- trees ----------------------------------------------------------------------------------------------------------


def test_a_span_that_is_its_own_parent_is_a_root() -> None:
    trace = figures_of([llm(1, 1, 10, 5), llm(2, 1, 20, 7)])
    assert (trace.prompt_tokens, trace.missing_root, trace.name) == (30, False, "span 1")


def test_a_cycle_is_cut_at_its_earliest_span() -> None:
    trace = figures_of([chain(1, 3), agent(2, 1), llm(3, 2, 10, 5), llm(4, 3, 10, 5)])
    assert (trace.prompt_tokens, trace.missing_root, trace.name) == (10, False, "span 1")


def twins_hidden_among_calls_above(size: int) -> list[Span]:
    """Calls that each look for a twin among blocks whose late ends are all of calls above them."""
    spans: list[Span] = []
    above: int | None = None
    for number in range(1, 3 * size // 4, 3):
        spans.append(llm(number, above, 10, 5, lasts=10**9, scope="b"))
        spans.append(agent(number + 1, number, lasts=10**9))
        spans.append(llm(number + 2, None, 10, 5, lasts=1, scope="b"))
        above = number + 1
    below = range(len(spans) + 1, size)
    return spans + [llm(n, above, 10, 5, at=10**6 + n * 100_000, lasts=10, scope="a") for n in below]


def anyhow(size: int) -> list[Span]:
    rng = random.Random(size)
    return [
        llm(
            n,
            rng.choice((None, rng.randrange(1, size))),
            10,
            5,
            at=rng.randrange(10**6),
            lasts=rng.randrange(10**6),
            scope=rng.choice("abc"),
        )
        for n in range(1, size + 1)
    ]


SHAPES: dict[str, Callable[[int], list[Span]]] = {
    "equal siblings of two scopes": lambda size: [llm(n, None, 10, 5, at=0, scope="ab"[n % 2]) for n in range(1, size)],
    "equal siblings of two scopes, one after the other": lambda size: [
        llm(n, None, 10, 5, at=n * 10**6, scope="ab"[n % 2], lasts=10) for n in range(1, size)
    ],
    "each ends later than the one before": lambda size: [
        llm(n, None, 10, 5, at=n * 1000, lasts=10**9 + n * 100_000, scope="ab"[n % 2]) for n in range(1, size)
    ],
    "twins hidden among calls above": twins_hidden_among_calls_above,
    "one chain of repeats": lambda size: [llm(n, n - 1 or None, 10, 5) for n in range(1, size)],
    "one chain of wrappers": lambda size: [chain(n, n - 1 or None, 10, 5) for n in range(1, size)],
    "one cycle": lambda size: [llm(n, n % (size - 1) + 1, 10, 5) for n in range(1, size)],
    "all their own parents": lambda size: [llm(n, n, 10, 5) for n in range(1, size)],
    "one parent with all as children": lambda size: [llm(n, 1 if n > 1 else None, 10, 5 + n) for n in range(1, size)],
    "anyhow": anyhow,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_ten_thousand_spans_take_ten_times_what_a_thousand_take(shape: str) -> None:
    def prepared(size: int) -> Callable[[], object]:
        spans = SHAPES[shape](size)
        return lambda: rollup(spans, Pricer())

    assert grows_linearly(prepared, 1_250)


def test_of_ten_thousand_equal_calls_seen_by_two_scopes_each_counts_once() -> None:
    outer = [llm(n, None, 10, 5, at=n * 1000, lasts=900, scope="outer") for n in range(1, 5001)]
    inner = [llm(5000 + n, None, 10, 5, at=n * 1000 + 100, lasts=700, scope="inner") for n in range(1, 5001)]
    assert figures_of([*outer, *inner]).prompt_tokens == 50_000
    parallel = [llm(n, None, 10, 5, at=0, lasts=900, scope="ab"[n % 2]) for n in range(1, 10_001)]
    assert figures_of(parallel).prompt_tokens == 50_000
