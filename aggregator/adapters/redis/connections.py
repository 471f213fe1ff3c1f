"""The way to Redis: one server, whichever Sentinels name if the URL says so, or a Cluster by setting.

redis-py keeps pools, TLS and AUTH; batches go past its command layer (`wire.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import RedisClusterException, RedisError

from aggregator.adapters.redis.access import Access, NodesToCome, user_of
from aggregator.adapters.redis.calls import Connections
from aggregator.adapters.redis.cluster import ClusterRedis
from aggregator.adapters.redis.failures import translated
from aggregator.adapters.redis.sentinels import SCHEMES, addresses, guarded, why_no_master
from aggregator.adapters.redis.wire import FOREIGN, Node, cancellations, closed_is_lost, exchange_on
from aggregator.core.errors import AggregatorError, ConfigurationError
from aggregator.settings import RedisSettings

SOCKET_TIMEOUT_S: Final = 5.0
"""Above anything that Redis does for us (calls take about 1 ms), below the patience of the consumer group."""


class SingleRedis(Connections):
    """One Redis or Valkey server."""

    spread = False

    def __init__(self, client: Redis, address: str = "") -> None:
        settings = client.connection_pool.connection_kwargs
        where = settings.get("path") or f"{settings.get('host', 'localhost')}:{settings.get('port', 6379)}"
        super().__init__(address or where, user_of(settings))
        self._client = client
        self._streams: WeakKeyDictionary[AbstractConnection, object] = WeakKeyDictionary()

    async def exchange(self, commands: Sequence[bytes]) -> list[Any]:
        """See `Node`: with one server the way and the node are the same."""
        pool = self._client.connection_pool
        cancelled = cancellations()
        try:
            with closed_is_lost():
                connection = await pool.get_connection()  # type: ignore[no-untyped-call]
                try:
                    replies = await exchange_on(connection, commands, cancelled=cancelled)
                    self._raise_anew(connection)
                except BaseException:
                    self._streams.pop(connection, None)
                    raise
                else:
                    return replies
                finally:
                    await pool.release(connection)
        except FOREIGN as error:
            raise await self._why(error) from error

    async def _why(self, error: BaseException) -> AggregatorError:
        """The error to raise instead."""
        return translated(error, self)

    def _raise_anew(self, connection: AbstractConnection) -> None:
        """Fail a call once, though it was done, where redis-py has made its connection anew without a word.

        Another server may answer now, a replica that took over, which has missed what was written before: whoever
        has written something must know.  (A Cluster needs longer to fail over than goes unnoticed.)
        """
        stream = connection._reader  # noqa: SLF001
        if stream is None:  # closed, since a replica has answered: the caller is told so
            self._streams.pop(connection, None)
        elif self._streams.setdefault(connection, stream) is not stream:
            raise ConnectionLost("the connection was lost, and made anew")

    async def nodes(self) -> Sequence[Node]:
        return [self]

    async def close(self) -> None:
        await self._client.aclose()

    async def _placed(self, keys: Sequence[str]) -> list[tuple[Node, list[int]]]:
        return [(self, list(range(len(keys))))] if keys else []

    async def _redirected(self, node: Node, command: bytes) -> Any:
        return (await node.exchange([command]))[0]


class _Master:
    """The server that the Sentinels named last."""

    def __init__(self, way: SingleRedis, address: str) -> None:
        self.address: Final = address
        self.user: Final = way.user
        self.exchange: Final = way.exchange


class GuardedRedis(SingleRedis):
    """The master among servers that Sentinels watch.

    After a failover its connections break, and the new ones go to the new master.
    """

    def __init__(self, client: Redis, sentinel: Sentinel) -> None:
        self._pool = cast(SentinelConnectionPool, client.connection_pool)
        self._sentinel = sentinel
        super().__init__(client, f"{self._pool.service_name} of the Sentinels {addresses(sentinel)}")

    async def nodes(self) -> Sequence[Node]:
        """See `Connections`; asks the Sentinels."""
        try:
            with closed_is_lost():
                host, port = await self._pool.get_master_address()  # type: ignore[no-untyped-call]
        except FOREIGN as error:
            raise await self._why(error) from error
        return [_Master(self, f"{host}:{port} ({self.address})")]

    async def _why(self, error: BaseException) -> AggregatorError:
        if isinstance(error, MasterNotFoundError):
            return await why_no_master(self._sentinel, self.address)
        return await super()._why(error)

    async def close(self) -> None:
        await super().close()
        await self._sentinel.aclose()


def connect(
    url: str,
    *,
    cluster: bool = False,
    socket_timeout_s: float = SOCKET_TIMEOUT_S,
    max_connections: int = 100,
    access: Access | None = None,
) -> Connections:
    """Make the way to `url` (`redis://`, `rediss://` or `unix://`, with user, password and database as usual).

    `redis+sentinel://` and `rediss+sentinel://` are as in `sentinels.guarded`.

    Nothing is connected yet.  Retrying is left to the caller, who knows that everything here may be repeated.
    """
    shared: dict[str, Any] = {
        "socket_timeout": socket_timeout_s,
        "socket_connect_timeout": socket_timeout_s,
        "max_connections": max_connections,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    access = access or Access()
    try:
        if url.partition("://")[0] in SCHEMES:
            client, sentinel = guarded(url, shared)
            access.grant(url, client.connection_pool)
            access.grant(url, *(one.connection_pool for one in sentinel.sentinels), login=False)
            return GuardedRedis(client, sentinel)
        if not cluster:
            client = Redis.from_url(url, **shared)
            access.grant(url, client.connection_pool)
            return SingleRedis(client)
        nodes = RedisCluster.from_url(url, **shared)
        access.grant(url, NodesToCome(nodes), *nodes.nodes_manager.startup_nodes.values())
        return ClusterRedis(nodes)
    except (ValueError, RedisError, RedisClusterException) as error:
        # The error is not quoted: it may hold the URL with its password.
        raise ConfigurationError(
            "AGGREGATOR_REDIS__URL: can't be read; it must look like redis://user:password@host:6379/0 "
            "(or rediss://, unix://, redis+sentinel://user:password@host:26379,host2:26379/mymaster/0)"
        ) from error


def connect_as_set(redis: RedisSettings) -> Connections:
    """The way that the settings describe; raises `ConfigurationError` for files it can't use."""
    return connect(
        redis.url.get_secret_value(),
        cluster=redis.cluster,
        socket_timeout_s=redis.timeout_s,
        access=Access.of(redis),
    )


__all__ = ["SOCKET_TIMEOUT_S", "Connections", "SingleRedis", "connect", "connect_as_set"]
