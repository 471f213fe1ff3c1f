"""The rows of an interop run: printed as a table, kept in `results.json`, and shown in the README from there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Self

from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from tests.interop import environments
from tests.interop.catalogue import Producer
from tests.interop.comparing import Cost, billed_nano, in_summary
from tests.interop.differences import REPORTED_COST, WITHOUT_DETAILS
from tests.interop.running import Truth
from tests.oracle import spans_by_trace

FILE: Final = Path(__file__).parent / "results.json"

_COUNTS: Final = ("sessions", "traces", "spans", "billed", "ours", "plain sum")
_DETAILS: Final = {"cache_read": "cached", "cache_write": "cached", "reasoning": "reasoning"}
_NANO: Final = Decimal("1e-9")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One producer; tokens are prompt and completion of all sessions, `plain_sum` that over every span as read.

    `cost` says what came of holding the cost of each session against the bill.
    """

    name: str
    package: str
    version: str
    sessions: int
    traces: int
    spans: int
    billed: int
    ours: int
    plain_sum: int
    billed_usd: str
    ours_usd: str
    cost: str
    reasons: list[str]
    cost_reasons: list[str]

    @classmethod
    def of(
        cls, producer: Producer, truth: Truth, records: Iterable[TracesData], summaries: Sequence[Mapping[str, Any]]
    ) -> Self:
        """The row of one run."""
        traces = spans_by_trace([(record, 2**52) for record in records])
        spans = [span for trace in traces.values() for span in trace]
        billed, shown = billed_nano(truth), {one["session_id"]: in_summary(one).cost for one in summaries}
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
            billed_usd=_usd(billed.values()),
            ours_usd=_usd(one.nano_usd for one in shown.values()),
            cost=cost_cell(producer, billed, shown),
            reasons=[one.told for one in producer.differences if one.kind != REPORTED_COST],
            cost_reasons=[one.told for one in producer.differences if one.kind == REPORTED_COST],
        )


def _usd(nano: Iterable[int]) -> str:
    return str(Decimal(sum(nano)).scaleb(-9).quantize(_NANO))


def cost_cell(producer: Producer, billed: Mapping[str, int], shown: Mapping[str, Cost]) -> str:
    """Whether the costs that are shown are what the APIs charged, are what the producer reports, or why they differ."""
    sources = {cost.source for cost in shown.values()} - {"none"}
    if not sources:
        return "none"
    if sources == {"reported"}:
        return "reported"
    same = all(cost.nano_usd == billed.get(one, 0) for one, cost in shown.items() if cost.source in ("priced", "none"))
    found = "as billed" if same else f"as billed, but {_why_it_differs(producer)}"
    return found if sources == {"priced"} else f"{found}; where it is told, reported"


def _why_it_differs(producer: Producer) -> str:
    kinds = {one.kind for one in producer.differences}
    lacking = {*producer.lacks, *(name for kind in kinds for name in WITHOUT_DETAILS.get(kind, ()))}
    named = " and ".join(dict.fromkeys(word for name, word in _DETAILS.items() if name in lacking))
    why = [f"{named} tokens at the plain price"] if named else []
    if kinds - {REPORTED_COST, *WITHOUT_DETAILS, "no_errors"}:
        why.append("see remarks")
    return "; ".join(why)


def table(rows: Sequence[Row]) -> list[str]:
    """The table that `make interop` prints."""
    header = ("producer", "version", *_COUNTS, "billed USD", "ours USD", "cost", "remarks")
    cells: list[tuple[str, ...]] = [header]
    for row in rows:
        counts = (row.sessions, row.traces, row.spans, row.billed, row.ours, row.plain_sum)
        costs = (row.billed_usd, row.ours_usd, row.cost)
        remarks = "; ".join((*row.reasons, *row.cost_reasons))
        cells.append((row.name, row.version, *(f"{count:,}" for count in counts), *costs, remarks))
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    return [
        "  ".join(
            cell.rjust(width) if 2 <= column < 4 + len(_COUNTS) else cell.ljust(width)
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
