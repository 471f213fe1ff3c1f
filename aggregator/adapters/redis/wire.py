"""Commands on their way to one server and back.

What is sent goes past redis-py's command layer: all commands of a batch are packed with hiredis, written at once on
one connection, and their replies read back in order, which costs the client a few microseconds a call instead of some
thirty.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol, cast

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import ReadOnlyError, RedisClusterException, RedisError, ResponseError

FOREIGN: Final = (RedisError, RedisClusterException, OSError)
"""What redis-py raises; adapters translate it (`failures.py`)."""

_SEND_BYTES: Final = 262_144
"""What a slow server or a slow way must take within a call's time-out: a batch may be many times as much."""

_CLOSED: Final = ("the handler is closed", "'NoneType' object")

# Its stub knows only commands of one word.
_pack_command: Final = cast(Callable[[tuple[str | bytes | int, ...]], bytes], hiredis.pack_command)


@contextmanager
def closed_is_lost() -> Iterator[None]:
    """Raise what event loops say of a transport that was closed meanwhile as redis-py's `ConnectionError`.

    uvloop raises a RuntimeError then (its issue 506), asyncio of some Pythons a TypeError or an AttributeError
    (redis-py issue 4287): none is an OSError, so redis-py lets them through.
    """
    try:
        yield
    except (RuntimeError, TypeError, AttributeError) as error:
        if not any(words in str(error) for words in _CLOSED):
            raise
        raise ConnectionLost(f"the connection was closed: {error}") from error


class Node(Protocol):
    """One server that takes packed commands."""

    @property
    def address(self) -> str:
        """host:port, for people."""

    async def exchange(self, commands: Sequence[bytes]) -> list[Any]:
        """Write all, read one reply each; an error reply stands in its place as an exception."""


def packed(*arguments: str | bytes | int) -> bytes:
    """One command as it goes over the wire."""
    return _pack_command(arguments)


def cancellations() -> int:
    """How often the running task has been told to end; see `exchange_on`."""
    task = asyncio.current_task()
    return task.cancelling() if task else 0


def _raise_lost(before: int) -> None:
    if cancellations() > before:
        raise asyncio.CancelledError


def _parts(commands: Sequence[bytes]) -> Iterator[list[bytes]]:
    """The same commands in their order, some `_SEND_BYTES` at a time."""
    part: list[bytes] = []
    size = 0
    for command in commands:
        part.append(command)
        size += len(command)
        if size >= _SEND_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


async def exchange_on(connection: AbstractConnection, commands: Sequence[bytes], *, cancelled: int) -> list[Any]:
    """Write all commands and read their replies; after anything but an error reply the connection is closed.

    A connection with replies still under way would give them to the next who uses it, and one to a server that has
    become a replica would stay there: the next one may be led to the new master.
    `cancelled` are the `cancellations` before the connection was asked for: redis-py waits with `asyncio.wait_for`,
    which in Python 3.11 loses a cancellation that comes as it ends, and a task that was told to end would live on.
    """
    replies: list[Any] = []
    try:
        for part in _parts(commands):
            await connection.send_packed_command(part)
            _raise_lost(cancelled)
        for _ in commands:
            try:
                replies.append(await connection.read_response(disable_decoding=True))
            except ResponseError as error:
                replies.append(error)
        if any(isinstance(reply, ReadOnlyError) for reply in replies):
            await connection.disconnect(nowait=True)
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    return replies
