"""What each tool takes."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from aggregator.web.parameters import ListParameters, Moment, Name, Parameters

MOST_SESSIONS: Final = 50
MOST_TRACES: Final = 50
MOST_COMPARED: Final = 10

TraceOrder = Literal["cost", "tokens", "duration", "errors", "start"]

_PROJECT: Final = "The session's project; needed only where several projects have a session of this id"


class FindArguments(ListParameters):
    """Which sessions, in which order, and how many."""

    limit: Annotated[int, Field(ge=1, le=MOST_SESSIONS, description="Sessions of one page")] = 10


class SessionArguments(Parameters):
    """One session."""

    session_id: Annotated[Name, Field(description="Exactly as find_sessions tells it")]
    project: Annotated[Name, Field(description=_PROJECT)] | None = None


class ExplainArguments(SessionArguments):
    """One session, and which of its traces to show."""

    traces_by: Annotated[
        TraceOrder, Field(description="Which traces to show first; `start` is their order in time")
    ] = "cost"
    limit: Annotated[int, Field(ge=1, le=MOST_TRACES, description="Traces to show")] = 10
    offset: Annotated[int, Field(ge=0, le=1_000_000, description="Traces to leave out first: `next_offset`")] = 0


class CompareArguments(Parameters):
    """Some sessions."""

    sessions: Annotated[
        list[SessionArguments],
        Field(min_length=2, max_length=MOST_COMPARED, description="The others are told relative to the first"),
    ]


class TotalsArguments(Parameters):
    """One project or all, and which of their sessions."""

    project: Annotated[Name, Field(description="Without it, each project in short")] | None = None
    since: Annotated[Moment, Field(description="Ended then or later")] | None = None
    until: Annotated[Moment, Field(description="Ended then or earlier")] | None = None
