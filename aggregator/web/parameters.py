"""What the query string of a request asks for: for pages and API alike."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from starlette.datastructures import QueryParams

from aggregator.client import Query, Sort, StatusFilter
from aggregator.web.access import Viewer
from aggregator.web.problems import Problem

MOST_PER_PAGE: Final = 200
_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)


def _in_utc(time: datetime) -> datetime:
    """Nothing ends earlier or later than these two, which can be told in any zone."""
    return min(max(time if time.tzinfo else time.replace(tzinfo=UTC), _EARLIEST), _LATEST)


def _text(value: str) -> str:
    """What is no Unicode can't be in Redis either."""
    value.encode()
    return value


def _no_number(value: object) -> object:
    if isinstance(value, str) and value.strip("+-.eE0123456789_") == "":
        raise ValueError("must be RFC 3339, as in 2026-11-22T10:00:00Z")
    return value


Name = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_text)]
Moment = Annotated[datetime, BeforeValidator(_no_number), AfterValidator(_in_utc)]


class Parameters(BaseModel):
    """Those of one request; what they do not name is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Filter(Parameters):
    """Which sessions."""

    project: Annotated[Name, Field(description="Only this project")] | None = None
    user: Annotated[Name, Field(description="Only this user's sessions")] | None = None
    status: Annotated[StatusFilter, Field(description="Only open or only closed ones")] | None = None
    since: Annotated[Moment, Field(description="Ended then or later")] | None = None
    until: Annotated[Moment, Field(description="Ended then or earlier")] | None = None
    search: Annotated[Name, Field(description="How the session id or the user id begins")] | None = None


class ListParameters(Filter):
    """Which sessions, in which order, and which of them."""

    sort: Annotated[Sort, Field(description="By which of their figures")] = Sort.RECENT
    order: Annotated[Literal["desc", "asc"], Field(description="The greatest or the least first")] = "desc"
    cursor: Annotated[str, Field(min_length=1, max_length=4000, description="`next` of the page before")] | None = None
    limit: Annotated[int, Field(ge=1, le=MOST_PER_PAGE, description="Sessions of one page")] = 50

    def query(self, viewer: Viewer) -> Query:
        """As the client takes it, within what the viewer may see."""
        return query_of(self, viewer, sort=self.sort, ascending=self.order == "asc")


class ChangeParameters(Filter):
    """Whose changes, and since when."""

    position: Annotated[int, Field(ge=0, le=2**53, description="From an earlier event")] | None = None


class SessionParameters(Parameters):
    """One session."""

    project: Name
    id: Annotated[str, Field(min_length=1, max_length=2048), AfterValidator(_text)]


class ProjectParameters(Parameters):
    """One project, and which of its sessions."""

    project: Name
    since: Moment | None = None
    until: Moment | None = None


class NoParameters(Parameters):
    """None at all."""


P = TypeVar("P", bound=Parameters)


def read(kind: type[P], given: QueryParams, viewer: Viewer, *, form: bool = False) -> P:
    """The parameters of a request; raises `Problem` with what is wrong with them.

    A `form` also sends its fields that were left empty.
    """
    values: dict[str, Any] = {}
    for name, value in given.multi_items():
        if name in values:
            raise Problem(400, f"{name}: is given twice; give it once")
        if value or not form:
            values[name] = value
    return checked(kind, values, viewer)


def checked(kind: type[P], values: Mapping[str, Any], viewer: Viewer) -> P:
    """These parameters; raises `Problem` with what is wrong with them."""
    try:
        parameters = kind.model_validate(values)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)[0]
        text = found["msg"].removeprefix("Value error, ")
        raise Problem(400, f"{'.'.join(map(str, found['loc']))}: {text[0].lower()}{text[1:]}") from error
    except UnicodeEncodeError as error:
        raise Problem(400, "a parameter is not valid UTF-8") from error
    project = getattr(parameters, "project", None)
    if project is not None and not viewer.may_see(project):
        raise Problem(403, "this token may not see the project; ask for one that may")
    return parameters


def query_of(wanted: Filter, viewer: Viewer, *, sort: Sort = Sort.RECENT, ascending: bool = False) -> Query:
    """The client's query of a filter."""
    return Query(
        project=wanted.project,
        user=wanted.user,
        status=wanted.status,
        since=wanted.since,
        until=wanted.until,
        search=wanted.search,
        sort=sort,
        ascending=ascending,
        among=viewer.projects,
    )
