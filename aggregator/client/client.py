"""The client: a few verbs on sessions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from types import TracebackType
from typing import Final, Self, TypeVar

from aggregator.adapters.redis.access import Access
from aggregator.adapters.redis.connections import SOCKET_TIMEOUT_S, connect
from aggregator.adapters.redis.keys import DEFAULT_PREFIX, Keys
from aggregator.adapters.redis.listing import Between, RedisListing
from aggregator.client.models import Changes, Page, Session, SessionDetail, Totals
from aggregator.client.pages import Pages, projects_of
from aggregator.client.query import Query
from aggregator.client.totals import ProjectTotals
from aggregator.client.walks import Walks
from aggregator.core.errors import CorruptState, StoreUnavailable
from aggregator.core.model import SessionRef
from aggregator.ports import IndexOrder
from aggregator.settings import Settings

MOST_PER_PAGE: Final = 500
_OVERLAP_MS: Final = 2000  # the clocks of workers that write the indexes differ, and so do their ways to Redis
_MOST_CHANGES: Final = 1000

_T = TypeVar("_T")


class Client:
    """Reads sessions; safe to use from many tasks of one event loop at once.

    Raises `StoreUnavailable` while Redis is away (`StoreRefused` where it refuses us), `BadCursor` for a cursor of
    another query.
    """

    def __init__(
        self,
        url: str,
        *,
        cluster: bool = False,
        key_prefix: str = DEFAULT_PREFIX,
        closing_shards: int = 64,
        timeout_s: float = SOCKET_TIMEOUT_S,
        access: Access | None = None,
    ) -> None:
        """Nothing is connected yet; `key_prefix` and `closing_shards` are those of the workers.

        `access` is a log-in and TLS beside those of the URL.
        """
        self._listing = RedisListing(
            connect(url, cluster=cluster, socket_timeout_s=timeout_s, access=access),
            Keys(key_prefix, closing_shards=closing_shards),
        )
        self._pages = Pages(self._listing, Walks())
        self._totals = ProjectTotals(self._listing)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """With what the worker's own settings say."""
        return cls(
            settings.redis.url.get_secret_value(),
            cluster=settings.redis.cluster,
            key_prefix=settings.redis.key_prefix,
            closing_shards=settings.session.closing_shards,
            timeout_s=settings.redis.timeout_s,
            access=Access.of(settings.redis),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; doing it twice is harmless."""
        await self._listing.close()

    async def projects(self) -> list[str]:
        """The projects that have sessions, by name."""
        return await _twice(self._listing.projects)

    async def get(self, project: str, session_id: str) -> SessionDetail | None:
        """One session with its traces in order and its models; None where there is none."""
        ref = SessionRef(project, session_id)

        async def read() -> SessionDetail | None:
            (fields,) = await self._listing.hashes([ref])
            if fields is None:
                return None
            traces, models = await self._listing.details(ref)
            try:
                return SessionDetail.of(ref, fields, traces, models)
            except (ValueError, LookupError, TypeError) as error:
                reason = str(error).partition("\n")[0]
                raise CorruptState(f"the session {project}/{session_id} can't be read: {reason}") from error

        return await _twice(read)

    async def read(self, refs: Sequence[tuple[str, str]]) -> list[Session | None]:
        """These sessions (project, id), without their traces; None where there is none."""
        return await _twice(lambda: self._pages.read([SessionRef(*ref) for ref in refs]))

    async def list(self, query: Query | None = None, *, cursor: str | None = None, limit: int = 50) -> Page:
        """A page of sessions; `cursor` is the `next` of the page before it, of the same query.

        Sessions that are there all the while are on exactly one page, whatever happens to them meanwhile, as long as
        this client remembers the walk; one that has come since may or may not be shown.
        """
        if not 1 <= limit <= MOST_PER_PAGE:
            raise ValueError(f"limit is {limit}; it must be from 1 to {MOST_PER_PAGE}")
        return await _twice(lambda: self._pages.page(query or Query(), cursor, limit))

    async def all(self, query: Query | None = None) -> AsyncIterator[Session]:
        """Every session that matches, page by page."""
        cursor: str | None = None
        while True:
            page = await self.list(query, cursor=cursor, limit=MOST_PER_PAGE)
            for session in page.sessions:
                yield session
            cursor = page.next
            if cursor is None:
                return

    async def changes(self, query: Query | None = None, *, position: int | None = None) -> Changes:
        """The sessions that match and have changed since `position`, the earliest change first; now without one.

        A session may come again although nothing more has happened: clocks differ, so some time is told twice.
        """
        return await _twice(lambda: self._changes(query or Query(), position))

    async def _changes(self, query: Query, position: int | None) -> Changes:
        projects = await projects_of(query, self._listing)
        sets = self._listing.sorted_sets(projects, IndexOrder.CHANGED)
        if position is None:
            newest = await self._listing.scored(sets, descending=True, most=1)
            return Changes(sessions=[], position=int(max((one.score for one in newest), default=0)))
        since = Between(max(0, position - _OVERLAP_MS))
        scored = sorted(await self._listing.scored(sets, since, most=_MOST_CHANGES))[:_MOST_CHANGES]
        full = len(scored) == _MOST_CHANGES
        at_once = full and scored[0].score == scored[-1].score
        if at_once:  # no part of what was written at one time could be gone on from
            scored = await self._listing.scored(sets, Between(scored[0].score, scored[0].score))
        found = await self._pages.read([one.entry.ref for one in scored])
        # A bulk that was cut off goes on from its last change, even if that is all within the overlap.
        newest_ms = int(max((one.score for one in scored), default=position))
        position = max(position, newest_ms + (_OVERLAP_MS + at_once if full else 0))
        return Changes(
            sessions=[session for session in found if session is not None and query.holds(session)], position=position
        )

    async def follow(
        self, query: Query | None = None, *, position: int | None = None, every_s: float = 1.0
    ) -> AsyncIterator[Changes]:
        """The changes as they come, without an end; each session only when it shows something new.

        Waits while Redis is away.
        """
        shown: dict[SessionRef, Session] = {}
        while True:
            try:
                changes = await self.changes(query, position=position)
            except StoreUnavailable:
                await asyncio.sleep(every_s)
                continue
            new = [session for session in changes.sessions if shown.get(session.ref) != session]
            position = changes.position
            shown = {session.ref: session for session in changes.sessions}  # no more than the overlap tells twice
            yield Changes(sessions=new, position=position)
            await asyncio.sleep(every_s)

    async def totals(self, project: str, *, since: datetime | None = None, until: datetime | None = None) -> Totals:
        """What the project's sessions come to that ended in between; some seconds old at most."""
        return await _twice(lambda: self._totals.totals(project, since, until))


async def _twice(call: Callable[[], Awaitable[_T]]) -> _T:
    """Once more where a connection had gone stale: everything here only reads."""
    try:
        return await call()
    except StoreUnavailable:
        return await call()
