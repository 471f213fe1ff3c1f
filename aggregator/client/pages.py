"""One page of sessions: which index answers a query, and how far it is followed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from aggregator.adapters.redis.listing import ALL, Between, Entry, RedisListing, Scored, SortedSet
from aggregator.client.models import Page, Session, to_ms
from aggregator.client.query import Cursor, Query, StatusFilter
from aggregator.client.walks import Walk, Walks
from aggregator.core.errors import CorruptState
from aggregator.core.model import SessionRef
from aggregator.ports import IndexOrder

_MOST_READ: Final = 4000
"""Sessions read for one page at most: some 50 ms, however seldom a filter matches."""

_READ_AT_ONCE: Final = 500
_FEW: Final = 20_000  # so many are sorted here; of more, following the order of all meets one that matches soon


class _Plan(NamedTuple):
    """How a query is answered.

    Either by `candidates`, which are few, or by following `sets` in their order; what matches is told by reading.
    `exact`: everything that is found so matches.
    """

    candidates: list[Scored] | None
    sets: Sequence[SortedSet]
    between: Between
    exact: bool


class Pages:
    """Makes pages."""

    def __init__(self, listing: RedisListing, walks: Walks) -> None:
        self._listing = listing
        self._walks = walks

    async def page(self, query: Query, cursor: str | None, limit: int) -> Page:
        """See `Client.list`; what has changed since the indexes were written stands on its page as its figures say."""
        page = await self._page(query, cursor, limit)
        page.sessions.sort(key=query.sort.figure, reverse=not query.ascending)
        return page

    async def _page(self, query: Query, cursor: str | None, limit: int) -> Page:
        if cursor is None:
            return await self._first(query, limit)
        position = Cursor.decode(cursor, query)
        token, offset = position.walk, position.offset
        walk = self._walks.get(token)
        if walk is None:
            ordered = await self._ordered(query)
            walk, offset = Walk([one.entry for one in ordered if _behind(one, position, query)], whole=True), 0
            token = self._walks.begin(walk)
        elif not walk.whole:
            shown = set(walk.entries)
            rest = [entry for entry in await self._order(query) if entry not in shown]
            offset, walk = len(walk.entries), Walk([*walk.entries, *rest], whole=True)
            self._walks.put(token, walk)
        sessions, taken = await self._take(query, walk.entries[offset : offset + _MOST_READ], limit)
        end = offset + taken
        following = await self._cursor(query, token, end, walk.entries[end - 1]) if end < len(walk.entries) else None
        return Page(sessions=sessions, next=following, matching=None)

    async def _first(self, query: Query, limit: int) -> Page:
        plan = await self._plan(query)
        if plan.candidates is not None:
            ordered = [one.entry for one in _sorted(plan.candidates, query)]
            sessions, taken = await self._take(query, ordered, limit)
            shown, more, matching = ordered[:taken], taken < len(ordered), len(ordered)
        else:
            shown, sessions, more = await self._lead(query, plan, limit)
            matching = sum(await self._listing.count(plan.sets, plan.between))
        following = None
        if more and shown:
            token = self._walks.begin(Walk(shown, whole=False))
            following = await self._cursor(query, token, len(shown), shown[-1])
        return Page(sessions=sessions, next=following, matching=matching if plan.exact else None)

    async def _lead(self, query: Query, plan: _Plan, limit: int) -> tuple[list[Entry], list[Session], bool]:
        """The first page straight from the sets: what was looked at, what is shown, and whether there is more."""
        looked_at: dict[Entry, None] = {}
        sessions: list[Session] = []
        size = limit + 1
        while True:
            scored = await self._listing.scored(plan.sets, plan.between, descending=not query.ascending, most=size)
            merged = [one.entry for one in _sorted(scored, query)][:size]
            new = [entry for entry in merged if entry not in looked_at]
            found, taken = await self._take(query, new, limit - len(sessions))
            sessions += found
            looked_at.update(dict.fromkeys(new[:taken]))
            if taken < len(new) or len(looked_at) >= _MOST_READ:
                return list(looked_at), sessions, True
            if len(merged) < size:
                return list(looked_at), sessions, False
            size = len(merged) + _READ_AT_ONCE

    async def _plan(self, query: Query) -> _Plan:
        projects = await projects_of(query, self._listing)
        listing, order = self._listing, query.sort.order
        sets = listing.sorted_sets(projects, order)
        between = Between(
            None if query.since is None else to_ms(query.since), None if query.until is None else to_ms(query.until)
        )
        exact = query.status is None
        if query.search is not None:
            entries = await listing.beginning(projects, query.search)
            return _Plan(await listing.scores(entries, order), sets, ALL, exact and not query.user and between == ALL)
        if query.user is not None or between != ALL:
            if query.user is not None:
                recent = listing.sets_of_user(projects, query.user)
            else:
                recent = listing.sorted_sets(projects, IndexOrder.RECENT)
            if order is IndexOrder.RECENT:
                return _Plan(None, recent, between, exact)
            if sum(await listing.count(recent, between)) <= _FEW:
                found = await listing.scored(recent, between)
                return _Plan(await listing.scores([one.entry for one in found], order), sets, ALL, exact)
            exact = False
        elif query.status is StatusFilter.OPEN and await listing.open_count() <= _FEW:
            return _Plan(await listing.scores(await listing.open_entries(projects), order), sets, ALL, exact=True)
        return _Plan(None, sets, ALL, exact)

    async def _ordered(self, query: Query) -> list[Scored]:
        """The whole order with its scores."""
        plan = await self._plan(query)
        if plan.candidates is not None:
            return _sorted(plan.candidates, query)
        return _sorted(await self._listing.scored(plan.sets, plan.between), query)

    async def _order(self, query: Query) -> list[Entry]:
        """The whole order; of one set as Redis has it."""
        plan = await self._plan(query)
        if plan.candidates is None and len(plan.sets) == 1:
            return await self._listing.members(plan.sets[0], plan.between, descending=not query.ascending)
        return [one.entry for one in await self._ordered(query)]

    async def _cursor(self, query: Query, token: str, offset: int, last: Entry) -> str:
        scored = await self._listing.scores([last], query.sort.order)
        return Cursor(token, offset, scored[0].score if scored else 0.0, last).encode(query)

    async def _take(self, query: Query, entries: Sequence[Entry], limit: int) -> tuple[list[Session], int]:
        """The first sessions of the entries that match, and how many entries that took."""
        sessions: list[Session] = []
        most = min(len(entries), _MOST_READ)
        at = 0
        while at < most and len(sessions) < limit:
            block = entries[at : min(most, at + max(limit - len(sessions), _READ_AT_ONCE if query.status else 0))]
            found = await self.read([entry.ref for entry in block])
            for session in found:
                if len(sessions) == limit:
                    return sessions, at
                at += 1
                if session is not None and query.holds(session):
                    sessions.append(session)
        return sessions, at

    async def read(self, refs: Sequence[SessionRef]) -> list[Session | None]:
        """These sessions; None where one is gone or has no traces."""
        hashes = await self._listing.hashes(refs)
        return [_session(ref, fields) for ref, fields in zip(refs, hashes, strict=True)]


async def projects_of(query: Query, listing: RedisListing) -> list[str]:
    """The projects that a query is about."""
    known = [query.project] if query.project is not None else await listing.projects()
    return [project for project in known if query.may_see(project)]


def _session(ref: SessionRef, fields: dict[str, str] | None) -> Session | None:
    if fields is None:
        return None
    try:
        session = Session.from_hash(ref, fields)
    except (ValueError, LookupError) as error:
        raise CorruptState(f"the session {ref.project}/{ref.session_id} can't be read: {error}") from error
    return session if session.trace_count else None


def _sorted(scored: Iterable[Scored], query: Query) -> list[Scored]:
    """In the order of the query; `Scored` compares as Redis sorts."""
    return sorted(scored, reverse=not query.ascending)


def _behind(one: Scored, position: Cursor, query: Query) -> bool:
    here = Scored(position.score, position.entry)
    return one > here if query.ascending else one < here
