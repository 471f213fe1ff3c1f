"""The pages for people: sessions, one session, one project, and signing in with a token."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from aggregator.client import BadCursor, Client, Session, SessionDetail, Sort, Totals, Trace
from aggregator.client.trace_links import TraceLinks
from aggregator.client.wording import ago, counted, dollars, duration, harmless, moment
from aggregator.web.access import COOKIE, Access
from aggregator.web.api import viewer_of
from aggregator.web.parameters import ListParameters, ProjectParameters, SessionParameters, read
from aggregator.web.problems import Problem

_TEMPLATES: Final = Path(__file__).with_name("templates")
_LOGIN_MOST_BYTES: Final = 4096
_COOKIE_S: Final = 12 * 3600
_AXIS: Final = 1000.0  # units of the drawing in which the bars of traces stand
_LEAST_BAR: Final = 4.0


class Pages:
    """The routes, on one client."""

    def __init__(self, client: Client, access: Access, links: TraceLinks) -> None:
        self._client = client
        self._access = access
        self._links = links
        self._templates = Environment(
            loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
            lstrip_blocks=True,
        )  # fmt: skip
        self._templates.filters |= {
            "ago": ago,
            "counted": counted,
            "dollars": dollars,
            "duration": duration,
            "harmless": harmless,
            "moment": moment,
            "number": lambda number: f"{number:,}",
        }
        self._templates.globals |= {"link": link, "session_link": session_link}

    def routes(self) -> list[Route]:
        """All pages."""
        return [
            Route("/", self.sessions),
            Route("/session", self.session),
            Route("/project", self.project),
            Route("/project/totals", self.totals),
            Route("/login", self.login, methods=["GET", "POST"]),
            Route("/logout", self.logout, methods=["POST"]),
        ]

    async def sessions(self, request: Request) -> Response:
        """The list, as the address says."""
        viewer = viewer_of(request)
        wanted = read(ListParameters, request.query_params, viewer, form=True)
        projects = [project for project in await self._client.projects() if viewer.may_see(project)]
        try:
            page = await self._client.list(wanted.query(viewer), cursor=wanted.cursor, limit=wanted.limit)
        except BadCursor:
            return RedirectResponse(link("/", wanted, cursor=None), status_code=303)
        return self._page(
            "sessions.html", request, wanted=wanted, page=page, projects=projects, sorts=list(Sort), now=_now()
        )

    async def session(self, request: Request) -> Response:
        """One session and its traces on a common time axis."""
        wanted = read(SessionParameters, request.query_params, viewer_of(request), form=True)
        session = await self._client.get(wanted.project, wanted.id)
        if session is None:
            raise Problem(404, "There is no such session: it never was, or it closed longer ago than it is kept.")
        rows = [(trace, _bar(session, trace), self._links.of(session, trace)) for trace in session.traces]
        return self._page("session.html", request, session=session, rows=rows, now=_now())

    async def project(self, request: Request) -> Response:
        """A project's page; its totals, which take longer to read, are loaded by it."""
        wanted = read(ProjectParameters, request.query_params, viewer_of(request), form=True)
        return self._page("project.html", request, wanted=wanted, totals=None, dearest=(), charts={}, now=_now())

    async def totals(self, request: Request) -> Response:
        """The same page with its totals."""
        viewer = viewer_of(request)
        wanted = read(ProjectParameters, request.query_params, viewer, form=True)
        totals = await self._client.totals(wanted.project, since=wanted.since, until=wanted.until)
        listed = ListParameters(
            project=wanted.project, since=wanted.since, until=wanted.until, sort=Sort.COST, limit=10
        )
        dearest = (await self._client.list(listed.query(viewer), limit=10)).sessions
        return self._page(
            "project.html", request, wanted=wanted, totals=totals, dearest=dearest, charts=_charts(totals), now=_now()
        )

    async def login(self, request: Request) -> Response:
        """Take a token into a cookie that no script can read."""
        if request.method == "GET":
            return self._page("login.html", request, wrong=False)
        size = request.headers.get("content-length", "")
        if not size.isdigit() or int(size) > _LOGIN_MOST_BYTES:
            raise Problem(413, "The form is too large.")
        form = (await request.body()).decode(errors="replace")
        token = parse_qs(form).get("token", [""])[0].strip()
        if self._access.bearer(token) is None:
            return self._page("login.html", request, status=401, wrong=True)
        answer = RedirectResponse("/", status_code=303)
        answer.set_cookie(
            COOKIE, token, max_age=_COOKIE_S, httponly=True, samesite="strict", secure=request.url.scheme == "https"
        )
        return answer

    async def logout(self, _request: Request) -> Response:
        """Forget the token."""
        answer = RedirectResponse("/login", status_code=303)
        answer.delete_cookie(COOKIE)
        return answer

    def problem(self, request: Request, status: int, detail: str) -> Response:
        """A page that says what is wrong."""
        return self._page("problem.html", request, status=status, detail=detail)

    def _page(self, name: str, request: Request, *, status: int = 200, **values: Any) -> Response:
        viewer = getattr(request.state, "viewer", None)
        text = self._templates.get_template(name).render(
            here=request.url.path, address=str(request.url.path) + _query(request), viewer=viewer,
            signed_in=viewer is not None and self._access.takes_tokens and COOKIE in request.cookies, status=status,
            **values,
        )  # fmt: skip
        return HTMLResponse(text, status_code=status)


