"""Pages of sessions in an order that changes while they are read.

Figures move while somebody pages: a session that overtakes the page just shown would be missed, one that falls behind
would come twice.  So the client remembers what it has shown of a first page, and at the second page the whole order
of that moment without those; from then on pages are cut from what it remembers.
Memory is bounded: the walk that was used least recently is forgotten first, and a cursor of a forgotten walk (or of
another process) goes on behind the last session shown.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from aggregator.adapters.redis.listing import Entry

_MOST_ENTRIES: Final = 400_000  # some 50 MB


class Walk:
    """The entries shown so far, and once there is a second page (`whole`) all others behind them."""

    __slots__ = ("entries", "whole")

    def __init__(self, entries: Sequence[Entry], *, whole: bool) -> None:
        self.entries: Final = entries
        self.whole: Final = whole


class Walks:
    """The walks of one client."""

    def __init__(self, most_entries: int = _MOST_ENTRIES) -> None:
        self._most_entries = most_entries
        self._walks: OrderedDict[str, Walk] = OrderedDict()
        self._entries = 0

    def get(self, token: str) -> Walk | None:
        """The walk, unless it was forgotten."""
        if token in self._walks:
            self._walks.move_to_end(token)
        return self._walks.get(token)

    def begin(self, walk: Walk) -> str:
        """Remember it; gives its token."""
        token = secrets.token_urlsafe(6)
        self.put(token, walk)
        return token

    def put(self, token: str, walk: Walk) -> None:
        """Remember it under a token; the least recently used go."""
        if token in self._walks:
            self._entries -= len(self._walks.pop(token).entries)
        self._walks[token] = walk
        self._entries += len(walk.entries)
        while self._entries > self._most_entries and len(self._walks) > 1:
            _, gone = self._walks.popitem(last=False)
            self._entries -= len(gone.entries)
