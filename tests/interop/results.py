"""The rows of an interop run: printed as a table, kept in `results.json`, and shown in the README from there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, Self

from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from tests.interop import environments
from tests.interop.catalogue import Producer
from tests.interop.running import Truth
from tests.oracle import spans_by_trace

FILE: Final = Path(__file__).parent / "results.json"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One producer; tokens are prompt and completion of all sessions, `plain_sum` that over every span as read."""

    name: str
    package: str
    version: str
    sessions: int
    traces: int
    spans: int
    billed: int
    ours: int
    plain_sum: int
    cost: str
    reasons: list[str]

    @classmethod
    def of(
        cls, producer: Producer, truth: Truth, records: Iterable[TracesData], summaries: Sequence[Mapping[str, Any]]
    ) -> Self:
        """The row of one run."""
        traces = spans_by_trace([(record, 2**52) for record in records])
        spans = [span for trace in traces.values() for span in trace]
        charged = [sums for bill in truth.bill.sessions.values() for sums in bill.models.values()]
        return cls(
            name=producer.name,
            package=producer.package,
            version=environments.version_of(producer),
            sessions=len(truth.told),
            traces=len(traces),
            spans=len(spans),
            billed=sum(sums["prompt"] + sums["completion"] for sums in charged),
            ours=sum(summary["tokens"]["total"] for summary in summaries),
            plain_sum=sum(span.usage.prompt + span.usage.completion for span in spans),
            cost=_cost({str(summary["cost_source"]) for summary in summaries}),
            reasons=[f"{difference.session}: {difference.reason}" for difference in producer.differences],
        )


def _cost(sources: set[str]) -> str:
    """One word for the costs of all sessions; those without any usage have none."""
    known = sources - {"none"} or {"none"}
    return known.pop() if len(known) == 1 else "mixed"


def table(rows: Sequence[Row]) -> list[str]:
    """The table that `make interop` prints."""
    header = ("producer", "version", "sessions", "traces", "spans", "billed", "ours", "plain sum", "remarks")
    cells: list[tuple[str, ...]] = [header]
    for row in rows:
        counts = (row.sessions, row.traces, row.spans, row.billed, row.ours, row.plain_sum)
        cells.append((row.name, row.version, *(f"{count:,}" for count in counts), "; ".join(row.reasons)))
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    return [
        "  ".join(
            cell.rjust(width) if 2 <= column <= 7 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]


def load() -> list[Row]:
    """The kept rows, by name."""
    if not FILE.exists():
        return []
    names = {one.name for one in fields(Row)}
    return [Row(**{name: kept[name] for name in names}) for kept in json.loads(FILE.read_text(encoding="utf-8"))]


def keep(rows: Iterable[Row], known: Iterable[str]) -> None:
    """Put these rows in place of older ones, and drop those of producers that are not known any more."""
    merged = {row.name: row for row in (*load(), *rows)}
    kept = [asdict(merged[name]) for name in sorted(set(known) & set(merged))]
    FILE.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
