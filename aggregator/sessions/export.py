"""Sessions as files: JSON lines, CSV, Parquet."""

from __future__ import annotations

import csv
from collections.abc import AsyncIterator
from enum import StrEnum
from typing import IO, Any, Final

from aggregator.client import Session
from aggregator.client.models import time_text
from aggregator.client.wording import ascii_json, harmless
from aggregator.core.errors import ConfigurationError

_AT_ONCE: Final = 5000
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")
"""How a cell begins that a spreadsheet would run."""

TOKENS: Final = ("prompt", "completion", "total", "cache_read", "cache_write", "reasoning", "embedding")
TIMES: Final = ("opened_at", "started_at", "ended_at", "last_activity_at")
TEXTS: Final = ("project", "session_id", "status", "user_id", "cost_source")
COLUMNS: Final = (
    "project", "session_id", "status", "revision", "user_id", "opened_at", "started_at", "ended_at",
    "last_activity_at", "duration_ms", "trace_count", "span_count", "llm_span_count", "error_count",
    "error_trace_count", *(f"{name}_tokens" for name in TOKENS), "cost_usd", "cost_source", "unpriced_calls",
    "truncated",
)  # fmt: skip


class Format(StrEnum):
    """What is written."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


async def export(sessions: AsyncIterator[Session], form: Format, out: IO[bytes]) -> int:
    """Write them all; gives how many there were."""
    if form is Format.PARQUET:
        return await _parquet(sessions, out)
    count = 0
    if form is Format.CSV:
        out.write(csv_line(COLUMNS))
    async for session in sessions:
        count += 1
        if form is Format.CSV:
            out.write(csv_line([_cell(value) for value in flat(session).values()]))
        else:
            out.write(ascii_json(session).encode() + b"\n")
    return count


def flat(session: Session) -> dict[str, Any]:
    """A session as one row, in the order of `COLUMNS`."""
    fields = dict(session)
    tokens = fields.pop("tokens")
    fields |= {f"{name}_tokens": getattr(tokens, name) for name in TOKENS}
    return {name: fields[name] for name in COLUMNS}


class _Line:
    """Takes what csv writes."""

    text = ""

    def write(self, text: str) -> None:
        self.text = text


def csv_line(cells: Any) -> bytes:
    """One line as RFC 4180 has it."""
    line = _Line()
    csv.writer(line).writerow(cells)
    return line.text.encode()


def _cell(value: Any) -> object:
    """Times and costs as in JSON; texts so that neither a spreadsheet nor a terminal does what they say."""
    if isinstance(value, str):
        text = harmless(value)
        return f"'{text}" if value.startswith(_FORMULA) else text
    if isinstance(value, bool):
        return "true" if value else "false"
    return time_text(value) if hasattr(value, "tzinfo") else value


async def _parquet(sessions: AsyncIterator[Session], out: IO[bytes]) -> int:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigurationError(
            "Parquet needs pyarrow: pip install 'session-aggregator[parquet]'; or take --format jsonl or csv"
        ) from error
    kinds = {name: pa.string() for name in TEXTS} | {name: pa.timestamp("us", tz="UTC") for name in TIMES}
    kinds |= {"duration_ms": pa.float64(), "cost_usd": pa.decimal128(38, 9), "truncated": pa.bool_()}
    schema = pa.schema([(name, kinds.get(name, pa.int64())) for name in COLUMNS])
    count = 0
    rows: list[dict[str, Any]] = []
    with parquet.ParquetWriter(out, schema) as writer:

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            rows.clear()

        async for session in sessions:
            rows.append(flat(session))
            count += 1
            if len(rows) == _AT_ONCE:
                flush()
        flush()
    return count
