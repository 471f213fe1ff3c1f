"""Level 2 in Redis: session rollups."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from aggregator.adapters.redis.calls import Connections, Items
from aggregator.adapters.redis.corrupt import CorruptKeys
from aggregator.adapters.redis.keys import REMEMBERED, Keys, SessionKeys
from aggregator.adapters.redis.scripts import SESSION_CLAIM, SESSION_PUT, SESSION_SETTLE, Body, Script, pack
from aggregator.core.errors import CorruptState
from aggregator.core.lifecycle import CloseReason
from aggregator.core.model import Counts, FirstUse, SessionRef, SessionRollup, TracePut
from aggregator.core.packing import packed_texts
from aggregator.core.put import OTHER_MODELS
from aggregator.ports import Claim, ClaimOutcome, PutOutcome, PutReply, SessionPut, Transition
from aggregator.telemetry import CorruptKind

MOST_TRACES_PER_ITEM: Final = 100
"""More traces than this for one session go as several items, so that no call stops Redis for long."""

LISTED: Final = 16  # users and services of a session, at most

_BILLION: Final = 1_000_000_000
_LAST_US: Final = 253_402_300_799_999_999  # the year 9999
_TRANSITIONS: Final = (Transition.NONE, Transition.OPENED, Transition.REOPENED)
_OUTCOMES: Final = (
    PutOutcome.APPLIED,
    PutOutcome.SAME,
    PutOutcome.STALE,
    PutOutcome.FOLDED,
    PutOutcome.TOO_LATE,
    PutOutcome.ERASED,
)
_CLAIM_OUTCOMES: Final = (
    ClaimOutcome.CLAIMED,
    ClaimOutcome.NOT_DUE,
    ClaimOutcome.CLOSED,
    ClaimOutcome.DROPPED,
    ClaimOutcome.GONE,
)
_REASONS: Final = {1: CloseReason.IDLE, 2: CloseReason.MAX_DURATION}
_MODEL_FIGURES: Final = {
    "calls": 0,
    "prompt_tokens": 1,
    "completion_tokens": 2,
    "embedding_tokens": 3,
    "reported_costs": 6,
    "priced_costs": 7,
}


class _Frame(NamedTuple):
    """What stands around the traces of each put of a session, packed."""

    keys: SessionKeys
    head: bytes
    tail: bytes


class RedisSessions:
    """`ports.SessionStore`."""

    def __init__(
        self,
        connections: Connections,
        keys: Keys,
        *,
        idle_timeout_ms: int,
        max_duration_ms: int,
        retention_ms: int,
        max_session_traces: int,
        trace_life_ms: int,
        corrupt: CorruptKeys | None = None,
    ) -> None:
        """All workers must be given the same times: they are not stored with a session."""
        self._connections = connections
        self._keys = keys
        self._corrupt = corrupt or CorruptKeys(connections, keys)
        self._idle_timeout_ms: Final = idle_timeout_ms
        self._put_head = (idle_timeout_ms, max_duration_ms, retention_ms, max_session_traces, trace_life_ms)
        self._claim_head = (idle_timeout_ms, max_duration_ms, retention_ms)
        self._settle_head = (retention_ms,)
        self._frames: dict[SessionRef, _Frame] = {}  # emptied when it is full

    async def put(self, puts: Sequence[SessionPut]) -> Sequence[PutReply | None]:
        """See `ports.SessionStore`; idempotent by the version of each trace.

        More than `MOST_TRACES_PER_ITEM` traces of one session go as several puts in a row.
        """
        names: list[SessionKeys] = []
        bodies: list[Body] = []
        for put in puts:
            frame = self._frames.get(put.ref) or self._frame(put.ref)
            for traces in _pieces(put):
                names.append(frame.keys)
                bodies.append(_put_body(frame, traces))
        replies = await self._call(SESSION_PUT, names, bodies, self._put_head)
        if len(replies) == len(puts):
            return [
                None if reply is None else _put_reply(put.traces, reply)
                for put, reply in zip(puts, replies, strict=True)
            ]
        answers = iter(replies)
        return [self._joined_reply(put, answers) for put in puts]

    def _frame(self, ref: SessionRef) -> _Frame:
        if len(self._frames) >= REMEMBERED:
            self._frames.clear()
        keys = self._keys.session(ref)
        tail = packed_texts(*ref, self._keys.erased(keys.session))
        frame = self._frames[ref] = _Frame(keys, packed_texts(keys.session), tail)
        return frame

    def _joined_reply(self, put: SessionPut, replies: Iterator[Sequence[Any] | None]) -> PutReply | None:
        """One reply for all pieces of a put."""
        outcomes: list[PutOutcome] = []
        versions: list[int] = []
        transition, deadline_ms = Transition.NONE, 0
        for traces in _pieces(put):
            answer = next(replies)
            idle_ms = max((trace.changed_ms for trace in traces), default=0) + self._idle_timeout_ms
            reply = _put_reply(traces, (0, idle_ms) if answer is None else answer)
            outcomes += reply.outcomes
            versions += reply.versions
            transition = reply.transition if transition is Transition.NONE else transition
            deadline_ms = reply.deadline_ms
        joined = PutReply(outcomes, versions, transition, deadline_ms)
        return None if joined.tells_nothing(put.traces, self._idle_timeout_ms) else joined

    async def claim(self, refs: Sequence[SessionRef], *, watermark_ms: int) -> Sequence[Claim]:
        """See `ports.SessionStore`; idempotent: what is closing already is read as it stands."""
        names = [self._keys.session(ref) for ref in refs]
        head = (watermark_ms, *self._claim_head)

        def read(index: int, reply: Any) -> Claim | CorruptState:
            return reply if isinstance(reply, CorruptState) else _claim(refs[index], names[index], reply)

        bodies: list[Body] = [(pack(name),) for name in names]
        return await self._call(SESSION_CLAIM, names, bodies, head, read)

    async def settle(self, refs: Sequence[tuple[SessionRef, int]]) -> Sequence[bool]:
        """See `ports.SessionStore`; a repeat says again which were closed at that revision."""
        names = [self._keys.session(ref) for ref, _ in refs]
        bodies: list[Body] = [(pack((*name, revision)),) for name, (_, revision) in zip(names, refs, strict=True)]
        replies = await self._call(SESSION_SETTLE, names, bodies, self._settle_head)
        return [reply == 1 for reply in replies]

    async def _call(
        self,
        script: Script,
        names: Sequence[SessionKeys],
        bodies: Sequence[Body],
        head: Sequence[int],
        read: Callable[[int, Any], Any] = lambda index, reply: reply,
    ) -> list[Any]:
        """Run a script; a session that can't be read is set aside whole, and then there is none.

        `read` makes of a reply what is given back, or the `CorruptState` that it turns out to be.
        """

        async def ask(indexes: Sequence[int]) -> list[Any]:
            items = Items([names[index] for index in indexes], [bodies[index] for index in indexes], head)
            replies = await self._connections.call(script, items, corrupt_too=True)
            return [read(index, reply) for index, reply in zip(indexes, replies, strict=True)]

        return await self._corrupt.repaired(CorruptKind.SESSION, names, ask)


def _put_body(frame: _Frame, traces: Sequence[TracePut]) -> Body:
    """One item as `session_put.lua` reads it."""
    item = b"".join((frame.head, *[trace.packed for trace in traces], frame.tail))
    return (item, *[trace.entry for trace in traces])


def _pieces(put: SessionPut) -> list[list[TracePut]]:
    traces = put.traces
    if len(traces) <= MOST_TRACES_PER_ITEM:
        return [traces]
    return [traces[start : start + MOST_TRACES_PER_ITEM] for start in range(0, len(traces), MOST_TRACES_PER_ITEM)]


def _put_reply(traces: Sequence[TracePut], reply: Sequence[Any]) -> PutReply:
    if len(reply) == 2:
        outcomes = [PutOutcome.APPLIED] * len(traces)
        versions = [trace.version for trace in traces]
    else:
        outcomes = [_OUTCOMES[outcome] for outcome in reply[2]]
        versions = reply[3]
    return PutReply(outcomes, versions, _TRANSITIONS[reply[0]], reply[1])


def _claim(ref: SessionRef, keys: SessionKeys, reply: Sequence[Any]) -> Claim | CorruptState:
    outcome = _CLAIM_OUTCOMES[reply[0]]
    if outcome is not ClaimOutcome.CLAIMED:
        return Claim(outcome, reply[1] if outcome is ClaimOutcome.NOT_DUE else 0, None)
    try:
        return Claim(outcome, reply[1], _rollup(ref, reply))
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
        problem = f"{type(error).__name__}: {error}"
        return CorruptState(f"{keys.session} or a key that belongs to it can't be read: {problem}")


def _rollup(ref: SessionRef, reply: Sequence[Any]) -> SessionRollup:
    _, _, revision, reason, opened_ms, started, ended, folded, sums, folded_part, entries, models = reply
    counts = Counts._make((*map(int, sums[:-1]), *divmod(int(sums[-1]), _BILLION)))
    users: dict[str, FirstUse] = {}
    services: set[str] = set()
    if folded_part:
        _, _, folded_users, folded_services, _ = json.loads(folded_part)
        _merge_users(users, folded_users, 0)
        services.update(folded_services)
    by_model = _models(models)
    shown: list[dict[str, object]] = []
    for text in entries:
        entry = json.loads(text)
        _, _, trace_started_us, _, _, entry_counts, entry_users, entry_services, *_ = entry["_"]
        if entry_counts[0] > 0:  # a tombstone's begin with a run of zeros
            _merge_users(users, entry_users, trace_started_us)
            services.update(entry_services)
            shown.append(_checked(entry))
    return SessionRollup(
        ref=ref,
        revision=revision,
        close_reason=_REASONS[reason],
        opened_ms=opened_ms,
        started_us=_bound_us(started, opened_ms),
        ended_us=_bound_us(ended, opened_ms),
        counts=counts,
        users=sorted(users.values())[:LISTED],
        services=sorted(services)[:LISTED],
        models=by_model,
        trace_entries=shown,
        truncated=folded > 0 or counts.truncated_traces > 0 or OTHER_MODELS in by_model,
    )


def _checked(entry: dict[str, Any]) -> dict[str, Any]:
    """The entry, of which a summary can be made; anything else raises."""
    private, tokens = entry["_"], entry["tokens"]
    numbers = (*private[1:4], *private[5], tokens["prompt"], tokens["completion"])
    texts = (entry["trace_id"], entry["started_at"] or "")
    if not (all(type(number) is int for number in numbers) and all(isinstance(text, str) for text in texts)):
        raise TypeError(f"an entry of a trace is {str(entry)[:200]}")
    return entry


def _bound_us(distance_us: int | bool, opened_ms: int) -> int:
    """0 where it is unknown, which is stored as false; 0 is a distance."""
    bound_us = 0 if distance_us is False else opened_ms * 1000 + distance_us
    if type(bound_us) is not int or not 0 <= bound_us <= _LAST_US:
        raise ValueError(f"{bound_us} is no time")
    return bound_us


def _merge_users(users: dict[str, FirstUse], more: Sequence[Sequence[Any]], base_us: int) -> None:
    for start_us, span_id, user_id in more:
        use = FirstUse(base_us + int(start_us), span_id, user_id)  # of folded traces it is text
        if user_id not in users or use < users[user_id]:
            users[user_id] = use


def _models(flat: Sequence[bytes]) -> dict[str, list[int]]:
    """As `SessionRollup.models`."""
    models: dict[str, list[int]] = {}
    for field, value in zip(flat[::2], flat[1::2], strict=True):
        name, _, figure = field.decode().rpartition(":")
        figures = models.setdefault(name, [0, 0, 0, 0, 0, 0, 0, 0])
        if figure == "cost_nano_usd":
            figures[4:6] = divmod(int(value), _BILLION)
        else:
            figures[_MODEL_FIGURES[figure]] = int(value)
    return models
