"""What can be asked for, and the cursors between pages."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from hashlib import blake2b
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from aggregator.adapters.redis.listing import Entry
from aggregator.client.models import Session, to_ms
from aggregator.ports import IndexOrder


class BadCursor(ValueError):  # noqa: N818 - what it is, as it is shown to callers
    """A cursor that this program did not make, or that belongs to another query; begin with the first page."""


class Sort(StrEnum):
    """What sessions are sorted by."""

    RECENT = "recent"
    DURATION = "duration"
    TOKENS = "tokens"
    COST = "cost"
    ERRORS = "errors"
    TRACES = "traces"

    @property
    def order(self) -> IndexOrder:
        """The index that is sorted so."""
        return IndexOrder(self.value)

    def figure(self, session: Session) -> float | Decimal:
        """What a session is sorted by, as its index has it."""
        match self:
            case Sort.RECENT:
                return to_ms(session.ended_at or session.last_activity_at)
            case Sort.DURATION:
                return session.duration_ms or 0.0
            case Sort.TOKENS:
                return session.tokens.total
            case Sort.COST:
                return session.cost_usd
            case Sort.ERRORS:
                return session.error_count
            case Sort.TRACES:
                return session.trace_count


class StatusFilter(StrEnum):
    """Open sessions include those that are being closed at this moment."""

    OPEN = "open"
    CLOSED = "closed"


class Query(BaseModel):
    """Which sessions, in which order; the greatest first unless `ascending`.

    `since` and `until` are about when a session ended; `search` is the beginning of a session id or of a user id.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    project: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    user: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    status: StatusFilter | None = None
    since: datetime | None = None
    until: datetime | None = None
    search: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    sort: Sort = Sort.RECENT
    ascending: bool = False
    among: tuple[str, ...] | None = None
    """The projects that may be seen at all; None: any."""

    def may_see(self, project: str) -> bool:
        """Whether sessions of this project can be in the answer."""
        return (self.project is None or project == self.project) and (self.among is None or project in self.among)

    def holds(self, session: Session) -> bool:
        """Whether a session is one of those that are asked for."""
        ended_at = session.ended_at or session.last_activity_at
        return (
            self.may_see(session.project)
            and (self.user is None or session.user_id == self.user)
            and (self.status is None or (session.status == "closed") == (self.status is StatusFilter.CLOSED))
            and (self.since is None or ended_at >= _aware(self.since))
            and (self.until is None or ended_at <= _aware(self.until))
            and (
                self.search is None
                or session.session_id.startswith(self.search)
                or (session.user_id or "").startswith(self.search)
            )
        )

    def digest(self) -> str:
        """Tells queries apart in cursors."""
        return blake2b(self.model_dump_json().encode(), digest_size=6).hexdigest()


def _aware(time: datetime) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=UTC)


class Cursor(NamedTuple):
    """Where a page begins: at `offset` of a walk that the client remembers, else behind the last entry shown."""

    walk: str
    offset: int
    score: float
    entry: Entry

    def encode(self, query: Query) -> str:
        """As text that may stand in a URL."""
        value = [query.digest(), self.walk, self.offset, self.score, self.entry.project, self.entry.member.decode()]
        return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str, query: Query) -> Cursor:
        """Undo `encode`; raises `BadCursor`."""
        try:
            value = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            digest, walk, offset, score, project, member = value
            cursor = cls(str(walk), int(offset), float(score), Entry(str(project), str(member).encode()))
        except (ValueError, TypeError, OverflowError, binascii.Error, RecursionError) as error:
            raise BadCursor("this is no cursor; leave it out to begin with the first page") from error
        if digest != query.digest() or cursor.offset < 0:
            raise BadCursor("this cursor belongs to another query; leave it out to begin with the first page")
        return cursor
