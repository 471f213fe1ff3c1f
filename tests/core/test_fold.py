"""The merge of level 1: idempotent, commutative, associative, and safe against whatever else writes the trace."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from aggregator.core.fold import Folder
from aggregator.core.merge import DUPLICATE, FOLDED, MERGED, merge_span, resolve_claim
from aggregator.core.model import SessionRef, Span
from aggregator.core.pricing import Pricer
from aggregator.core.state import TraceState, decode_state, stamped_version
from tests.core.spans import TRACE, as_dict, spans
from tests.puts import ReadPut, read_put

OTHER_TRACE = bytes(range(16, 32))


def merged(content: list[Span], limit: int = 1000) -> TraceState:
    state = TraceState(TRACE)
    for span in content:
        merge_span(state, span, limit)
    return state


def content_of(state: TraceState) -> dict[bytes, dict[str, object]]:
    return {span_id: as_dict(span) for span_id, span in state.spans.items()}


@dataclass
class Store:
    """What `trace_store.lua` promises, in a dictionary: stamps and states."""

    states: dict[bytes, tuple[bytes, bytes]] = field(default_factory=dict)

    def write(self, folder: Folder) -> int:
        """One round; gives the number of conflicts."""
        replies: list[tuple[bytes, bytes] | None] = []
        for write in folder.writes():
            stored = self.states.get(write.trace_id, (b"", b""))
            if stored[0] == write.expected:
                self.states[write.trace_id] = (write.stamp, write.state)
                replies.append(None)
            else:
                replies.append(stored)
        return folder.stored(replies)

    def version(self) -> int:
        return stamped_version(self.states[TRACE][0])


def folder(*, max_trace_spans: int = 1000, cache_spans: int = 1000) -> Folder:
    return Folder(max_trace_spans=max_trace_spans, cache_spans=cache_spans, pricer=Pricer())


def fold(worker: Folder, store: Store, content: list[Span], log_ms: int = 1) -> dict[SessionRef, list[ReadPut]]:
    worker.add(content, log_ms)
    while store.write(worker):
        pass
    puts = worker.puts()
    worker.finish()
    return {ref: [read_put(put) for put in traces] for ref, traces in puts.items()}


def figures(put: ReadPut) -> object:
    """What a put says apart from how the trace came about."""
    return (put.trace_id, put.counts, put.started_us, put.ended_us, put.users, put.services, put.models)


@given(st.lists(spans(), max_size=12), st.randoms(use_true_random=False))
def test_order_and_duplicates_change_nothing(content: list[Span], random: object) -> None:
    shuffled = content + content[: len(content) // 2]
    random.shuffle(shuffled)  # type: ignore[attr-defined] # hypothesis hands out a random.Random
    assert content_of(merged(shuffled)) == content_of(merged(content))


@given(st.lists(spans(), max_size=8))
def test_what_is_there_already_changes_nothing(content: list[Span]) -> None:
    state = merged(content)
    version = state.version()
    assert all(merge_span(state, span, 1000) == DUPLICATE for span in content)
    assert state.version() == version


@given(spans(), spans(), spans())
def test_of_several_contents_of_one_span_a_total_order_decides(a: Span, b: Span, c: Span) -> None:
    for span in (a, b, c):
        span.span_id = b"8 bytes."
    winner = content_of(merged([a, b, c]))
    assert winner == content_of(merged([c, b, a])) == content_of(merged([b, c, a]))
    assert as_dict(max((a, b, c), key=lambda s: s.end_us))["end_us"] == winner[b"8 bytes."]["end_us"]


def test_later_end_then_more_tokens_decide() -> None:
    early = Span(trace_id=TRACE, span_id=b"8 bytes.", end_us=5, prompt_tokens=900)
    late = Span(trace_id=TRACE, span_id=b"8 bytes.", end_us=6, prompt_tokens=1)
    rich = Span(trace_id=TRACE, span_id=b"8 bytes.", end_us=6, prompt_tokens=2, name="a")
    for content in ([early, late, rich], [rich, late, early]):
        assert content_of(merged(content)) == {b"8 bytes.": as_dict(rich)}


def test_a_full_trace_takes_no_more_spans_and_says_so() -> None:
    content = [Span(trace_id=TRACE, span_id=bytes([n]) * 8) for n in range(1, 5)]
    state = TraceState(TRACE)
    assert [merge_span(state, span, 3) for span in content] == [MERGED, MERGED, MERGED, FOLDED]
    assert state.truncated
    version = state.version()
    assert merge_span(state, content[3], 3) == FOLDED
    assert merge_span(state, content[0], 3) == DUPLICATE
    assert state.version() == version


@given(st.lists(spans(), min_size=1, max_size=12), st.data())
def test_two_workers_end_in_the_same_state_as_one(content: list[Span], data: st.DataObject) -> None:
    """Any split over two workers with memories of their own, any interleaving of their rounds."""
    store = Store()
    workers = [folder(cache_spans=data.draw(st.sampled_from([0, 4, 1000]))) for _ in range(2)]
    queue = list(content)
    while queue:
        for worker in workers:
            size = data.draw(st.integers(min(1, len(queue)), len(queue)))
            worker.add(queue[:size], 1)
            del queue[:size]
        busy = [w for w in workers if w.writes()]
        while busy:  # one round of one of them at a time
            worker = busy[data.draw(st.integers(0, len(busy) - 1))]
            store.write(worker)
            busy = [w for w in workers if w.writes()]
        for worker in workers:
            worker.finish()
    expected = merged(content)
    last = fold(folder(), store, content)
    assert store.version() >> 32 == len(expected.spans)
    alone = fold(folder(), Store(), content)
    # The alone one never moved between sessions as the two may have done: compare the session that it belongs to.
    for ref, puts in alone.items():
        if puts[0].counts.trace_count:
            assert [figures(p) for p in last[ref]] == [figures(p) for p in puts]


@given(st.lists(st.lists(spans(), min_size=1, max_size=4), min_size=1, max_size=5))
def test_the_version_never_falls(batches: list[list[Span]]) -> None:
    store = Store()
    worker = folder()
    versions = []
    for batch in batches:
        fold(worker, store, batch)
        versions.append(store.version())
    assert all(before <= after for before, after in pairwise(versions))


@given(st.lists(spans(), max_size=8), st.lists(spans(), max_size=8))
def test_of_states_of_as_many_spans_the_one_that_has_all_of_the_other_has_the_greater_contents(
    some: list[Span], more: list[Span]
) -> None:
    """By whatever way either came about, so that a session can tell which is newer where states have been lost."""
    old, new = merged(some), merged(more + some)
    assert len(new.spans) >= len(old.spans)
    if len(new.spans) == len(old.spans):
        assert new.contents() >= old.contents()
        replaced = [(new.spans[one].end_us, tokens(new.spans[one])) for one in old.spans]
        if replaced != [(span.end_us, tokens(span)) for span in old.spans.values()]:
            assert new.contents() > old.contents()


def tokens(span: Span) -> int:
    return span.prompt_tokens + span.completion_tokens + span.embedding_tokens


def claim(span_id: int, session_id: str, row: int = 0, start_us: int = 1, project: str = "p") -> Span:
    return Span(
        trace_id=TRACE,
        span_id=bytes([span_id]) * 8,
        claim_row=row,
        claim_session_id=session_id,
        start_us=start_us,
        project=project,
    )


def test_the_highest_row_claims_then_the_earliest_start_then_the_smallest_id() -> None:
    contest = [
        claim(1, "late row", row=3, start_us=1),
        claim(9, "unknown start", start_us=0),
        claim(8, "late", start_us=7),
        claim(7, "greater id", start_us=5),
        claim(2, "wins", start_us=5),
    ]
    for part in range(1, len(contest) + 1):
        expected = contest[part - 1].claim_session_id
        assert resolve_claim(contest[:part]).ref == SessionRef("p", expected)
        assert resolve_claim(contest[:part][::-1]).ref == SessionRef("p", expected)


def test_spans_that_disagree_conflict_by_id_or_by_project() -> None:
    assert not resolve_claim([claim(1, "a"), claim(2, "a"), Span(trace_id=TRACE, span_id=b"x" * 8)]).conflicting
    assert resolve_claim([claim(1, "a"), claim(2, "b")]).conflicting
    assert resolve_claim([claim(1, "a"), claim(2, "a", project="q")]).conflicting
    # The first one compared is not the winner, and the disagreement is behind the winner.
    assert resolve_claim([claim(2, "a"), claim(1, "a", start_us=0), claim(3, "b", row=5)]).conflicting


def test_a_better_claim_moves_the_trace_and_leaves_a_tombstone() -> None:
    store, worker = Store(), folder()
    (first,) = fold(worker, store, [claim(1, "old", row=2)])[SessionRef("p", "old")]
    assert (first.first, first.counts.trace_count, first.counts.conflicting_claim_traces) == (True, 1, 0)
    puts = fold(worker, store, [claim(2, "new", row=1)], log_ms=7)
    (moved,) = puts[SessionRef("p", "new")]
    (grave,) = puts[SessionRef("p", "old")]
    assert (moved.first, moved.counts.trace_count, moved.counts.conflicting_claim_traces) == (True, 1, 1)
    assert (moved.version, moved.changed_ms) == (grave.version, grave.changed_ms) == (2 << 32, 7)
    assert not any(grave.counts)
    assert json.loads(grave.entry)["_"][:4] == [2, 0, 0, 7]
    again = fold(folder(), store, [claim(2, "new", row=1)])  # a redelivery to a worker without memory
    assert again == {
        SessionRef("p", "new"): [moved._replace(first=False)],
        SessionRef("p", "old"): [grave],
    }


def test_a_trace_without_claim_waits() -> None:
    store, worker = Store(), folder()
    assert fold(worker, store, [Span(trace_id=TRACE, span_id=b"8 bytes.")]) == {}
    (put,) = fold(worker, store, [claim(1, "s")])[SessionRef("p", "s")]
    assert (put.first, put.counts.span_count) == (True, 2)


def test_log_time_is_that_of_the_last_record_that_changed_something() -> None:
    store, worker = Store(), folder()
    fold(worker, store, [claim(1, "s")], log_ms=10)
    (put,) = fold(worker, store, [claim(1, "s")], log_ms=20)[SessionRef("p", "s")]
    assert put.changed_ms == 10
    (put,) = fold(folder(), store, [claim(1, "s")], log_ms=30)[SessionRef("p", "s")]
    assert put.changed_ms == 10, "a worker without memory learns it from the store"
    (put,) = fold(folder(), store, [claim(1, "s"), claim(2, "s")], log_ms=40)[SessionRef("p", "s")]
    assert put.changed_ms == 40


def test_a_store_that_lost_everything_gets_back_what_is_still_known() -> None:
    store, worker = Store(), folder()
    fold(worker, store, [claim(1, "s"), claim(2, "s")], log_ms=10)
    store.states.clear()
    (put,) = fold(worker, store, [claim(3, "s")], log_ms=5)[SessionRef("p", "s")]
    assert (put.counts.span_count, put.changed_ms) == (3, 10)
    assert store.version() == 3 << 32


def test_a_state_of_the_same_version_and_other_spans_is_merged_not_overwritten() -> None:
    """A store that lost one worker's state has another's since, of as many spans."""
    store, worker = Store(), folder()
    fold(worker, store, [claim(1, "s"), claim(2, "s")])
    store.states.clear()
    fold(folder(), store, [claim(3, "s"), claim(4, "s")])
    (put,) = fold(worker, store, [claim(5, "s")])[SessionRef("p", "s")]
    assert put.counts.span_count == 5
    assert store.version() == 5 << 32


@given(st.lists(spans(), min_size=1, max_size=12), st.data())
def test_whatever_a_store_loses_no_worker_overwrites_what_another_stored_since(
    content: list[Span], data: st.DataObject
) -> None:
    """What some worker has stored after the loss is there in the end; what it remembers from before comes back too."""
    store, workers = Store(), [folder(), folder()]
    cut = data.draw(st.integers(0, len(content)))
    for number, span in enumerate(content):
        if number == cut:
            store.states.clear()
        fold(workers[data.draw(st.integers(0, 1))], store, [span])
    stored = decode_state(TRACE, *store.states[TRACE])
    for span_id in merged(content[min(cut, len(content) - 1) :]).spans:
        assert span_id in stored.spans


def test_a_store_that_lost_a_move_gets_the_tombstone_again() -> None:
    store, worker = Store(), folder()
    fold(worker, store, [claim(1, "old", row=2)])
    fold(worker, store, [claim(2, "new", row=1)])
    store.states.clear()
    puts = fold(worker, store, [claim(2, "new", row=1)])
    assert set(puts) == {SessionRef("p", "new"), SessionRef("p", "old")}


def test_counts_say_what_became_of_each_span() -> None:
    store = Store()
    fold(folder(), store, [claim(1, "s")])
    worker = folder(max_trace_spans=2)
    worker.add([claim(1, "s"), claim(2, "s"), claim(3, "s")], 1)
    while store.write(worker):
        pass
    (touched,) = worker.touched()
    assert (touched.merged, touched.duplicate, touched.folded, touched.created) == (1, 1, 1, False)
    assert worker.touched_trace(TRACE) is touched
    touched.too_late()
    assert (touched.merged, touched.late) == (0, 1)


def test_traces_of_one_session_travel_together() -> None:
    other = claim(1, "s")
    other.trace_id = OTHER_TRACE
    puts = fold(folder(), Store(), [claim(1, "s"), other, claim(2, "s")])
    assert [put.trace_id for put in puts[SessionRef("p", "s")]] == [TRACE.hex(), OTHER_TRACE.hex()]


def test_the_memory_is_bounded_and_keeps_what_was_used_last() -> None:
    store, worker = Store(), folder(cache_spans=2)
    traces = [bytes([n]) * 16 for n in range(1, 4)]

    def one(trace_id: bytes, span_id: int) -> Span:
        return Span(trace_id=trace_id, span_id=bytes([span_id]) * 8)

    for trace_id in traces:
        fold(worker, store, [one(trace_id, 1)])
    worker.add([one(traces[2], 2)], 1)
    assert store.write(worker) == 0, "the newest is remembered: no conflict"
    worker.finish()
    worker.add([one(traces[0], 2)], 1)
    assert store.write(worker) == 1, "the oldest was forgotten: the store says what it has"


def test_forgetting_drops_batch_and_memory() -> None:
    store, worker = Store(), folder()
    fold(worker, store, [claim(1, "s")])
    worker.add([claim(2, "s")], 1)
    worker.writes()
    worker.forget()
    assert worker.writes() == []
    assert worker.puts() == {}
    assert fold(worker, store, [claim(3, "s")])[SessionRef("p", "s")][0].counts.span_count == 2


def test_what_a_store_lost_after_the_put_is_stored_again() -> None:
    store, worker = Store(), folder()
    worker.add([claim(1, "weak", row=5)], 1)
    store.write(worker)
    worker.puts()
    store.states.clear()
    worker.store_again()
    assert store.write(worker) == 0
    assert set(worker.puts()) == {SessionRef("p", "weak")}
    worker.forget()
    puts = fold(folder(), store, [claim(1, "weak", row=5), claim(2, "strong")])
    assert set(puts) == {SessionRef("p", "strong"), SessionRef("p", "weak")}, "the session that it leaves is told"


def test_a_session_that_was_put_is_told_also_when_another_worker_was_first_to_move_the_trace() -> None:
    store, worker = Store(), folder()
    worker.add([claim(1, "weak", row=5)], 1)
    store.write(worker)
    worker.puts()
    store.states.clear()
    fold(folder(), store, [claim(2, "strong")])
    worker.store_again()
    while store.write(worker):
        pass
    assert set(worker.puts()) == {SessionRef("p", "strong"), SessionRef("p", "weak")}


def test_spans_of_a_folded_trace_are_counted_so() -> None:
    store, worker = Store(), folder()
    worker.add([claim(1, "s"), claim(2, "s")], 1)
    store.write(worker)
    (touched,) = worker.touched()
    touched.not_added()
    assert (touched.merged, touched.folded) == (0, 2)


def test_a_session_that_was_left_is_told_once_however_many_know_of_it() -> None:
    store, worker = Store(), folder()
    fold(worker, store, [claim(1, "weak", row=5)])
    fold(worker, store, [claim(2, "strong")])
    fold(folder(), store, [claim(3, "strong")])  # another worker goes on meanwhile
    puts = fold(worker, store, [claim(4, "strong")])
    assert [len(puts[SessionRef("p", name)]) for name in ("weak", "strong")] == [1, 1]
