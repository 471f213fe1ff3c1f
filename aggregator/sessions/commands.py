"""The commands under `sessions`.

Exit codes: 0 all is well, 1 there is no such session or a server is away, 2 a setting or an option is wrong, 130 ended
by Ctrl-C.
What goes to a pipe has no colours, no pager and no cut lines; `--json` gives what the HTTP API gives.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer
from pydantic import ValidationError
from rich.console import Console, RenderableType

from aggregator.client import BadCursor, Client, Query, Session, Sort, StatusFilter
from aggregator.client.client import MOST_PER_PAGE
from aggregator.client.trace_links import TraceLinks
from aggregator.client.wording import ascii_json, counted, harmless
from aggregator.sessions.export import Format
from aggregator.sessions.tables import session_page, session_table
from aggregator.settings import Settings

_WIDE: Final = 200  # where nobody looks at the width
_NOT_FOUND: Final = 1

Project = Annotated[str | None, typer.Option("--project", "-p", help="Only this project.")]
User = Annotated[str | None, typer.Option("--user", "-u", help="Only this user's sessions.")]
Status = Annotated[StatusFilter | None, typer.Option("--status", help="Only open or only closed ones.")]
Since = Annotated[datetime | None, typer.Option("--since", help="Ended at this time (UTC) or later.")]
Until = Annotated[datetime | None, typer.Option("--until", help="Ended at this time (UTC) or earlier.")]
Search = Annotated[str | None, typer.Option("--search", "-s", help="Session id or user id begins so.")]
SortBy = Annotated[Sort, typer.Option("--sort", "-o", help="The greatest come first.")]
Ascending = Annotated[bool, typer.Option("--ascending", help="The least first.")]
Json = Annotated[bool, typer.Option("--json", help="JSON, for programs.")]

Run = Callable[[Callable[[Settings], Awaitable[int]]], None]


def sessions_app(run: Run) -> typer.Typer:
    """The group of commands; `run` reads the settings, runs the work and exits with its code."""
    app = typer.Typer(no_args_is_help=True, help="Look at sessions in Redis: find, show, follow, export; erase them.")

    @app.command("ls")
    def ls(
        project: Project = None,
        user: User = None,
        status: Status = None,
        since: Since = None,
        until: Until = None,
        search: Search = None,
        sort: SortBy = Sort.RECENT,
        ascending: Ascending = False,
        limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=MOST_PER_PAGE)] = 50,
        cursor: Annotated[str | None, typer.Option(help="Go on where a page ended.")] = None,
        as_json: Json = False,
    ) -> None:
        """List sessions: the most recent, longest, most expensive or most broken first."""
        query = _query(project, user, status, since, until, search, sort, ascending)
        run(lambda settings: _ls(settings, query, cursor, limit, as_json=as_json))

    @app.command("show")
    def show(
        session_id: Annotated[str, typer.Argument(help="The session's id.")],
        project: Project = None,
        as_json: Json = False,
    ) -> None:
        """Show one session: its figures, its models, and its traces in order."""
        run(lambda settings: _show(settings, session_id, project, as_json=as_json))

    @app.command("top")
    def top(
        project: Project = None,
        user: User = None,
        status: Status = StatusFilter.OPEN,
        sort: SortBy = Sort.COST,
        every: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 2.0,
        count: Annotated[int | None, typer.Option(min=1, help="End after so many looks.")] = None,
        as_json: Json = False,
    ) -> None:
        """Show the leading sessions live, until Ctrl-C."""
        query = _query(project, user, status, None, None, None, sort, False)
        run(lambda settings: _top(settings, query, every, count, as_json=as_json))

    @app.command("tail")
    def tail(
        project: Project = None,
        user: User = None,
        from_beginning: Annotated[bool, typer.Option(help="All that is on the topic, not only what comes.")] = False,
        count: Annotated[int | None, typer.Option(min=1, help="End after so many summaries.")] = None,
        as_json: Json = False,
    ) -> None:
        """Follow the summaries of sessions as they close, until Ctrl-C."""
        run(lambda settings: _tail(settings, project, user, count, from_beginning=from_beginning, as_json=as_json))

    @app.command("export")
    def export(
        form: Annotated[Format, typer.Option("--format", "-f")] = Format.JSONL,
        output: Annotated[Path | None, typer.Option("--output", "-O", help="A file; else standard output.")] = None,
        project: Project = None,
        user: User = None,
        status: Status = None,
        since: Since = None,
        until: Until = None,
        search: Search = None,
        sort: SortBy = Sort.RECENT,
        ascending: Ascending = False,
    ) -> None:
        """Write all sessions that match, as JSON lines, CSV or Parquet."""
        query = _query(project, user, status, since, until, search, sort, ascending)
        run(lambda settings: _export(settings, query, form, output))

    @app.command("erase")
    def erase(
        session_id: Annotated[str | None, typer.Argument(help="The session's id.")] = None,
        project: Project = None,
        user: Annotated[str | None, typer.Option("--user", "-u", help="All sessions that name this user.")] = None,
        hold: Annotated[
            float | None, typer.Option(min=3600, max=315_576_000, help="Refuse late spans for so many seconds.")
        ] = None,
        tombstone: Annotated[bool, typer.Option(help="Tell the consumers of summaries as well.")] = True,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which sessions that would be.")] = False,
        yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
        as_json: Json = False,
    ) -> None:
        """Erase a session, or all of a user, and keep late spans from bringing it back; needs to write to Redis."""
        if (session_id is None) == (user is None):
            raise typer.BadParameter("name either a session or --user")
        from aggregator.sessions.erase import Wanted
        from aggregator.sessions.erase import erase as erase_all

        wanted = Wanted(
            session_id=session_id,
            user=user,
            project=project,
            hold_s=hold,
            tombstone=tombstone,
            dry_run=dry_run,
            yes=yes,
            as_json=as_json,
        )
        run(lambda settings: erase_all(settings, wanted))

    @app.command("reindex")
    def reindex(as_json: Json = False) -> None:
        """Make the indexes anew from the sessions in Redis; workers may go on meanwhile."""
        run(lambda settings: _reindex(settings, as_json=as_json))

    return app


def _query(
    project: str | None,
    user: str | None,
    status: StatusFilter | None,
    since: datetime | None,
    until: datetime | None,
    search: str | None,
    sort: Sort,
    ascending: bool,
) -> Query:
    try:
        return Query(
            project=project,
            user=user,
            status=status,
            since=None if since is None else since.replace(tzinfo=UTC),
            until=None if until is None else until.replace(tzinfo=UTC),
            search=search,
            sort=sort,
            ascending=ascending,
        )
    except ValidationError as error:
        found = error.errors()[0]
        raise typer.BadParameter(f"--{found['loc'][0]}: {found['msg']}") from error


async def _ls(settings: Settings, query: Query, cursor: str | None, limit: int, *, as_json: bool) -> int:
    async with Client.from_settings(settings) as client:
        try:
            page = await client.list(query, cursor=cursor, limit=limit)
        except BadCursor as error:
            raise typer.BadParameter(f"--cursor: {error}") from error
    if as_json:
        typer.echo(ascii_json(page))
        return 0
    if not page.sessions and page.next is None:
        typer.echo(_nothing(query), err=True)
        return 0
    _print(session_table(page.sessions, datetime.now(UTC)))
    if page.next is not None:
        of = f" of {page.matching:,}" if page.matching is not None else ""
        typer.echo(f"{counted(len(page.sessions), 'session')}{of}; go on with --cursor {page.next}", err=True)
    return 0


def _nothing(query: Query) -> str:
    if query == Query(sort=query.sort, ascending=query.ascending):
        return (
            "There are no sessions.  Is a worker running, does AGGREGATOR_REDIS__URL name its Redis, and do spans "
            "carry a session id?  If sessions are there and the indexes are not: session-aggregator sessions reindex"
        )
    return "No session matches; leave out a filter."


async def _show(settings: Settings, session_id: str, project: str | None, *, as_json: bool) -> int:
    async with Client.from_settings(settings) as client:
        projects = [project] if project is not None else await client.projects()
        found = await client.read([(one, session_id) for one in projects])
        there = [one for one, session in zip(projects, found, strict=True) if session is not None]
        session = await client.get(there[0], session_id) if len(there) == 1 else None
    if len(there) > 1:
        names = ", ".join(harmless(one) for one in there)
        typer.echo(f"Several projects have a session with this id; add --project: {names}", err=True)
        return 2
    if session is None:
        typer.echo(
            f"There is no session {harmless(session_id)}: it never was, or it closed longer ago than it is kept.",
            err=True,
        )
        return _NOT_FOUND
    links = TraceLinks(settings.web.trace_url)
    failed = [(trace, link) for trace in session.traces if trace.error_count and (link := links.of(session, trace))]
    if as_json:
        typer.echo(ascii_json(session))
    else:
        _print(session_page(session))
        for trace, link in failed:
            typer.echo(f"{harmless(trace.name)}: {link}")
    return 0


async def _top(settings: Settings, query: Query, every_s: float, count: int | None, *, as_json: bool) -> int:
    from rich.live import Live

    console = Console()
    live = Live(console=console, auto_refresh=False, screen=True) if console.is_terminal and not as_json else None
    looks = 0
    async with Client.from_settings(settings) as client:
        with live or nullcontext():
            while count is None or looks < count:
                if looks:
                    await asyncio.sleep(every_s)
                looks += 1
                page = await client.list(query, limit=max(5, min(100, console.height - 6)))
                if as_json:
                    sys.stdout.write(ascii_json(page) + "\n")
                    sys.stdout.flush()
                    continue
                now = datetime.now(UTC)
                table = session_table(page.sessions, now, title=f"by {query.sort}, {now:%H:%M:%S} UTC")
                if live is not None:
                    live.update(table, refresh=True)
                else:
                    _print(table)
    return 0


async def _tail(
    settings: Settings, project: str | None, user: str | None, count: int | None, *, from_beginning: bool, as_json: bool
) -> int:
    from aggregator.adapters.kafka.security import Security
    from aggregator.sessions.tail import parsed, summaries, summary_line

    kafka, shown = settings.kafka, 0
    documents = summaries(
        ",".join(kafka.bootstrap_servers), kafka.summary_topic, Security.of(kafka), from_beginning=from_beginning
    )
    async for value in documents:
        document = parsed(value)
        if document is None or (project or document["project"]) != document["project"]:
            continue
        if user is not None and document["user_id"] != user:
            continue
        typer.echo(json.dumps(document) if as_json else summary_line(document))  # json.dumps: ASCII alone
        shown += 1
        if shown == count:
            break
    return 0


async def _export(settings: Settings, query: Query, form: Format, output: Path | None) -> int:
    from aggregator.sessions.export import export

    if output is None and form is Format.PARQUET and sys.stdout.isatty():
        raise typer.BadParameter("Parquet is no text; name a file with --output")

    async def sessions() -> AsyncIterator[Session]:
        async with Client.from_settings(settings) as client:
            async for session in client.all(query):
                yield session

    if output is None:
        count = await export(sessions(), form, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    else:
        written = output.with_name(f".{output.name}.partial")
        with written.open("wb") as file:
            count = await export(sessions(), form, file)
        written.replace(output)
    typer.echo(f"{counted(count, 'session')} written", err=True)
    return 0


async def _reindex(settings: Settings, *, as_json: bool) -> int:
    from aggregator.adapters.clock import SystemClock
    from aggregator.adapters.redis.connections import connect_as_set
    from aggregator.adapters.redis.index import RedisSessionIndex
    from aggregator.adapters.redis.keys import Keys
    from aggregator.adapters.redis.reindex import reindex

    redis = settings.redis
    connections = connect_as_set(redis)
    keys = Keys(redis.key_prefix, closing_shards=settings.session.closing_shards)
    index = RedisSessionIndex(connections, keys, retention_ms=round(settings.session.retention_s * 1000))
    try:
        count = await reindex(connections, keys, index, now_ms=SystemClock().now_ms())
    finally:
        await connections.close()
    typer.echo(json.dumps({"sessions": count}) if as_json else f"{counted(count, 'session')} indexed")
    return 0


def _print(what: RenderableType) -> None:
    """On a terminal with colours, and through the pager where it is longer than the screen; else as plain text."""
    console = Console()
    if not console.is_terminal:
        Console(width=_WIDE, no_color=True, file=sys.stdout).print(what)
        return
    if len(console.render_lines(what, pad=False)) < console.height:
        console.print(what)
        return
    os.environ.setdefault("LESS", "-RF")  # colours, and no waiting for a short text
    with console.pager(styles=True):
        console.print(what)
