"""The way into a cluster, and why it is closed.

aiokafka connects again and again by itself and tells only its log why it can't.  So whoever finds no connection knocks
once more by themselves and learns the reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiokafka.conn import collect_hosts
from aiokafka.errors import KafkaError

from aggregator.adapters.kafka.failures import Peer, translated
from aggregator.adapters.kafka.security import Security
from aggregator.core.errors import BrokerRefused, BrokerUnavailable, ConfigurationError

_KNOCK_S: Final = 3.0
"""For all brokers together: a broker that refuses says so within milliseconds."""


class Access:
    """Brokers, and how they are spoken to."""

    def __init__(self, bootstrap_servers: str, security: Security | None = None) -> None:
        self.bootstrap_servers: Final = bootstrap_servers
        self.security: Final = security or Security()

    def peer(self, operation: str, group: str = "") -> Peer:
        """Who speaks to whom, for messages about clients that do this."""
        return Peer(self.bootstrap_servers, self.security.principal, operation, group)

    @asynccontextmanager
    async def connecting(self, doing: str, operation: str, group: str = "") -> AsyncIterator[None]:
        """As `translated`, but finds out why there is no connection."""
        try:
            with translated(doing, self.peer(operation, group)):
                yield
        except BrokerRefused:
            raise
        except BrokerUnavailable as error:
            found = await self.why(doing)
            if found is None:
                raise
            raise found from error

    async def why(self, doing: str) -> BrokerUnavailable | None:
        """Knock at each broker; says why none lets us in, None where one does."""
        found: BrokerUnavailable | None = None
        try:
            async with asyncio.timeout(_KNOCK_S):
                for host, port, _ in collect_hosts(self.bootstrap_servers):
                    error = await self._knock(doing, host, port)
                    if error is None:
                        return None
                    found = found if isinstance(found, BrokerRefused) else error
        except TimeoutError:
            found = found or BrokerUnavailable(f"{doing}: Kafka at {self.bootstrap_servers} does not answer")
        return found

    async def _knock(self, doing: str, host: str, port: int) -> BrokerUnavailable | None:
        peer = self.peer("")._replace(brokers=f"{host}:{port}")
        try:
            await self.security.try_connection(host, port, timeout_s=_KNOCK_S)
        except (KafkaError, OSError) as error:
            away = BrokerUnavailable(f"{doing}: Kafka at {peer.brokers}: {str(error) or type(error).__name__}")
            return peer.not_let_in(doing, error) or away
        except ConfigurationError as error:  # a file is not what it was at the start: it will be again
            return BrokerRefused(f"{doing}: no TLS connection to Kafka at {peer.brokers}: {error}")
        return None
