"""What the tools answer with, and how a session's figures are shared out and compared."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from aggregator.assistants.arguments import ExplainArguments, TraceOrder
from aggregator.client import Medians, ModelTotals, Session, SessionDetail, Totals, Trace
from aggregator.client.models import Count, Milliseconds, Time, Usd
from aggregator.client.trace_links import TraceLinks

_MOST_MODELS: Final = 20
_MOST_FAILED: Final = 10
_LONGEST_NAME: Final = 200  # of traces and models, which nobody asks by; ids are never cut

Share = Annotated[float, Field(description="Of the whole session, from 0 to 1; null where the whole is zero")] | None
Times = Annotated[float, Field(description="1 is as much, 2 is twice as much; null where that would divide by zero")]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)

    as_of: Annotated[Time, Field(description="The time now")]


class Found(_Answer):
    """Some sessions in the order that was asked for."""

    sessions: list[Session]
    next: Annotated[str, Field(description="The cursor of the page behind this one; null: there is none")] | None
    matching: Annotated[int, Field(description="How many there are in all; null: not counted")] | None


class TraceShare(Trace):
    """A trace and its part in its session."""

    share_of_cost: Share
    share_of_tokens: Share
    link: Annotated[str, Field(description="Where the trace can be looked at in detail")] | None


class ModelShare(ModelTotals):
    """A model and its part in a session."""

    model: str
    share_of_cost: Share
    share_of_tokens: Share


class Ratios(BaseModel):
    """Figures of a session as multiples of others."""

    duration: Times | None
    traces: Times | None
    tokens: Times | None
    cost: Times | None


class AgainstProject(BaseModel):
    """A session beside all of its project."""

    sessions: Count
    median: Medians
    times_median: Ratios


class Explanation(_Answer):
    """Where the tokens, cost, errors and time of a session went."""

    session: Session
    against_project: AgainstProject | None
    busy_ms: Annotated[Milliseconds, Field(description="At least one trace was running; the rest is waiting")]
    models: Annotated[list[ModelShare], Field(description="The most expensive first")]
    traces: list[TraceShare]
    traces_by: TraceOrder
    next_offset: Annotated[int, Field(description="Where further traces begin; null: there are none")] | None
    failed_traces: Annotated[list[TraceShare], Field(description="Those with errors, the latest first; ten at most")]


class Compared(BaseModel):
    """One of the sessions that are compared."""

    session: Session
    models: list[ModelShare]
    tokens_per_trace: float | None
    cost_per_trace_usd: Usd | None
    times_first: Ratios


class Comparison(_Answer):
    """Sessions beside each other."""

    sessions: list[Compared]


class ProjectTotals(_Answer):
    """Projects and what their sessions come to; distributions only where one project was asked for."""

    projects: list[Totals]
    more_projects: Annotated[list[str], Field(description="Names of further projects")]


def explanation(
    session: SessionDetail, totals: Totals, wanted: ExplainArguments, links: TraceLinks, now: datetime
) -> Explanation:
    """From a session and the totals of its project."""
    traces = _ordered(session.traces, wanted.traces_by)
    end = wanted.offset + wanted.limit
    failed = [trace for trace in reversed(session.traces) if trace.error_count][:_MOST_FAILED]
    median = totals.median
    return Explanation(
        as_of=now,
        session=session,
        against_project=None if median is None else AgainstProject(
            sessions=totals.sessions,
            median=median,
            times_median=_times(session, median.duration_ms, median.traces, median.tokens, median.cost_usd),
        ),
        busy_ms=busy_ms(session.traces),
        models=model_shares(session),
        traces=[_trace_share(session, trace, links) for trace in traces[wanted.offset : end]],
        traces_by=wanted.traces_by,
        next_offset=end if end < len(traces) else None,
        failed_traces=[_trace_share(session, trace, links) for trace in failed],
    )  # fmt: skip


def comparison(sessions: Sequence[SessionDetail], now: datetime) -> Comparison:
    """Each beside the first."""
    first = sessions[0]
    return Comparison(
        as_of=now,
        sessions=[
            Compared(
                session=one,
                models=model_shares(one),
                tokens_per_trace=round(one.tokens.total / one.trace_count, 1) if one.trace_count else None,
                cost_per_trace_usd=one.cost_usd / one.trace_count if one.trace_count else None,
                times_first=_times(one, first.duration_ms, first.trace_count, first.tokens.total, first.cost_usd),
            )
            for one in sessions
        ],
    )


def busy_ms(traces: Sequence[Trace]) -> float:
    """For how long at least one of the traces (in order of their start) was running."""
    busy, until = 0.0, None
    for trace in traces:
        if trace.started_at is None or trace.ended_at is None:
            continue
        start = trace.started_at if until is None else max(trace.started_at, until)
        if trace.ended_at > start:
            busy += (trace.ended_at - start).total_seconds() * 1000
            until = trace.ended_at
    return round(busy, 3)


def model_shares(session: SessionDetail) -> list[ModelShare]:
    """The session's models, the most expensive first."""
    whole_tokens, whole_cost = session.tokens.total, session.cost_usd
    shares = [
        ModelShare(
            model=_cut(name),
            share_of_cost=_ratio(one.cost_usd, whole_cost),
            share_of_tokens=_ratio(one.prompt + one.completion, whole_tokens),
            **one.model_dump(),
        )
        for name, one in session.models.items()
    ]
    return sorted(shares, key=lambda one: (-one.cost_usd, -one.prompt - one.completion, one.model))[:_MOST_MODELS]


def _times(session: Session, duration_ms: float | None, traces: int, tokens: int, cost_usd: Decimal) -> Ratios:
    """Of a session's figures to these."""
    return Ratios(
        duration=_ratio(session.duration_ms, duration_ms),
        traces=_ratio(session.trace_count, traces),
        tokens=_ratio(session.tokens.total, tokens),
        cost=_ratio(session.cost_usd, cost_usd),
    )


def _ordered(traces: Sequence[Trace], by: TraceOrder) -> list[Trace]:
    keys = {
        "cost": lambda trace: trace.cost_usd,
        "tokens": lambda trace: trace.tokens.total,
        "duration": lambda trace: trace.duration_ms or 0.0,
        "errors": lambda trace: trace.error_count,
    }
    return list(traces) if by == "start" else sorted(traces, key=keys[by], reverse=True)  # those alike stay in time


def _trace_share(session: Session, trace: Trace, links: TraceLinks) -> TraceShare:
    return TraceShare(
        **trace.model_dump(exclude={"name"}),
        name=_cut(trace.name),
        share_of_cost=_ratio(trace.cost_usd, session.cost_usd),
        share_of_tokens=_ratio(trace.tokens.total, session.tokens.total),
        link=links.of(session, trace),
    )


def _ratio(part: float | Decimal | None, whole: float | Decimal | None) -> float | None:
    return None if part is None or not whole else round(float(part) / float(whole), 4)


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
