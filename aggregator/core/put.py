"""A trace on its way into its session: the bytes that the script reads, and the entry that it stores."""

from __future__ import annotations

from typing import Final

from librt.strings import BytesWriter
from mypy_extensions import i64, u8

from aggregator.core.model import TIME_LAST, Counts, FirstUse, TracePut, TraceRollup
from aggregator.core.packing import pack_int, pack_raw, write_int, write_json
from aggregator.core.repeated_calls import NO_SCOPES
from aggregator.core.summary import cost_source, cost_text, duration_text, rfc3339
from aggregator.core.usage import trace_counts

MOST_MODELS: Final = 100
OTHER_MODELS: Final = "(other)"
"""What models are called together that a trace or a session has no room for; session_put.lua knows both."""

_NANO: Final = 1_000_000_000
_REPLACEMENTS: Final = 2**32 - 1  # the lower half of a version
_MODEL_FIGURES: Final = 8
_MODEL_SUMS: Final = 6  # of which those from here on are left out while they are 0
_COMMA: Final = u8(44)
_NO_COUNTS: Final = Counts()


def trace_put(
    rollup: TraceRollup,
    *,
    trace_id: bytes,
    version: i64,
    contents: tuple[i64, i64, i64],
    changed_ms: i64,
    born_ms: i64,
    first: bool,
    conflicting: bool,
    truncated: bool,
) -> TracePut:
    """A trace rollup as its session takes it."""
    counts = trace_counts(rollup, conflicting=conflicting, truncated=truncated or len(rollup.models) > MOST_MODELS)
    users: list[FirstUse] = []
    for user_id, start_us, span_id in rollup.users:
        users.append(FirstUse(start_us or TIME_LAST, span_id.hex(), user_id))
    models = _models(rollup)
    bounds = (rollup.started_us, rollup.ended_us)
    hex_id = trace_id.hex().encode()
    entry = BytesWriter()
    entry.write(b'{"_":')
    entry.write(
        private_json(version, contents, changed_ms, counts, bounds, users, rollup.services, models, rollup.scopes)
    )
    _write_public(entry, hex_id, rollup, counts)
    return TracePut(
        trace_id=trace_id,
        version=version,
        changed_ms=changed_ms,
        shown=True,
        packed=packed_put(hex_id, version, contents, (changed_ms, born_ms), first, counts, bounds, users, models),
        entry=entry.getvalue(),
    )


def _models(rollup: TraceRollup) -> dict[str, list[int]]:
    """The figures of each model; of more than `MOST_MODELS` the last by name are one, `OTHER_MODELS`."""
    models: dict[str, list[int]] = {}
    for name, usage in rollup.models.items():
        models[name] = [
            usage.calls,
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.embedding_tokens,
            usage.cost_nano // _NANO,
            usage.cost_nano % _NANO,
            usage.reported_costs,
            usage.priced_costs,
        ]
    if len(models) > MOST_MODELS:
        other = models.pop(OTHER_MODELS, [0] * _MODEL_FIGURES)
        for name in sorted(models)[MOST_MODELS:]:
            other = [a + b for a, b in zip(other, models.pop(name), strict=True)]
        other[4] += other[5] // _NANO
        other[5] %= _NANO
        models[OTHER_MODELS] = other
    return models


def tombstone(trace_id: bytes, version: i64, contents: tuple[i64, i64, i64], changed_ms: i64, born_ms: i64) -> TracePut:
    """An empty rollup: keeps older versions of a trace out of a session that it has left."""
    return TracePut(
        trace_id=trace_id,
        version=version,
        changed_ms=changed_ms,
        shown=False,
        packed=packed_put(
            trace_id.hex().encode(), version, contents, (changed_ms, born_ms), False, _NO_COUNTS, (0, 0), [], {}
        ),
        entry=b'{"_":' + private_json(version, contents, changed_ms, _NO_COUNTS, (0, 0), [], [], {}, NO_SCOPES) + b"}",
    )


def packed_put(
    hex_id: bytes,
    version: i64,
    contents: tuple[i64, i64, i64],
    times_ms: tuple[int, int],
    first: bool,
    counts: Counts,
    bounds: tuple[int, int],
    users: list[FirstUse],
    models: dict[str, list[int]],
) -> bytes:
    """A series of MessagePack values, as `model.TracePut` describes it; `times_ms` are changed and born."""
    out = BytesWriter()
    pack_raw(out, hex_id)
    pack_int(out, version)
    pack_int(out, contents[0])
    pack_int(out, contents[1])
    pack_int(out, contents[2])
    pack_int(out, times_ms[0])
    pack_int(out, times_ms[1])
    pack_int(out, 1 if first else 0)
    pack_int(out, bounds[0])
    pack_int(out, bounds[1])
    if users:
        start_us, span_id, user_id = users[0]
        pack_raw(out, f"{start_us:016d}{span_id:16}{user_id}".encode())
    else:
        pack_raw(out, b"")
    pack_int(out, len(models))
    for count in counts:
        pack_int(out, count)
    for name, figures in models.items():
        pack_raw(out, name.encode())
        for figure in figures:
            pack_int(out, figure)
    return out.getvalue()