def link(path: str, wanted: ListParameters | ProjectParameters | None = None, **changes: object) -> str:
    """An address with the parameters of `wanted`, some of them changed; None leaves one out."""
    values = {} if wanted is None else wanted.model_dump(mode="json", exclude_defaults=True)
    values |= changes
    given = {name: str(value) for name, value in values.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def session_link(session: Session) -> str:
    """The page of a session."""
    return f"/session?{urlencode({'project': session.project, 'id': session.session_id})}"


def _query(request: Request) -> str:
    return f"?{request.url.query}" if request.url.query else ""


def _now() -> datetime:
    return datetime.now(UTC)


def _bar(session: SessionDetail, trace: Trace) -> Mapping[str, str] | None:
    """Where a trace lies on the axis of its session; None where its time is not known."""
    if trace.started_at is None or session.started_at is None:
        return None
    whole_ms = session.duration_ms or 1.0
    start = (trace.started_at - session.started_at).total_seconds() * 1000 / whole_ms * _AXIS
    width = max(_LEAST_BAR, (trace.duration_ms or 0.0) / whole_ms * _AXIS)
    start = min(max(start, 0.0), _AXIS - _LEAST_BAR)
    return {"x": f"{start:.1f}", "width": f"{min(width, _AXIS - start):.1f}"}


def _edge(ms: float) -> str:
    """A round duration, short enough for a chart."""
    unit, size = next(((unit, size) for unit, size in (("h", 3.6e6), ("m", 6e4)) if ms >= size), ("s", 1e3))
    return f"{ms / size:g} {unit}"


def _charts(totals: Totals) -> dict[str, Any]:
    """What app.js draws."""
    times = [bucket.start.timestamp() for bucket in totals.over_time]
    labels = [
        f"≥ {_edge(bucket.from_ms)}" if bucket.to_ms is None else f"< {_edge(bucket.to_ms)}"
        for bucket in totals.durations
    ]
    step_s = totals.step_s

    def over_time(label: str, values: list[float]) -> dict[str, Any]:
        return {"kind": "time", "step": step_s, "label": label, "x": times, "y": values}

    return {
        "tokens": over_time("tokens", [bucket.tokens for bucket in totals.over_time]),
        "cost": over_time("US$", [float(bucket.cost_usd) for bucket in totals.over_time]),
        "durations": {
            "kind": "steps",
            "label": "sessions",
            "labels": labels,
            "x": list(range(len(labels))),
            "y": [bucket.sessions for bucket in totals.durations],
        },
    }
