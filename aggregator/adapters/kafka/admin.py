"""What `check` and the start of the worker ask of a Kafka cluster."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    for_code,
)
from aiokafka.protocol.admin import ApiVersionRequest
from aiokafka.protocol.metadata import MetadataRequest

from aggregator.adapters.kafka.access import Access
from aggregator.adapters.kafka.security import Security
from aggregator.core.errors import BrokerUnavailable
from aggregator.telemetry import Event, get_logger

log = get_logger()

_SHOWN_TOPICS: Final = 10
_BROKER_DEFAULT: Final = -1  # as partition count and replication factor
_COORDINATOR_TRIES: Final = 20
_COORDINATOR_WAIT_S: Final = 0.2
_FETCH_KEY: Final = 1
_RELEASE_OF_FETCH: Final = (  # Kafka does not tell its release; the newest Fetch that it speaks dates it
    (18, "4.1 or later"),
    (17, "3.9 or 4.0"),
    (16, "3.7 or 3.8"),
    (14, "3.5 or 3.6"),
    (13, "3.1 to 3.4"),
    (12, "2.7 to 3.0"),
    (11, "2.3 to 2.6"),
    (0, "before 2.3"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What a cluster says of itself.

    `release` is a range, as in `4.1 or later`; `brokers` are `host:port`; `topics` maps the names of the topics that
    this user may see to their partition counts.
    """

    cluster_id: str
    release: str
    brokers: Sequence[str]
    topics: Mapping[str, int]


class KafkaAdmin:
    """Questions to a cluster, each over a connection of its own; they raise `BrokerUnavailable` and
    `ConfigurationError`.
    """

    def __init__(self, bootstrap_servers: str, *, security: Security | None = None, timeout_s: float = 10.0) -> None:
        self._access = Access(bootstrap_servers, security)
        self._timeout_s = timeout_s

    async def cluster(self, *, topics: Collection[str] = (), group_id: str | None = None) -> Cluster:
        """Reach the cluster and look at it; raises `BrokerRefused` where this user may see one of `topics`, or the
        group, not at all.
        """
        async with self._client("asking Kafka about itself", group_id=group_id or "") as client:
            about = await client.describe_cluster()
            seen = await client.describe_topics()
            await _see(client, set(topics) - {topic["topic"] for topic in seen})
            if group_id is not None:
                await _ask_for_group(client, group_id)
            # No public method tells the versions; any broker will do.
            versions = await client._client.send(about["brokers"][0]["node_id"], ApiVersionRequest())  # noqa: SLF001
        newest = max((version[2] for version in versions.api_versions if version[0] == _FETCH_KEY), default=0)
        return Cluster(
            cluster_id=about["cluster_id"] or "",
            release=next(release for fetch, release in _RELEASE_OF_FETCH if newest >= fetch),
            brokers=sorted(f"{broker['host']}:{broker['port']}" for broker in about["brokers"]),
            topics={topic["topic"]: len(topic["partitions"]) for topic in seen if not topic["error_code"]},
        )

    async def create_topics(self, names: Collection[str], *, like: str | None = None) -> None:
        """Create those that are missing, each with as many partitions as topic `like` (else as the broker defaults).

        The replication factor is the broker's default.
        """
        existing = (await self.cluster()).topics
        count = existing.get(like or "", _BROKER_DEFAULT)
        wanted = [name for name in names if name not in existing]
        if not wanted:
            return
        async with self._client("creating topics", "Create") as client:
            # Without the empty assignments aiokafka does not accept the broker's defaults.
            reply = await client.create_topics([NewTopic(name, count, _BROKER_DEFAULT, {}) for name in wanted])
            for name, code, *_ in reply.topic_errors:
                if code and for_code(code) is not TopicAlreadyExistsError:
                    raise for_code(code)(name)
                log.info(Event.TOPIC_CREATED, topic=name, partitions=count)

    @asynccontextmanager
    async def _client(
        self, doing: str, operation: str = "Describe", *, group_id: str = ""
    ) -> AsyncIterator[AIOKafkaAdminClient]:
        servers, security = self._access.bootstrap_servers, self._access.security
        async with self._access.connecting(f"{doing} at {servers}", operation, group_id):
            client = AIOKafkaAdminClient(
                bootstrap_servers=servers,
                request_timeout_ms=int(self._timeout_s * 1000),
                **security.client_arguments(),
            )
            security.renew_password(client._client)  # noqa: SLF001
            try:
                async with asyncio.timeout(self._timeout_s):
                    await client.start()
                    if not client._client.cluster.brokers():  # noqa: SLF001 - it would ask node None
                        raise BrokerUnavailable(f"{doing}: Kafka at {servers} names no broker yet")
                    yield client
            finally:
                await client.close()


async def _ask_for_group(client: AIOKafkaAdminClient, group_id: str) -> None:
    """Raises where the group may not be seen; the first to ask a new cluster for any waits until it keeps them."""
    for tries_left in reversed(range(_COORDINATOR_TRIES)):
        try:
            await client.find_coordinator(group_id)
        except GroupCoordinatorNotAvailableError:
            if not tries_left:
                raise
            await asyncio.sleep(_COORDINATOR_WAIT_S)
        else:
            return


async def _see(client: AIOKafkaAdminClient, topics: Collection[str]) -> None:
    """Ask by name for topics that are not in the list: only then Kafka tells those that are hidden from this user."""
    if not topics:
        return
    reply = await client._send_request(MetadataRequest(list(topics), False))  # noqa: SLF001 - and creates none
    hidden = {
        code_and_name[1]
        for code_and_name in reply.topics
        if for_code(code_and_name[0]) is TopicAuthorizationFailedError
    }
    if hidden:
        raise TopicAuthorizationFailedError(hidden)


def input_problems(topics: Sequence[str], pattern: str | None, existing: Collection[str]) -> list[str]:
    """What is wrong with the choice of input topics, one line each with its remedy; `existing` as this user sees it."""
    if pattern is None:
        missing = [topic for topic in topics if topic not in existing]
        problems = [f"AGGREGATOR_KAFKA__TOPICS: there is no topic {topic!r}" for topic in missing]
    elif any(re.match(pattern, topic) for topic in existing):
        problems = []
    else:
        problems = [f"AGGREGATOR_KAFKA__TOPIC_PATTERN: there is no topic that matches {pattern!r}"]
    return [f"{problem}; create it, or name one that this user may see: {_some(existing)}" for problem in problems]


def output_problems(variables: Mapping[str, str], existing: Collection[str]) -> list[str]:
    """The same for topics that are written; `variables` maps the setting to the topic it names."""
    return [
        f"{variable}: there is no topic {topic!r}; create it, or set AGGREGATOR_KAFKA__CREATE_TOPICS=true"
        for variable, topic in variables.items()
        if topic not in existing
    ]


def _some(topics: Collection[str]) -> str:
    shown = sorted(topic for topic in topics if not topic.startswith("__"))
    more = ", ..." if len(shown) > _SHOWN_TOPICS else ""
    return (", ".join(shown[:_SHOWN_TOPICS]) or "there is none") + more