def private_json(
    version: i64,
    contents: tuple[i64, i64, i64],
    changed_ms: i64,
    counts: Counts,
    bounds: tuple[int, int],
    users: list[FirstUse],
    services: list[str],
    models: dict[str, list[int]],
    scopes: i64,
) -> bytes:
    """The private member of an entry (its shape: see `model.TracePut`), kept short: every trace has one.

    `bounds` are started_us and ended_us.
    """
    started_us: i64 = bounds[0]
    out = BytesWriter()
    out.append(u8(91))
    write_int(out, version >> 32)
    out.append(_COMMA)
    write_int(out, version & _REPLACEMENTS)
    out.append(_COMMA)
    write_int(out, started_us)
    out.append(_COMMA)
    write_int(out, changed_ms - started_us // 1000)
    out.append(_COMMA)
    write_int(out, bounds[1] - started_us)
    out.write(b",[")
    _write_counts(out, counts)
    out.write(b"],[")
    comma = False
    for start_us, span_id, user_id in users:
        out.write(b",[" if comma else b"[")
        comma = True
        write_int(out, start_us - started_us)
        out.write(b',"')
        out.write(span_id.encode())
        out.write(b'",')
        write_json(out, user_id)
        out.append(u8(93))
    out.write(b"],[")
    for index, service in enumerate(services):
        if index:
            out.append(_COMMA)
        write_json(out, service)
    out.write(b"],{")
    comma = False
    for name, figures in models.items():
        if comma:
            out.append(_COMMA)
        comma = True
        write_json(out, name)
        out.write(b":[")
        shown: i64 = _MODEL_FIGURES
        while shown > _MODEL_SUMS and figures[shown - 1] == 0:
            shown -= 1
        for index in range(shown):
            if index:
                out.append(_COMMA)
            write_int(out, figures[index])
        out.append(u8(93))
    out.append(u8(125))
    out.append(_COMMA)
    write_int(out, scopes)
    out.write(b",[")
    write_int(out, contents[0])
    out.append(_COMMA)
    write_int(out, contents[1])
    out.append(_COMMA)
    write_int(out, contents[2])
    out.write(b"]]")
    return out.getvalue()


def _write_counts(out: BytesWriter, counts: Counts) -> None:
    """The counts, a negative number for as many zeros."""
    zeros: i64 = 0
    comma = False
    for count in counts:
        if count == 0:
            zeros += 1
            continue
        if comma:
            out.append(_COMMA)
        comma = True
        if zeros:
            write_int(out, 0 if zeros == 1 else -zeros)
            out.append(_COMMA)
            zeros = 0
        write_int(out, count)
    if zeros:
        if comma:
            out.append(_COMMA)
        write_int(out, 0 if zeros == 1 else -zeros)


def _write_public(out: BytesWriter, hex_id: bytes, rollup: TraceRollup, counts: Counts) -> None:
    """What the summary shows of a trace."""
    out.write(b',"trace_id":"')
    out.write(hex_id)
    out.write(b'","name":')
    write_json(out, rollup.name)
    out.write(b',"started_at":')
    _write_time(out, rollup.started_us)
    out.write(b',"ended_at":')
    _write_time(out, rollup.ended_us)
    out.write(b',"duration_ms":')
    out.write(duration_text(rollup.started_us, rollup.ended_us).encode())
    out.write(b',"span_count":')
    write_int(out, rollup.span_count)
    out.write(b',"error_count":')
    write_int(out, rollup.error_count)
    out.write(b',"tokens":{"prompt":')
    write_int(out, rollup.prompt_tokens)
    out.write(b',"completion":')
    write_int(out, rollup.completion_tokens)
    out.write(b',"total":')
    write_int(out, rollup.prompt_tokens + rollup.completion_tokens)
    out.write(b',"cache_read":')
    write_int(out, rollup.cache_read_tokens)
    out.write(b',"cache_write":')
    write_int(out, rollup.cache_write_tokens)
    out.write(b',"reasoning":')
    write_int(out, rollup.reasoning_tokens)
    out.write(b',"embedding":')
    write_int(out, rollup.embedding_tokens)
    out.write(b'},"cost_usd":"')
    out.write(cost_text(counts.cost_whole_usd, counts.cost_rest_nano).encode())
    out.write(b'","cost_source":"')
    out.write(cost_source(counts.reported_costs, counts.priced_costs).encode())
    out.write(b'"}')


def _write_time(out: BytesWriter, time_us: i64) -> None:
    if time_us == 0:
        out.write(b"null")
    else:
        out.append(u8(34))
        out.write(rfc3339(time_us).encode())
        out.append(u8(34))
