"""Ways to Redis: one server, or a Cluster by setting.

redis-py keeps pools, TLS, AUTH and the Cluster's topology.  What is sent goes past its command layer: all calls of a
batch are packed with hiredis, written at once on one connection per node, and their replies read back in order, which
costs the client a few microseconds a call instead of some thirty.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Final, NamedTuple, Protocol, cast

import hiredis
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    MovedError,
    NoScriptError,
    RedisClusterException,
    RedisError,
    ResponseError,
    SlotNotCoveredError,
    TryAgainError,
)

from aggregator.adapters.redis.failures import is_redirect, translated
from aggregator.adapters.redis.scripts import Script, chunks
from aggregator.core.errors import ConfigurationError, StoreUnavailable

SOCKET_TIMEOUT_S: Final = 5.0
"""Above anything that Redis does for us (calls take about 1 ms), below the patience of the consumer group."""

# Its stub knows only commands of one word.
_pack_command: Final = cast(Callable[[tuple[str | bytes | int, ...]], bytes], hiredis.pack_command)

_FOREIGN: Final = (RedisError, RedisClusterException, OSError)

_MOST_HOPS: Final = 5
"""A key that moves is asked for at most so often before the whole call is left to be repeated."""


class Command(NamedTuple):
    """One plain command; `key` says which node gets it, `arguments` are the whole command."""

    key: str
    arguments: tuple[str | bytes | int, ...]


class Items(NamedTuple):
    """What a script is called with: per item its keys and its packed body; `head` are settings before the items."""

    keys: Sequence[Sequence[str]]
    bodies: Sequence[bytes]
    head: Sequence[int] = ()


class Node(Protocol):
    """One server that takes packed commands."""

    @property
    def address(self) -> str:
        """host:port, for people."""

    async def exchange(self, commands: Sequence[bytes]) -> list[Any]:
        """Write all, read one reply each; an error reply stands in its place as an exception."""


class Connections(ABC):
    """What the stores are built on; safe to use from many tasks at once.

    `spread` says that keys without a common hash tag may be on different servers.
    """

    spread: ClassVar[bool]

    def __init__(self, address: str) -> None:
        self.address: Final = address

    @abstractmethod
    async def nodes(self) -> Sequence[Node]:
        """All servers that hold keys."""

    @abstractmethod
    async def close(self) -> None:
        """Close all connections; doing it twice is harmless."""

    @abstractmethod
    async def _placed(self, keys: Sequence[str]) -> list[tuple[Node, list[int]]]:
        """Where the keys are: per node the indexes of its keys."""

    @abstractmethod
    async def _redirected(self, node: Node, command: bytes) -> Any:
        """Send one command that declares its keys to wherever they are now, beginning with `node`."""

    async def call(self, script: Script, items: Items) -> list[Any]:
        """Run a script over items; one reply per item, in order (see the script's RETURNS).

        Every item is tried whatever becomes of the others.  If one failed, this raises afterwards:
        `CorruptState` for a value of another make, else `StoreUnavailable`.
        """
        replies: list[Any] = [None] * len(items.bodies)
        places = await self._placed([keys[0] for keys in items.keys])
        if len(places) == 1:
            await self._call_node(places[0][0], script, items, places[0][1], replies)
        else:
            # Results are gathered rather than tasks grouped: a node that fails must not stop the others.
            outcomes = await asyncio.gather(
                *(self._call_node(node, script, items, indexes, replies) for node, indexes in places),
                return_exceptions=True,
            )
            _raise_worst(outcome for outcome in outcomes if isinstance(outcome, BaseException))
        _raise_worst(
            translated(ResponseError(reply.decode(errors="replace")), self.address, keys[0], in_script=True)
            for reply, keys in zip(replies, items.keys, strict=True)
            if isinstance(reply, bytes)
        )
        return replies

    async def _call_node(
        self, node: Node, script: Script, items: Items, indexes: list[int], replies: list[Any]
    ) -> None:
        bodies = [items.bodies[index] for index in indexes]
        cuts = chunks(script, bodies)
        commands = [_evalsha(script, (), script.argument(items.head, bodies[cut])) for cut in cuts]
        answers = await _with_script(node, script, commands)
        for cut, answer in zip(cuts, answers, strict=True):
            if isinstance(answer, Exception):
                raise translated(answer, node.address, script=script.name) from answer
            values = script.unpack(answer, cut.stop - cut.start)
            for index, value in zip(indexes[cut], values, strict=True):
                if isinstance(value, bytes) and is_redirect(value):
                    value = await self._call_declared(node, script, items, index)
                replies[index] = value

    async def _call_declared(self, node: Node, script: Script, items: Items, index: int) -> Any:
        """One item with all its keys declared, so that the Cluster says where they are and never splits them."""
        keys = items.keys[index]
        command = _evalsha(script, keys, script.argument(items.head, [items.bodies[index]]))
        answer = await self._redirected(node, command)
        if isinstance(answer, NoScriptError):
            for other in await self.nodes():
                await _load(other, script)
            answer = await self._redirected(node, command)
        if isinstance(answer, Exception):
            raise translated(answer, node.address, script=script.name) from answer
        return script.unpack(answer, 1)[0]

    async def commands(self, commands: Sequence[Command]) -> list[Any]:
        """Run plain commands, pipelined; one reply each, in order.  The first failure is raised."""
        replies: list[Any] = [None] * len(commands)
        for node, indexes in await self._placed([command.key for command in commands]):
            requests = [packed(*commands[index].arguments) for index in indexes]
            for index, data, answer in zip(indexes, requests, await node.exchange(requests), strict=True):
                if isinstance(answer, AskError | TryAgainError):
                    answer = await self._redirected(node, data)
                if isinstance(answer, Exception):
                    raise translated(answer, node.address, commands[index].key) from answer
                replies[index] = answer
        return replies


class SingleRedis(Connections):
    """One Redis or Valkey server."""

    spread = False

    def __init__(self, client: Redis) -> None:
        settings = client.connection_pool.connection_kwargs
        super().__init__(settings.get("path") or f"{settings.get('host', 'localhost')}:{settings.get('port', 6379)}")
        self._client = client

    async def exchange(self, commands: Sequence[bytes]) -> list[Any]:
        """See `Node`: with one server the way and the node are the same."""
        pool = self._client.connection_pool
        try:
            connection = await pool.get_connection()  # type: ignore[no-untyped-call]
            try:
                return await _exchange(connection, commands)
            finally:
                await pool.release(connection)
        except _FOREIGN as error:
            raise translated(error, self.address) from error

    async def nodes(self) -> Sequence[Node]:
        return [self]

    async def close(self) -> None:
        await self._client.aclose()

    async def _placed(self, keys: Sequence[str]) -> list[tuple[Node, list[int]]]:
        return [(self, list(range(len(keys))))] if keys else []

    async def _redirected(self, node: Node, command: bytes) -> Any:
        return (await node.exchange([command]))[0]


class _Member:
    """One node of a Cluster."""

    def __init__(self, node: ClusterNode, way: ClusterRedis) -> None:
        self.node: Final = node
        self.address: Final = node.name
        self._way = way

    async def exchange(self, commands: Sequence[bytes]) -> list[Any]:
        try:
            connection = self.node.acquire_connection()
            try:
                return await _exchange(connection, commands)
            finally:
                self.node.release(connection)
        except _FOREIGN as error:
            self._way.forget_topology()
            raise translated(error, self.address) from error


class ClusterRedis(Connections):
    """A Redis or Valkey Cluster."""

    spread = True

    def __init__(self, client: RedisCluster, address: str) -> None:
        super().__init__(address)
        self._client = client
        self._stale = False

    def forget_topology(self) -> None:
        """Ask the Cluster anew where slots are, before the next call."""
        self._stale = True

    async def nodes(self) -> Sequence[Node]:
        await self._refresh()
        return [_Member(node, self) for node in self._client.get_primaries()]

    async def close(self) -> None:
        await self._client.aclose()

    async def _refresh(self) -> None:
        try:
            await self._client.initialize()
            if self._stale:
                await self._client.nodes_manager.initialize()
                self._stale = False
        except _FOREIGN as error:
            raise translated(error, self.address) from error

    async def _placed(self, keys: Sequence[str]) -> list[tuple[Node, list[int]]]:
        await self._refresh()
        find = self._client.nodes_manager.get_node_from_slot
        places: dict[ClusterNode, list[int]] = {}
        for index, key in enumerate(keys):
            try:
                places.setdefault(find(key_slot(key.encode())), []).append(index)
            except SlotNotCoveredError as error:
                self._stale = True
                raise translated(error, self.address) from error
        return [(_Member(node, self), indexes) for node, indexes in places.items()]

    async def _redirected(self, node: Node, command: bytes) -> Any:
        """Follow the Cluster's answers; ASKING travels on the connection of the command that it is for."""
        answer: Any = None
        asking: list[bytes] = []
        for _ in range(_MOST_HOPS):
            answer = (await node.exchange([*asking, command]))[-1]
            asking = []
            if isinstance(answer, AskError):
                asking = [packed("ASKING")]
            elif isinstance(answer, MovedError):
                self._stale = True
            else:
                return answer
            found = self._client.get_node(host=answer.host, port=answer.port)
            if found is None:
                self._stale = True
                await self._refresh()
                found = self._client.get_node(host=answer.host, port=answer.port)
            if found is None:
                return answer
            node = _Member(found, self)
        return answer


def connect(
    url: str, *, cluster: bool = False, socket_timeout_s: float = SOCKET_TIMEOUT_S, max_connections: int = 100
) -> Connections:
    """Make the way to `url` (`redis://`, `rediss://` or `unix://`, with user, password and database as usual).

    Nothing is connected yet.  Retrying is left to the caller, who knows that everything here may be repeated.
    """
    shared: dict[str, Any] = {
        "socket_timeout": socket_timeout_s,
        "socket_connect_timeout": socket_timeout_s,
        "max_connections": max_connections,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    try:
        if not cluster:
            return SingleRedis(Redis.from_url(url, **shared))
        client = RedisCluster.from_url(url, **shared)
        return ClusterRedis(client, ",".join(node.name for node in client.nodes_manager.startup_nodes.values()))
    except (ValueError, RedisError, RedisClusterException) as error:
        # The error is not quoted: it may hold the URL with its password.
        raise ConfigurationError(
            "redis.url can't be read; it must look like redis://user:password@host:6379/0 (or rediss://, unix://)"
        ) from error


def packed(*arguments: str | bytes | int) -> bytes:
    """One command as it goes over the wire."""
    return _pack_command(arguments)


async def _exchange(connection: AbstractConnection, commands: Sequence[bytes]) -> list[Any]:
    """Write all commands and read their replies; after anything but an error reply the connection is closed.

    A connection with replies still under way would give them to the next who uses it.
    """
    replies: list[Any] = []
    try:
        await connection.send_packed_command(commands)
        for _ in commands:
            try:
                replies.append(await connection.read_response(disable_decoding=True))
            except ResponseError as error:
                replies.append(error)
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    return replies


def _evalsha(script: Script, keys: Sequence[str], body: bytes) -> bytes:
    return packed("EVALSHA", script.sha, len(keys), *keys, body)


async def _with_script(node: Node, script: Script, commands: Sequence[bytes]) -> list[Any]:
    """Exchange calls of a script; those that meet a server without it are repeated once it is loaded."""
    answers = await node.exchange(commands)
    missed = [index for index, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
    if missed:
        await _load(node, script)
        again = await node.exchange([commands[index] for index in missed])
        for index, answer in zip(missed, again, strict=True):
            answers[index] = answer
    return answers


async def _load(node: Node, script: Script) -> None:
    (answer,) = await node.exchange([packed("SCRIPT", "LOAD", script.text)])
    if isinstance(answer, Exception):
        raise translated(answer, node.address, script=script.name) from answer


def _raise_worst(errors: Iterable[BaseException]) -> None:
    """Raise one of several failures: one that no repeating mends before one that passes."""
    found = sorted(errors, key=lambda error: isinstance(error, StoreUnavailable))
    if found:
        raise found[0]
