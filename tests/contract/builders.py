"""Trace puts as the write path would make them, and the stores that tests look into from outside."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from aggregator.core.model import TIME_LAST, Counts, FirstUse, SessionRef, TracePut
from aggregator.core.put import packed_put, private_json, tombstone
from aggregator.ports import PutOutcome, PutReply, SessionPut, Transition

NANO = 10**9
HOUR_US = 3_600_000_000
T0_US = 1_790_000_000_000_000
T0_MS = T0_US // 1000


def trace_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def trace_put(
    number: int = 1,
    version: int = 8 * 2**32,
    *,
    contents: tuple[int, int, int] = (0, 0, 0),
    changed_ms: int = T0_MS,
    born_ms: int = T0_MS,
    first: bool = True,
    counts: Mapping[str, int] | None = None,
    started_us: int = T0_US,
    ended_us: int = T0_US + 2_000_000,
    users: Sequence[tuple[int, str, str]] = (),
    services: Sequence[str] = ("chat",),
    models: Mapping[str, list[int]] | None = None,
    name: str = "turn",
) -> TracePut:
    """A trace's put; `counts` are those that are not zero (trace_count is 1)."""
    sums = Counts(**{"trace_count": 1, **(counts or {"span_count": 8, "prompt_tokens": 100, "completion_tokens": 20})})
    uses = [FirstUse(start or TIME_LAST, span, user) for start, span, user in users]
    some = {"gpt-4o": [1, 100, 20, 0, 0, 4_100_000]} if models is None else models
    figures = {model: [*six, 0, 0][:8] for model, six in some.items()}
    bounds = (started_us, ended_us)
    private = json.loads(private_json(version, contents, changed_ms, sums, bounds, uses, list(services), figures, 0))
    hex_id = trace_id(number).hex()
    return TracePut(
        trace_id=trace_id(number),
        version=version,
        changed_ms=changed_ms,
        shown=sums.trace_count > 0,
        packed=packed_put(
            hex_id.encode(), version, contents, (changed_ms, born_ms), first, sums, bounds, uses, figures
        ),
        entry=json.dumps(
            {
                "_": private,
                "trace_id": hex_id,
                "name": name,
                "started_at": None,
                "tokens": {"prompt": sums.prompt_tokens, "completion": sums.completion_tokens},
            },
            separators=(",", ":"),
        ).encode(),
    )


def whole_reply(put: SessionPut, reply: PutReply | None, idle_timeout_ms: int) -> PutReply:
    """The reply that None stands for."""
    if reply is not None:
        assert not reply.tells_nothing(put.traces, idle_timeout_ms)
        return reply
    latest_ms = max(trace.changed_ms for trace in put.traces)
    versions = [trace.version for trace in put.traces]
    return PutReply([PutOutcome.APPLIED] * len(versions), versions, Transition.NONE, latest_ms + idle_timeout_ms)


def gone(
    number: int,
    version: int,
    *,
    contents: tuple[int, int, int] = (0, 0, 0),
    changed_ms: int = T0_MS,
    born_ms: int = T0_MS,
) -> TracePut:
    """A tombstone."""
    return tombstone(trace_id(number), version, contents, changed_ms, born_ms)


def ref(session_id: str = "s-1", project: str = "demo") -> SessionRef:
    return SessionRef(project, session_id)


_ROLLUP_FIELDS = (  # compiled classes have no __slots__ to ask
    "ref", "revision", "close_reason", "opened_ms", "started_us", "ended_us", "counts", "users", "services", "models",
    "trace_entries", "truncated",
)  # fmt: skip


def plain_rollup(rollup: Any) -> dict[str, Any]:
    """A session rollup as a dict that compares, with its entries in an order."""
    fields = {name: getattr(rollup, name) for name in _ROLLUP_FIELDS}
    fields["trace_entries"] = sorted(fields["trace_entries"], key=lambda entry: str(entry["trace_id"]))
    fields["users"] = [tuple(use) for use in fields["users"]]
    fields["models"] = {name: list(figures) for name, figures in fields["models"].items()}
    fields["close_reason"] = str(fields["close_reason"])
    return fields
