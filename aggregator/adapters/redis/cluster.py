"""A Redis or Valkey Cluster: redis-py keeps its topology, moved keys are followed here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, ReadOnlyError, SlotNotCoveredError

from aggregator.adapters.redis.access import user_of
from aggregator.adapters.redis.calls import Connections
from aggregator.adapters.redis.failures import translated
from aggregator.adapters.redis.wire import FOREIGN, Node, cancellations, closed_is_lost, exchange_on, packed
from aggregator.core.errors import ConfigurationError, causes

_MOST_HOPS: Final = 5
"""A key that moves is asked for at most so often before the whole call is left to be repeated."""

_NO_CLUSTER: Final = "cluster support disabled"  # what a single server says


class _Member:
    """One node of a Cluster."""

    def __init__(self, node: ClusterNode, way: ClusterRedis) -> None:
        self.node: Final = node
        self.address: Final = node.name
        self.user: Final = way.user
        self._way = way

    async def exchange(self, commands: Sequence[bytes]) -> list[Any]:
        try:
            with closed_is_lost():
                connection = self.node.acquire_connection()
                try:
                    replies = await exchange_on(connection, commands, cancelled=cancellations())
                finally:
                    self.node.release(connection)
        except FOREIGN as error:
            self._way.forget_topology()
            raise translated(error, self) from error
        if any(isinstance(reply, ClusterDownError | MovedError | ReadOnlyError) for reply in replies):
            self._way.forget_topology()
        return replies


class ClusterRedis(Connections):
    """A Redis or Valkey Cluster."""

    spread = True

    def __init__(self, client: RedisCluster) -> None:
        nodes = client.nodes_manager.startup_nodes.values()
        super().__init__(",".join(node.name for node in nodes), user_of(client.connection_kwargs))
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
            with closed_is_lost():
                await self._client.initialize()
                if self._stale:
                    await self._client.nodes_manager.initialize()
                    self._stale = False
        except FOREIGN as error:
            if _is_no_cluster(error):
                raise ConfigurationError(
                    f"AGGREGATOR_REDIS__CLUSTER: this is a single server ({self.address}); set it to false"
                ) from error
            raise translated(error, self) from error

    async def _placed(self, keys: Sequence[str]) -> list[tuple[Node, list[int]]]:
        await self._refresh()
        find = self._client.nodes_manager.get_node_from_slot
        places: dict[ClusterNode, list[int]] = {}
        for index, key in enumerate(keys):
            try:
                places.setdefault(find(key_slot(key.encode())), []).append(index)
            except SlotNotCoveredError as error:
                self._stale = True
                raise translated(error, self) from error
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


def _is_no_cluster(error: BaseException) -> bool:
    """Whether this came of asking a single server, which no waiting mends; redis-py hides what the server said."""
    return any(_NO_CLUSTER in str(cause) for cause in causes(error))
