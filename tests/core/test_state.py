"""The trace state comes back from its bytes, and nothing else does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.core.errors import CorruptState, OtherVersion
from aggregator.core.merge import merge_span
from aggregator.core.model import SessionRef, Span
from aggregator.core.state import TraceState, decode_state, encode_state, stamp_of, stamped_version
from tests.core.spans import TRACE, as_dict, spans


def stamped(state: TraceState) -> bytes:
    return stamp_of(state.version(), encode_state(state))


def state_of(*content: Span) -> TraceState:
    state = TraceState(TRACE)
    for span in content:
        merge_span(state, span, 1000)
    return state


@given(st.lists(spans(), max_size=8), st.integers(0, 2**50), st.booleans(), st.integers(0, 2))
def test_a_state_comes_back_from_its_bytes(content: list[Span], changed_ms: int, truncated: bool, moves: int) -> None:
    state = state_of(*content)
    state.changed_ms = changed_ms
    state.truncated = truncated
    for number in range(moves):
        state.move_to(SessionRef("p", f"s-{number}"))
    back = decode_state(TRACE, stamped(state), encode_state(state))
    assert {i: as_dict(s) for i, s in back.spans.items()} == {i: as_dict(s) for i, s in state.spans.items()}
    assert (back.changed_ms, back.truncated, back.claim, back.former, back.replacements) == (
        changed_ms,
        truncated,
        state.claim,
        state.former,
        state.replacements,
    )
    assert back.stored_stamp == stamped(state)
    assert stamped_version(back.stored_stamp) == back.version() == state.version()
    assert encode_state(back) == encode_state(state)


@given(st.lists(spans(), min_size=1, max_size=4), st.data())
def test_a_state_that_was_cut_is_refused(content: list[Span], data: st.DataObject) -> None:
    state = state_of(*content)
    encoded = encode_state(state)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(CorruptState, match=TRACE.hex()):
        decode_state(TRACE, stamped(state), encoded[:cut])


@given(st.binary(max_size=60))
def test_bytes_of_another_origin_are_refused(data: bytes) -> None:
    """Under a stamp that fits them, bytes that begin with another format are another version's."""
    known = data[:1] in (b"", encode_state(state_of())[:1])
    with pytest.raises(CorruptState if known else OtherVersion):
        decode_state(TRACE, stamp_of(7 << 32, data), data)


@pytest.mark.parametrize("number", [3, 5])
def test_a_state_in_another_format_is_another_version_s(number: int) -> None:
    written = encode_state(state_of(Span(trace_id=TRACE, span_id=b"12345678")))
    other = bytes([number]) + written[1:]
    with pytest.raises(OtherVersion, match=rf"{TRACE.hex()}, in format {number} instead of {written[0]}, .*upgrade.md"):
        decode_state(TRACE, stamp_of(1 << 32, other), other)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda data: b"\x09" + data[1:], "format"),
        (lambda data: data + b"\x00", "behind its end"),
        (lambda data: data[:2] + b"\xff" * 12, "no end"),
        (lambda data: data.replace(b"12345678\x01", b"12345678\x02"), "not among the spans"),
        (lambda data: data.replace(b"12345678\x01", b"12345678" + b"\x80" * 9 + b"\x01"), "not among the spans"),
        (lambda data: data.replace(b"\x1012345678", b"\x3012345678"), "one before it"),
    ],
)
def test_what_is_wrong_is_said(change: object, complaint: str) -> None:
    state = state_of(Span(trace_id=TRACE, span_id=b"12345678", parent_id=b"12345678"))
    assert callable(change)
    with pytest.raises(CorruptState, match=complaint):
        decode_state(TRACE, stamped(state), change(encode_state(state)))


@given(st.permutations(range(5)))
def test_a_parent_comes_back_wherever_it_stands(order: list[int]) -> None:
    ids = [bytes([number]) * 8 for number in range(5)]
    parents = [b"\xff" * 8, ids[0], ids[0], ids[2], b""]
    content = [Span(trace_id=TRACE, span_id=ids[number], parent_id=parents[number]) for number in order]
    state = state_of(*content)
    back = decode_state(TRACE, stamped(state), encode_state(state))
    assert [back.spans[span_id].parent_id for span_id in ids] == parents


