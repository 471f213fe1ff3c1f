"""One broker for the whole run: Apache Kafka where there is a JVM and Maven, else the embedded one.

With `REQUIRE_SERVERS=1` a missing JVM or Maven is an error, so that CI can't quietly test less.
Tests share the broker and keep apart by the names of their topics and groups.
"""

from __future__ import annotations

import asyncio
import base64
import fcntl
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.admin import CreateAclsRequest, DeleteAclsRequest

from aggregator.embedded.broker import EmbeddedBroker
from aggregator.embedded.process import LOCALHOST, ChildProcess, free_port
from aggregator.embedded.server import EmbeddedServer

_ROOT: Final = Path(__file__).parent.parent
_POM: Final = _ROOT / "tests" / "kafka" / "pom.xml"
# A broker of tests lives for a minute: a small heap, and no time spent on optimising what runs so shortly.
_JVM: Final = ("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
_SETTINGS: Final = """\
process.roles=broker,controller
node.id={node_id}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listeners=CONTROLLER://{host}:{controller_port},{listening}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,{protocols}
{more}
log.dirs={directory}/logs
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
offsets.topic.num.partitions=4
offsets.topic.replication.factor={copies}
default.replication.factor={copies}
min.insync.replicas={in_sync}
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor={copies}
transaction.state.log.min.isr=1
message.max.bytes=8388608
log.cleaner.backoff.ms=500
log.retention.check.interval.ms=1000
num.io.threads=4
num.network.threads=2
"""

_TOPIC_TIMEOUT_S: Final = 30.0

_AUTHORIZER: Final = """\
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true
"""
"""Only where there is one node: of several none would let the others in before it knows that there are no ACLs."""


class Broker:
    """A running broker, as tests see it; `name` is what the summary line says."""

    def __init__(self, bootstrap_servers: str, name: str, *, pid: int, is_apache: bool, copies: int = 1) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.name = name
        self.pid = pid
        self.is_apache = is_apache
        self.copies = copies  # of each topic

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        """An admin client."""
        client = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
        await client.start()
        try:
            yield client
        finally:
            await client.close()

    async def create_topic(
        self,
        prefix: str = "spans",
        *,
        partitions: int = 1,
        name: str | None = None,
        copies: int | None = None,
        config: Mapping[str, str] = MappingProxyType({}),
    ) -> str:
        """Make a topic (of a new name, unless one is given), wait until it shows, and return its name."""
        name = name or f"{prefix}-{uuid.uuid4().hex[:12]}"
        new = NewTopic(name, partitions, copies or self.copies, topic_configs=dict(config))
        async with self.admin() as admin:
            reply = await admin.create_topics([new])
            _raise_for(reply.topic_errors)
            async with asyncio.timeout(_TOPIC_TIMEOUT_S):
                while (await admin.describe_topics([name]))[0]["error_code"]:  # noqa: ASYNC110 - the broker tells nobody
                    await asyncio.sleep(0.05)
        return name

    async def add_partitions(self, topic: str, total: int) -> None:
        """Let the topic grow to `total` partitions."""
        async with self.admin() as admin:
            reply = await admin.create_partitions({topic: NewPartitions(total_count=total)})
        _raise_for(reply.topic_errors)

    async def delete_topic(self, topic: str) -> None:
        """Delete a topic and wait until it is gone."""
        async with self.admin() as admin:
            reply = await admin.delete_topics([topic])
            _raise_for(reply.topic_error_codes)
            while topic in await admin.list_topics():  # noqa: ASYNC110 - the broker tells nobody
                await asyncio.sleep(0.05)

    @asynccontextmanager
    async def write_denied(self, topic: str) -> AsyncIterator[None]:
        """An ACL keeps everybody from writing to the topic."""
        async with self.admin() as admin:
            denied = (_TOPIC, topic, _LITERAL, "User:*", "*", _WRITE, _DENY)
            _raise_for_acls(await admin._client.send(1, CreateAclsRequest(*denied)))
            # An ACL that denies leaves nothing allowed that no other one allows.
            allowed = (_TOPIC, topic, _LITERAL, "User:*", "*", _ALL, _ALLOW)
            _raise_for_acls(await admin._client.send(1, CreateAclsRequest(*allowed)))
            try:
                yield
            finally:
                for one in (denied, allowed):
                    await admin._client.send(1, DeleteAclsRequest(*one))

    @asynccontextmanager
    async def producer(self, **settings: Any) -> AsyncIterator[AIOKafkaProducer]:
        """A producer of the test's own."""
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap_servers, **({"acks": "all"} | settings))
        await producer.start()
        try:
            yield producer
        finally:
            await producer.stop()


