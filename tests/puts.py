"""Puts of traces, and what they say, read from their bytes by a MessagePack and a JSON of others."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import msgpack  # type: ignore[import-untyped]

from aggregator.core.model import Counts, FirstUse, TracePut, TraceRollup
from aggregator.core.put import trace_put


class ReadPut(NamedTuple):
    """`core.model.TracePut` taken apart, as its docstring tells; `users` and `services` are those of the entry."""

    trace_id: str
    version: int
    contents: tuple[int, int, int]
    changed_ms: int
    born_ms: int
    first: bool
    counts: Counts
    started_us: int
    ended_us: int
    users: list[FirstUse]
    services: list[str]
    models: dict[str, list[int]]
    entry: str


def plain_put(rollup: TraceRollup, trace_id: bytes = bytes(range(16))) -> TracePut:
    """A rollup on its way, where only the figures matter."""
    return trace_put(
        rollup,
        trace_id=trace_id,
        version=1,
        contents=(0, 0, 0),
        changed_ms=1,
        born_ms=1,
        first=True,
        conflicting=False,
        truncated=False,
    )


def read_put(put: TracePut) -> ReadPut:
    """Read both halves of a put; where they tell the same they must agree."""
    unpacker: Any = msgpack.Unpacker(strict_map_key=False)
    unpacker.feed(put.packed)
    values = list(unpacker)
    trace_id, version, *contents, changed_ms, born_ms, first, started_us, ended_us, use, model_count = values[:12]
    counts, rest = values[12 : 12 + len(Counts())], values[12 + len(Counts()) :]
    models = {rest[at]: rest[at + 1 : at + 9] for at in range(0, len(rest), 9)}
    assert len(models) == model_count
    private = json.loads(put.entry)["_"]
    users = [FirstUse(private[2] + start, span_id, user) for start, span_id, user in private[6]]
    assert use == (f"{users[0].start_us:016d}{users[0].span_id:16}{users[0].user_id}" if users else "")
    assert (private[0] << 32) + private[1] == version == put.version
    assert private[10] == contents
    assert (private[2], private[2] // 1000 + private[3], private[2] + private[4]) == (started_us, changed_ms, ended_us)
    assert [n for count in private[5] for n in ([0] * -count if count < 0 else [count])] == counts
    stored = {name: [*figures, 0, 0][:8] for name, figures in private[8].items()}
    assert (stored, put.changed_ms, put.trace_id.hex()) == (models, changed_ms, trace_id)
    assert put.shown == (counts[0] > 0)
    return ReadPut(
        trace_id=trace_id,
        version=version,
        contents=(contents[0], contents[1], contents[2]),
        changed_ms=changed_ms,
        born_ms=born_ms,
        first=bool(first),
        counts=Counts._make(counts),
        started_us=started_us,
        ended_us=ended_us,
        users=users,
        services=private[7],
        models=models,
        entry=put.entry.decode(),
    )
