"""The figures as Markdown: a row per measure, a column per size of records and per core."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """What was measured for one size of records with one core."""

    core: str
    record_spans: int
    figures: Mapping[str, float]


class _Row(NamedTuple):
    key: str
    label: str
    show: Callable[[float], str]


def _us(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _whole(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ")


def _megabytes(value: float) -> str:
    return f"{value / 1e6:.0f}"


def _seconds(value: float) -> str:
    return f"{value:.2f}"


_ROWS: Final = (
    _Row("yardstick", "official parser, parsing alone (yardstick), µs/span", _us),
    _Row("fetch", "fetch, µs/span", _us),
    _Row("decode", "decode, µs/span", _us),
    _Row("fold", "fold, µs/span", _us),
    _Row("fold: merge and encode", "· merge and encode", _us),
    _Row("fold: rollups and puts", "· rollups and puts", _us),
    _Row("decode and fold", "decode and fold together, µs/span", _us),
    _Row("trace store", "trace store, client, µs/span", _us),
    _Row("trace store: Redis", "trace store, Redis, µs/span", _us),
    _Row("session put", "session put, client, µs/span", _us),
    _Row("session put: Redis", "session put, Redis, µs/span", _us),
    _Row("close", "close, client, µs/session", _us),
    _Row("close: Redis", "close, Redis, µs/session", _us),
    _Row("closes per second", "close alone, sessions/s", _whole),
    _Row("worker", "**whole worker, µs/span**", _us),
    _Row("worker: Redis", "**its Redis, µs/span**", _us),
    _Row("worker: spans per second", "spans/s, wall clock", _whole),
    _Row("worker: spans per second and core", "spans/s and core of the worker's CPU", _whole),
    _Row("worker: close", "closing a backlog, worker, µs/session", _us),
    _Row("worker: close, Redis", "closing a backlog, Redis, µs/session", _us),
    _Row("worker: closes per second", "closing a backlog, sessions/s, wall clock", _whole),
    _Row("due to received: median", "due → received, caught up, median, s", _seconds),
    _Row("due to received: 99 %", "due → received, caught up, 99 %, s", _seconds),
    _Row("worker: RSS at its peak", "worker RSS at its peak, MB", _megabytes),
    _Row("bytes per span", "Redis, bytes/span", _whole),
    _Row("bytes per trace", "Redis, bytes/trace (trace state)", _whole),
    _Row("bytes per session, without its traces", "Redis, bytes/session without trace states", _whole),
    _Row("bytes per session, with its traces", "Redis, bytes/session with all of it", _whole),
    _Row("bytes of one session's keys", "`MEMORY USAGE` of one session's keys, with trace states", _whole),
)


def table(columns: Sequence[Column], names: str) -> list[str]:
    """One Markdown table; `names` are the servers it was measured on."""
    head = [f"{one.record_spans} spans, {one.core}" for one in columns]
    lines = [f"On {names}.", "", f"| | {' | '.join(head)} |", f"|---|{'---:|' * len(columns)}"]
    for row in _ROWS:
        cells = [row.show(one.figures[row.key]) if row.key in one.figures else "" for one in columns]
        if any(cells):
            lines.append(f"| {row.label} | {' | '.join(cells)} |")
    return lines


def memory_lines(core: str, figures: Mapping[str, float]) -> list[str]:
    """What many open sessions cost."""
    text = (
        f"{_whole(figures['open sessions'])} open sessions of one trace of one span, {core}: "
        f"worker RSS {_megabytes(figures['RSS now'])} MB, {_megabytes(figures['RSS at its peak'])} MB at its peak; "
        f"Redis {_whole(figures['Redis: bytes per session'])} bytes a session; "
        f"per session {_us(figures['worker: per session'])} µs of the worker's CPU and "
        f"{_us(figures['worker: Redis per session'])} µs of Redis's; {_whole(figures['sessions per second'])} "
        "sessions/s."
    )
    return [text]