def _raise_for(errors: Sequence[tuple[Any, ...]]) -> None:
    for name, code, *rest in errors:
        if code:
            raise for_code(code)(f"{name}: {rest}")


def _raise_for_acls(reply: Any) -> None:
    for code, message in reply.creation_responses:
        if code:
            raise for_code(code)(message)


# As the protocol numbers them.
_TOPIC: Final = 2
_LITERAL: Final = 3
_ALL, _WRITE = 2, 4
_DENY, _ALLOW = 2, 3


class KafkaProcess:
    """What starts one node of Apache Kafka, broker and controller in one JVM, and starts it again on the same data."""

    def __init__(self, jars: Path, directory: Path, *, agents: Sequence[str] = ()) -> None:
        """`agents` are options of the running node's JVM."""
        self._java = ["java", *_JVM, "-cp", f"{jars}/*"]
        self._agents = list(agents)
        self._directory = directory
        self._settings = directory / "server.properties"

    def format(
        self,
        cluster_id: str,
        *,
        ports: Mapping[str, int],
        node_id: int = 1,
        controllers: Sequence[int],
        timeout_s: float,
        protocols: Mapping[str, str] = MappingProxyType({}),
        more: str = "",
        scram: Sequence[str] = (),
    ) -> None:
        """Write its settings and format its storage.

        `ports` are those of its listeners by name, one of them `PLAINTEXT`.  `controllers` are the controller ports of
        all nodes, which are numbered from 1.  `protocols` are the security protocols of listeners that are not plain,
        `more` further settings, and `scram` users to begin with, as the storage tool takes them.
        """
        self._settings.write_text(
            _SETTINGS.format(
                host=LOCALHOST,
                node_id=node_id,
                voters=",".join(f"{number}@{LOCALHOST}:{port}" for number, port in enumerate(controllers, 1)),
                controller_port=controllers[node_id - 1],
                listening=",".join(f"{name}://{LOCALHOST}:{port}" for name, port in ports.items()),
                protocols=",".join(f"{name}:{protocols.get(name, 'PLAINTEXT')}" for name in ports),
                more=more or (_AUTHORIZER if len(controllers) == 1 else ""),
                directory=self._directory / str(ports["PLAINTEXT"]),
                copies=len(controllers),
                in_sync=len(controllers) // 2 + 1,
            )
        )
        # With "=": one id in 64 begins with a dash, and would be taken for an option.
        arguments = ["format", f"--cluster-id={cluster_id}", "-c", str(self._settings)]
        for user in scram:
            arguments += ["--add-scram", user]
        command = [*self._java, "kafka.tools.StorageTool", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
        if done.returncode:
            pytest.fail(f"Kafka's storage can't be formatted:\n{done.stdout}{done.stderr}", pytrace=False)

    def start(self) -> ChildProcess:
        """Start it; what was formatted and written before is still there."""
        command = ["java", *self._agents, *self._java[1:], "kafka.Kafka", str(self._settings)]
        return ChildProcess("Apache Kafka", command, log_path=self._directory / "broker.log")


def new_cluster_id() -> str:
    """An id as Kafka makes them."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


class ApacheKafka(EmbeddedServer):
    """Apache Kafka, broker and controller in one JVM, with its data in a directory that goes with it."""

    start_timeout_s = 60.0  # some 4 s on an idle machine; CI shares its cores

    def __init__(self, jars: Path) -> None:
        super().__init__()
        self._jars = jars
        self._cluster_id = ""
        self.agents: list[str] = []

    def launch(self, port: int, log_dir: Path) -> ChildProcess:
        """Format the storage and start the broker."""
        process = KafkaProcess(self._jars, log_dir, agents=self.agents)
        self._cluster_id = new_cluster_id()
        process.format(
            self._cluster_id,
            ports={"PLAINTEXT": port},
            controllers=[free_port()],
            timeout_s=self.start_timeout_s,
            # Tests suspend it for longer than by default it would take itself for dead after.
            more=f"{_AUTHORIZER}broker.session.timeout.ms=60000",
        )
        return process.start()

    async def answers(self, child: ChildProcess, port: int) -> bool:
        """Whether the broker of our own cluster id is up and serves."""
        return bool(await brokers_of(self._cluster_id, port))


async def brokers_of(cluster_id: str, port: int) -> int:
    """How many brokers the node on that port knows; 0 while it does not answer or is of another cluster."""
    try:  # first without a Kafka client, which would log every attempt that comes too early
        _, writer = await asyncio.open_connection(LOCALHOST, port)
    except OSError:
        return 0
    writer.close()
    admin = AIOKafkaAdminClient(bootstrap_servers=f"{LOCALHOST}:{port}")
    try:
        await admin.start()
        cluster = await admin.describe_cluster()
    except (KafkaError, OSError):
        return 0
    finally:
        await admin.close()
    return len(cluster["brokers"]) if cluster["cluster_id"] == cluster_id else 0


def _jars(version: str) -> Path:
    """Kafka's jars, fetched once per version into the checkout's cache."""
    folder = _ROOT / ".cache" / "kafka" / version
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Maven's own cache is not made for two at once
        if not folder.is_dir():
            fresh = folder.with_name(f"{version}.{os.getpid()}")  # a run that is cut short leaves nothing half filled
            command = ["mvn", "-q", "-B", "-f", str(_POM), "dependency:copy-dependencies", f"-DoutputDirectory={fresh}"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
            if done.returncode:
                shutil.rmtree(fresh, ignore_errors=True)
                pytest.fail(f"Maven can't fetch Apache Kafka:\n{done.stdout}{done.stderr}", pytrace=False)
            fresh.rename(folder)
    return folder


def kafka_version_and_jars() -> tuple[str, Path] | None:
    """Apache Kafka's version and jars; None where this machine can't run it, which `REQUIRE_SERVERS=1` forbids."""
    missing = [program for program in ("java", "mvn") if shutil.which(program) is None]
    if not missing:
        found = re.search(r"<artifactId>kafka_2.13</artifactId>\s*<version>(.*)</version>", _POM.read_text())
        assert found, _POM
        return found[1], _jars(found[1])
    if os.environ.get("REQUIRE_SERVERS") == "1":
        pytest.fail(f"REQUIRE_SERVERS=1, but Apache Kafka needs {' and '.join(missing)} on the PATH", pytrace=False)
    return None


def _server() -> tuple[EmbeddedServer, str]:
    """The broker that this machine can run, not started yet, and its name."""
    apache = kafka_version_and_jars()
    if apache is None:
        return EmbeddedBroker(), "embedded broker (Tansu)"
    version, jars = apache
    return ApacheKafka(jars), f"Apache Kafka {version}"


def in_own_loop(work: Coroutine[Any, Any, object]) -> None:
    """Run it to its end beside whatever loop pytest keeps in this thread."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        pool.submit(asyncio.run, work).result()


@pytest.fixture(scope="session")
def _broker() -> Iterator[Broker]:
    server, name = _server()
    in_own_loop(server.__aenter__())
    try:
        yield Broker(server.address, name, pid=server.pid, is_apache=isinstance(server, ApacheKafka))
    finally:
        in_own_loop(server.stop())


@pytest.fixture
def kafka_broker(_broker: Broker) -> Broker:
    """The broker of this run."""
    return _broker


@pytest.fixture
def apache_kafka(_broker: Broker) -> Broker:
    """Apache Kafka, for what the embedded broker can't do; skips with that reason where there is none."""
    if not _broker.is_apache:
        pytest.skip("only Apache Kafka does this: needs java and mvn on the PATH")
    return _broker