def test_a_state_under_another_stamp_is_refused() -> None:
    state = state_of(Span(trace_id=TRACE, span_id=b"12345678"))
    encoded = encode_state(state)
    for other in (stamp_of(state.version() + 1, encoded), stamp_of(state.version(), encoded + b"x"), b""):
        with pytest.raises(CorruptState, match="does not match its stamp"):
            decode_state(TRACE, other, encoded)


@given(st.lists(spans(), min_size=1, max_size=4), st.lists(spans(), min_size=1, max_size=4))
def test_equal_stamps_mean_equal_states(content: list[Span], other: list[Span]) -> None:
    one, two = state_of(*content), state_of(*other)
    assert (stamped(one) == stamped(two)) == (encode_state(one) == encode_state(two))


@pytest.mark.parametrize(
    "text", [b"7", b"1.2", b"1.2.abc", b"a.2.00000000", b"1.2.00000000.4", b"9" * 30 + b".0.00000000"]
)
def test_what_is_no_stamp_names_no_version(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        stamped_version(text)
    assert stamped_version(b"") == 0


def test_spans_of_one_origin_say_it_once() -> None:
    def one(number: int, change: dict[str, Any] | None = None) -> Span:
        return Span(trace_id=TRACE, span_id=bytes([number]) * 8, **(origin | (change or {})))

    origin: dict[str, Any] = {"service": "a", "scope": "b", "project": "c", "claim_row": 1, "claim_session_id": "d"}
    origin["user_id"] = "e"
    changes: list[dict[str, Any]] = [{name: "x"} for name in ("service", "scope", "project", "claim_session_id")]
    changes += [{"claim_row": 2}, {"user_id": "x"}, {"user_id": ""}, {"claim_row": -1, "claim_session_id": ""}]
    alike = encode_state(state_of(one(1), one(2)))
    for number, change in enumerate(changes, 2):
        state = state_of(one(1), one(number, change), one(20))
        back = decode_state(TRACE, stamped(state), encode_state(state))
        assert [as_dict(span) for span in back.spans.values()] == [as_dict(span) for span in state.spans.values()]
        assert len(encode_state(state_of(one(1), one(number, change)))) > len(alike)


def test_versions_grow_with_spans_and_then_with_replacements() -> None:
    one = Span(trace_id=TRACE, span_id=b"1" * 8, end_us=1)
    later = Span(trace_id=TRACE, span_id=b"1" * 8, end_us=2)
    two = Span(trace_id=TRACE, span_id=b"2" * 8, end_us=1)
    assert 0 == state_of().version() < state_of(one).version() < state_of(one, later).version()
    assert state_of(one, later).version() < state_of(one, two).version() < 2**53


def test_replacements_saturate_below_the_next_span() -> None:
    state = state_of(Span(trace_id=TRACE, span_id=b"1" * 8))
    state.replacements = 2**32 - 1
    state.replaced()
    assert state.version() == 2**33 - 1


def test_a_trace_that_comes_back_to_a_session_leaves_no_tombstone_there() -> None:
    a, b = SessionRef("p", "a"), SessionRef("p", "b")
    state = TraceState(TRACE)
    state.move_to(a)
    state.move_to(b)
    assert (state.claim, state.former) == (b, [a])
    state.move_to(a)
    assert (state.claim, state.former) == (a, [b])
    state.move_to(a)
    assert (state.claim, state.former) == (a, [b])


def test_former_sessions_are_bounded() -> None:
    state = TraceState(TRACE)
    for number in range(40):
        state.move_to(SessionRef("p", str(number)))
    assert [ref.session_id for ref in state.former] == [str(number) for number in range(23, 39)]


def test_a_usual_span_takes_few_bytes() -> None:
    content = [
        Span(
            trace_id=TRACE,
            span_id=bytes([n]) * 8,
            parent_id=bytes([n - 1]) * 8,
            name="ChatCompletion",
            start_us=1_700_000_000_000_000 + n * 1000,
            end_us=1_700_000_000_900_000,
            service="chat",
            scope="openinference.instrumentation.openai",
        )
        for n in range(1, 9)
    ]
    assert len(encode_state(state_of(*content))) < 8 * 28
