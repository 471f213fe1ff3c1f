"""Sessions and traces as tables on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from aggregator.client import Session, SessionDetail, Trace
from aggregator.client.wording import ago, dollars, duration, harmless, moment

_BAR: Final = 24  # characters of a trace's time bar
_STATUS_STYLES: Final = {"open": "green", "closing": "yellow", "closed": "dim"}


def session_table(sessions: Sequence[Session], now: datetime, *, title: str | None = None) -> Table:
    """One row a session."""
    table = _table(title)
    for name in ("project", "session", "user"):
        table.add_column(name, overflow="fold")
    table.add_column("status", no_wrap=True)
    for name in ("duration", "traces", "prompt", "compl.", "tokens", "cost", "errors", "ended"):
        table.add_column(name, justify="right", no_wrap=True)
    for session in sessions:
        table.add_row(
            Text(harmless(session.project)),
            Text(harmless(session.session_id), style="bold"),
            Text(harmless(session.user_id or "")),
            Text(session.status, style=_STATUS_STYLES[session.status]),
            duration(session.duration_ms),
            f"{session.trace_count:,}",
            f"{session.tokens.prompt:,}",
            f"{session.tokens.completion:,}",
            f"{session.tokens.total:,}",
            dollars(session.cost_usd),
            _errors(session.error_count),
            ago(session.ended_at, now),
        )
    return table


def session_page(session: SessionDetail) -> RenderableType:
    """Figures, models and traces of one session."""
    return Group(_header(session), Text(), _models(session), Text(), _traces(session))


def _table(title: str | None = None) -> Table:
    return Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")


def _errors(count: int) -> Text:
    return Text(f"✗ {count:,}", style="bold red") if count else Text("0", style="dim")


def _header(session: SessionDetail) -> Table:
    tokens = session.tokens
    rows = [
        ("session", harmless(session.session_id)),
        ("project", harmless(session.project)),
        ("user", harmless(session.user_id or "?")),
        ("status", f"{session.status}, revision {session.revision}" + (", truncated" if session.truncated else "")),
        ("time", f"{moment(session.started_at)} to {moment(session.ended_at)} UTC, {duration(session.duration_ms)}"),
        ("spans", f"{session.span_count:,} in {session.trace_count:,} traces, {session.llm_span_count:,} LLM spans"),
        ("errors", f"{session.error_count:,} in {session.error_trace_count:,} traces"),
        ("tokens", f"{tokens.total:,} ({tokens.prompt:,} prompt, {tokens.completion:,} completion)"),
        ("of them", f"{tokens.cache_read:,} from cache, {tokens.reasoning:,} reasoning"),
        ("embedding", f"{tokens.embedding:,} tokens"),
        ("cost", f"{dollars(session.cost_usd)} ({session.cost_source})" + _unpriced(session)),
    ]
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(value, style="red" if name == "errors" and session.error_count else ""))
    return table


def _unpriced(session: SessionDetail) -> str:
    return f", {session.unpriced_calls:,} calls without a price" if session.unpriced_calls else ""


def _models(session: SessionDetail) -> Table:
    table = _table()
    table.add_column("model", overflow="fold")
    for name in ("calls", "prompt", "compl.", "embedding", "cost"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, model in session.models.items():
        table.add_row(
            Text(harmless(name)),
            f"{model.calls:,}",
            f"{model.prompt:,}",
            f"{model.completion:,}",
            f"{model.embedding:,}",
            dollars(model.cost_usd),
        )
    return table


def _traces(session: SessionDetail) -> Table:
    table = _table()
    table.add_column("trace", overflow="fold")
    table.add_column("when", no_wrap=True)
    for name in ("duration", "spans", "tokens", "cost", "errors"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("id", no_wrap=True)
    for trace in session.traces:
        table.add_row(
            Text(harmless(trace.name), style="red" if trace.error_count else ""),
            Text(time_bar(trace, session), style="red" if trace.error_count else "cyan"),
            duration(trace.duration_ms),
            f"{trace.span_count:,}",
            f"{trace.tokens.total:,}",
            dollars(trace.cost_usd),
            _errors(trace.error_count),
            Text(trace.trace_id, style="dim"),
        )
    return table


def time_bar(trace: Trace, session: Session, width: int = _BAR) -> str:
    """Where in the session's time the trace lies; a short one still has one mark."""
    if trace.started_at is None or session.started_at is None or not session.duration_ms:
        return "·" * width if trace.started_at is None else "█" * width
    whole = session.duration_ms
    start_ms = (trace.started_at - session.started_at).total_seconds() * 1000
    first = min(width - 1, int(start_ms / whole * width))
    last = min(width, max(first + 1, round((start_ms + (trace.duration_ms or 0)) / whole * width)))
    return "·" * first + "█" * (last - first) + "·" * (width - last)
