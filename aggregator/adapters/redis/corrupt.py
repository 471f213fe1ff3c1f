"""Values in Redis that can't be read: set aside, counted and reported, while everything else goes on.

A broken trace state or session is moved to `agg:corrupt:...`, where it expires, and what is being done then finds
nothing in its place.  Nothing else of it is lost but what only it knew; reading the log again brings that back
(docs/adr/0014).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from aggregator.adapters.redis.calls import Command, Connections, Items
from aggregator.adapters.redis.keys import Keys
from aggregator.adapters.redis.scripts import SET_ASIDE, pack
from aggregator.core.errors import CorruptState, FatalError
from aggregator.telemetry import CorruptKind, Event, get_logger

log = get_logger()

MOST_CORRUPT: Final = 1_000
"""A process that meets more broken values than this stops: they come from another program or a broken server."""

DAY_MS: Final = 86_400_000

Names = tuple[str, ...]
Ask = Callable[[Sequence[int]], Awaitable[list[Any]]]


def _sound(names: Names, reply: Any) -> None:
    """The rule: what can be told is told by Redis or a script."""


class CorruptKeys:
    """Takes broken values out of the way."""

    def __init__(
        self,
        connections: Connections,
        keys: Keys,
        *,
        ttl_ms: int = DAY_MS,
        count: Callable[[CorruptKind], None] = lambda kind: None,
    ) -> None:
        """`ttl_ms` is how long they are kept; `count` is told of each."""
        self._connections = connections
        self._keys = keys
        self._ttl_ms: Final = ttl_ms
        self._count = count
        self._met = 0

    async def repaired(
        self,
        kind: CorruptKind,
        keys: Sequence[Names],
        ask: Ask,
        problem: Callable[[Names, Any], CorruptState | None] = _sound,
    ) -> list[Any]:
        """The replies for all `keys`; where one is `CorruptState`, its keys are set aside and it is asked again.

        `ask` takes indexes of `keys` and gives a reply for each.  `problem` finds what is wrong with a reply that is
        not None.  All that goes by the same keys is asked again.
        """
        replies = await ask(range(len(keys)))
        for forced in (False, True):
            broken = _broken(keys, replies, problem)
            if not broken:
                return replies
            await self._set_aside(kind, broken, forced=forced)
            again = [index for index, names in enumerate(keys) if names in broken]
            for index, reply in zip(again, await ask(again), strict=True):
                replies[index] = reply
        for error in _broken(keys, replies, problem).values():
            raise error
        return replies

    async def _set_aside(self, kind: CorruptKind, broken: Mapping[Names, CorruptState], *, forced: bool) -> None:
        if kind is CorruptKind.DUE:
            # Open sessions without an entry would never close: as after a loss, the log is read again from where
            # `on_state_loss` says, and each session that it tells of is written into the index.
            await self._connections.commands([Command(self._keys.progress, ("DEL", self._keys.progress))])
        targets = [[self._keys.corrupt(name) for name in names] for names in broken]
        bodies = [
            (pack((self._ttl_ms, int(forced), *(name for pair in zip(names, new, strict=True) for name in pair))),)
            for names, new in zip(broken, targets, strict=True)
        ]
        replies = await self._connections.call(SET_ASIDE, Items(list(broken), bodies))
        for (names, error), new, moved in zip(broken.items(), targets, replies, strict=True):
            if moved == 1:
                self.report(kind, names[0], error, kept_as=new[0])

    def report(self, kind: CorruptKind, key: str, error: CorruptState, *, kept_as: str = "") -> None:
        """Count and log one broken value that was taken out of the way; too many of them are fatal."""
        self._count(kind)
        self._met += 1
        log.error(Event.CORRUPT_KEY, kind=kind, key=key, kept_as=kept_as, error=str(error))
        if self._met > MOST_CORRUPT:
            raise FatalError(
                f"{self._met} values in Redis could not be read, the last of them {key}; see whether another program "
                f"or another version of this one writes keys that begin with {self._keys.prefix!r}"
            ) from error


def _broken(
    keys: Sequence[Names], replies: Sequence[Any], problem: Callable[[Names, Any], CorruptState | None]
) -> dict[Names, CorruptState]:
    found: dict[Names, CorruptState] = {}
    for index, reply in enumerate(replies):
        if reply is not None:  # as a rule
            error = reply if isinstance(reply, CorruptState) else problem(keys[index], reply)
            if error is not None:
                found[keys[index]] = error
    return found
